#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "distorch/models/florence2/config.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::florence2 {

/// What the decoder knows of the tokens before and of what it answers to. N rows are written at the
/// same time, which all answer to the same picture and text.
struct DecoderState {
  std::int64_t length = 0;               // tokens so far
  std::vector<at::Tensor> keys, values;  // by layer: [N, length, width]; undefined at the start
  std::vector<at::Tensor> seen_keys, seen_values;  // by layer: [1, L, width] of what is answered to

  /// The rows with these numbers, in that order: [M] int64 on the CPU.
  DecoderState rows(const at::Tensor& which) const;
};

/// BART: an encoder that reads a picture's features and a text, a decoder that writes. Norms stand
/// behind what they normalise.
/// Blocks: the table of tokens, what the encoder starts with and its layers, the same of the decoder.
/// Source: Lewis et al. 2019 (BART).
class Language {
 public:
  /// Declares its weights in `manifest`, which must outlive it.
  Language(weights::Manifest& manifest, const TextConfig& config);
  ~Language();

  /// features [1, T, width] of a picture and ids [1, L] int64 behind them -> [1, T + L, width].
  /// Error(Shape) where they are more than there are positions.
  at::Tensor encode(const at::Tensor& features, const at::Tensor& ids) const;
  /// The state before the first token of an answer to what encode() gave.
  DecoderState begin(const at::Tensor& encoded) const;
  /// The next tokens ids [N, 1] int64 -> scores of those that may follow, [N, vocabulary] float32;
  /// `state` becomes that behind them. Error(Shape) behind the last position.
  at::Tensor next(const at::Tensor& ids, DecoderState& state) const;

 private:
  class Table;
  class Start;
  class EncoderLayer;
  class DecoderLayer;

  std::unique_ptr<const Table> table_;
  std::unique_ptr<const Start> encoder_start_, decoder_start_;
  std::vector<std::unique_ptr<const EncoderLayer>> encoder_;
  std::vector<std::unique_ptr<const DecoderLayer>> decoder_;
};

}  // namespace distorch::models::florence2
