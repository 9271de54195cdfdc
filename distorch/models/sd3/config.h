#pragma once
#include <cstdint>
#include <set>
#include <string>

#include "distorch/weights/checkpoint.h"

namespace distorch::models::sd3 {

inline constexpr std::int64_t kHeadWidth = 64;

/// Shape of an MM-DiT (SD3, SD3.5).
struct MmditConfig {
  std::int64_t in_channels = 16;
  std::int64_t out_channels = 16;
  std::int64_t patch = 2;            // latent cells a token, each way
  std::int64_t width = 1536;         // of a token; a multiple of kHeadWidth
  std::int64_t mlp_width = 6144;     // inside the feed-forward layers
  std::int64_t blocks = 24;          // joint blocks
  std::int64_t text_width = 4096;    // of a text token
  std::int64_t vector_width = 2048;  // of the pooled text
  std::int64_t positions = 192;      // tokens each way in the table of positions; 0: computed
  bool qk_norm = false;              // SD3.5: queries and keys are normed
  std::set<std::int64_t> dual;       // blocks whose picture attends to itself once more
  /// The file came in the names of the diffusers library, which keeps queries, keys and values apart.
  bool split_qkv = false;
  /// There the modulations of the last norms have the scale before the shift.
  bool scale_first = false;

  std::int64_t heads() const { return width / kHeadWidth; }
};

/// Reads the configuration off names and shapes; `mmdit` has the names of with_original_names().
/// Error(MissingWeight) where a tensor that tells a size is absent, Error(Shape) where sizes make no
/// sense. Source of the rules: ComfyUI comfy/model_detection.py, detect_unet_config.
MmditConfig mmdit_config(const weights::Checkpoint& mmdit);

/// An MM-DiT's tensors under original names, whatever the file calls them; queries, keys and values
/// that the file keeps apart are "q", "k", "v" in place of "qkv", and the mark kScaleFirst says that
/// the last modulations are diffusers' way round. Empty where it is none.
weights::Checkpoint with_original_names(const weights::Checkpoint& below);

/// The same of a ControlNet for SD3 (control_net.h), which is published in diffusers' names. Empty
/// where it is none.
weights::Checkpoint with_original_control_names(const weights::Checkpoint& file);

/// The names of the diffusers library without their ends -> the network's, for every layer of an
/// MM-DiT with so many blocks. Queries, keys and values go to "q", "k", "v".
std::map<std::string, std::string> diffusers_layers(std::int64_t blocks);

}  // namespace distorch::models::sd3
