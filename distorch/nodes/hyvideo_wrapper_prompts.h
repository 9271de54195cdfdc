#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "distorch/nodes/hyvideo_wrapper.h"

/// How the HunyuanVideoWrapper reads prompts. Source: ComfyUI-HunyuanVideoWrapper,
/// hyvideo/text_encoder/__init__.py and hyvideo/constants.py.
namespace distorch::nodes::hyvideo {

/// The frames that the models were trained with, by the names of the nodes' lists: "video", "image",
/// "I2V_video", "I2V_image". Error(Usage) for another name.
Frame named_frame(const std::string& name);

/// Which of `length` places a list of Python's slices and indices names: "::4", "0:10,-1"; "" none.
/// Error(Usage) that quotes it where it is no such list.
std::vector<bool> selected(const std::string& slices, std::int64_t length);

/// A prompt with what it shows a LLaVA.
struct Words {
  std::string text;
  std::vector<at::Tensor> pictures;  // [1, H, W, C] 0..1, for each "<image>" in the framed text
  std::string slices = "::4";        // of a picture's places within the user's words
  /// A picture before the user's words: of its places one in so many is kept (1 to 5, else all).
  bool picture_first = false;
  std::int64_t every = 2;
};

/// The states [1, n, width] of a prompt. `frame` null: the text alone, which a LLaVA does not take.
/// Errors: Usage where the frame does not fit or leaves nothing, where pictures and their places in
/// the text differ in number; MissingWeight naming the folder where it has no vision half.
at::Tensor encoded_words(graph::Call& call, const HyText& text, const Frame* frame,
                         const Words& words);

/// CLIP-L's pooled vector [1, 768] of a prompt as it stands: its first 75 tokens.
at::Tensor pooled_words(graph::Call& call, LoadedEncoder& clip, const std::string& prompt);

}  // namespace distorch::nodes::hyvideo
