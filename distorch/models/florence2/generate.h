#pragma once
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "distorch/models/florence2/language.h"

namespace distorch::models::florence2 {

/// What a model's files say about writing: special tokens and what it was trained to be kept from.
struct GenerationConfig {
  std::int64_t start = 2;  // what the decoder is given first
  std::int64_t end = 2;
  std::int64_t forced_first = 0;  // -1: none
  std::int64_t forced_last = 2;   // where the limit is reached; -1: none
  std::int64_t no_repeat = 3;     // as many tokens in a row come once; 0: any number of times
  bool early_stopping = true;     // beams end as soon as there are as many finished texts
  std::int64_t top_k = 50;        // tokens that are drawn from; 0: all
};

/// From config.json's "text_config": published models are run by what it says, not by
/// generation_config.json. Error(Format) naming the file and the entry.
GenerationConfig read_generation_config(const std::string& json, const std::string& where);

struct GenerateOptions {
  std::int64_t new_tokens = 1024;  // at most
  std::int64_t beams = 3;
  bool draws = false;  // else the likeliest are taken
};

/// Writes the answer to what was encoded: ids from the start token on, the end token with them where
/// one was written. Tokens are drawn from `generator`, on the CPU wherever the model computes.
/// `written`: called with the number of tokens before each new one; may throw.
/// Source: behaviour of GenerationMixin.generate in transformers 4.57 (greedy, sampling, beam search
/// and beam sampling; what is kept of ties depends on torch's topk, as there).
std::vector<std::int64_t> generate(const Language& language, const at::Tensor& encoded,
                                   const GenerationConfig& config, const GenerateOptions& options,
                                   at::Generator& generator,
                                   const std::function<void(std::int64_t)>& written = {});

}  // namespace distorch::models::florence2
