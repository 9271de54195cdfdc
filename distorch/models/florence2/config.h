#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "distorch/weights/checkpoint.h"

namespace distorch::models::florence2 {

/// One stage of the vision tower: a convolution that makes the picture smaller, then pairs of
/// blocks.
struct StageConfig {
  std::int64_t width = 0;
  std::int64_t heads = 0;   // of the attention within windows
  std::int64_t groups = 0;  // of the attention between channels
  std::int64_t depth = 1;   // pairs of blocks
  std::int64_t kernel = 3, stride = 2, padding = 1;
  bool norm_first = true;  // the norm stands before the convolution
};

struct VisionConfig {
  std::vector<StageConfig> stages;
  std::int64_t window = 12;     // tokens along a side of a window
  std::int64_t positions = 50;  // rows and columns that have a learned position
};

/// BART, whose two halves have the same width.
struct TextConfig {
  std::int64_t vocabulary = 51289;
  std::int64_t width = 768;
  std::int64_t positions = 1024;  // tokens that each half takes
  std::int64_t encoder_layers = 6, encoder_heads = 12, encoder_mlp = 3072;
  std::int64_t decoder_layers = 6, decoder_heads = 12, decoder_mlp = 3072;
};

struct Config {
  VisionConfig vision;
  TextConfig text;

  static Config base();
  static Config large();
};

/// The model's tensors of a file under the names of the published checkpoints ("vision_tower...",
/// "language_model.model..."). Empty where the file holds something else.
weights::Checkpoint florence2_part(const weights::Checkpoint& file);

/// Reads a model's config.json; `where` names it. The size of the vocabulary is that of `part`.
/// Error(Format) naming the entry for what is no such file, Error(Shape) for heads that do not share
/// out a width.
Config read_config(const std::string& json, const std::string& where,
                   const weights::Checkpoint& part);

}  // namespace distorch::models::florence2
