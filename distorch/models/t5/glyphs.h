#pragma once
#include <string>
#include <string_view>

namespace distorch::models::t5 {

/// What ByT5 is told of words that a picture or a video shows: those that a prompt quotes ("so",
/// ‘so’ or “so”, each within a line), in the order of these three kinds of quotes, as
/// `Text "so". Text "and so". `; empty where it quotes nothing. Source: ComfyUI
/// comfy/text_encoders/hunyuan_image.py, HunyuanImageTokenizer.
std::string quoted_words(std::string_view prompt);

}  // namespace distorch::models::t5
