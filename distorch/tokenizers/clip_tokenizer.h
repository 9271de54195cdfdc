#pragma once
#include <memory>

#include "distorch/tokenizers/clip_bpe.h"
#include "distorch/tokenizers/prompt_tokenizer.h"

namespace distorch::tokenizers {

inline constexpr PromptTokenizerOptions clip_l_options{.max_length = 77,
                                                       .start = ClipBpe::start_token,
                                                       .end = ClipBpe::end_token,
                                                       .padding = ClipBpe::end_token};
/// OpenCLIP-H of SD 2.x and G of SDXL pad with 0.
inline constexpr PromptTokenizerOptions clip_h_options{
    .max_length = 77, .start = ClipBpe::start_token, .end = ClipBpe::end_token, .padding = 0};

/// The tokenizer of CLIP text encoders.
class ClipTokenizer : public PromptTokenizer {
 public:
  explicit ClipTokenizer(std::shared_ptr<const ClipBpe> vocabulary,
                         PromptTokenizerOptions options = clip_l_options)
      : PromptTokenizer([vocabulary = std::move(vocabulary)](
                            std::string_view text) { return vocabulary->encode(text); },
                        options) {}
};

}  // namespace distorch::tokenizers
