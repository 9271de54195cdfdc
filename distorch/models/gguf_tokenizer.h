#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "distorch/formats/tensor_file.h"

namespace distorch::models {

/// The SentencePiece model that a GGUF file's header describes ("tokenizer.ggml.tokens" and others,
/// "tokenizer.ggml.model" being "t5"), as a tensor of bytes like the `spiece_model` of other files;
/// undefined where the file is of another format or describes none. Characters are not normalised, as
/// ComfyUI-GGUF does not. Error(Format) where the lists differ in length or hold other things.
/// Source: ComfyUI-GGUF loader.py, gguf_tokenizer_loader.
at::Tensor gguf_sentence_piece(const std::shared_ptr<const formats::TensorFile>& file);

/// The tokens of the byte-pair vocabulary that a GGUF file's header lists
/// ("tokenizer.ggml.model" being "gpt2"), by rank and as it spells them; none where the file is of
/// another format or lists none.
std::vector<std::string> gguf_byte_pairs(const std::shared_ptr<const formats::TensorFile>& file);

}  // namespace distorch::models
