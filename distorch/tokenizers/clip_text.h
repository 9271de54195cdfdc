#pragma once
#include <string>
#include <string_view>

namespace distorch::tokenizers {

/// Cleans a text as the CLIP tokenizer of the library `transformers` does where `ftfy` is not
/// installed (ComfyUI does not install it): control characters and bytes that are no UTF-8 vanish,
/// white space becomes single spaces, CJK ideographs stand alone, NFC, lower case.
std::string clean_clip_text(std::string_view utf8);

}  // namespace distorch::tokenizers
