#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "distorch/models/text_encoder.h"
#include "distorch/tokenizers/prompt_tokenizer.h"

namespace distorch::models {

/// How an encoder fills its rows.
struct RowFilling {
  std::int64_t width = 0;           // of a token's vector
  int padding = 0;                  // the token behind the end
  std::vector<std::int64_t> empty;  // the tokens of the empty prompt, before padding
};

/// A tokenized prompt with its textual inversions as a batch; the empty prompt comes last where a
/// token has a weight. Vectors of another width leave their place: what follows moves up, padding
/// fills the end.
TokenBatch token_batch(tokenizers::PromptTokenizer const& tokenizer, const std::string& prompt,
                       const TextEncoder::Embeddings& embeddings, const RowFilling& filling,
                       std::int64_t chunks = 1);
/// The empty prompt without padding, for a prompt that says nothing at all.
TokenBatch nothing(const RowFilling& filling);

/// States [rows, L, width] of a batch on the CPU as one sequence [1, chunks · L, width]: each place
/// is moved away from the empty prompt's by its weight. Source: ComfyUI comfy/sd1_clip.py,
/// ClipTokenWeightEncoder.
at::Tensor weighted(const at::Tensor& states, const TokenBatch& batch);

}  // namespace distorch::models
