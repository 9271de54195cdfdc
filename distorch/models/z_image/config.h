#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "distorch/weights/checkpoint.h"

namespace distorch::models::z_image {

/// Shape of a ControlNet that runs with a Next-DiT (control_patch.h).
struct ControlConfig {
  std::int64_t channels = 16;  // of the latent that steers it
  std::int64_t layers = 6;     // spread over the network's first 30
  std::int64_t mlp_width = 10240;
  /// Control layers run behind the noise refiners, too; else plain refiners run before them.
  bool refines = false;
  /// Those are the control layers of the network's layers, all of them before their time: the second
  /// published version was trained so.
  bool misplaced = false;
  bool split_qkv = false;

  /// Layers of the network from one control layer to the next.
  std::int64_t distance() const { return (60 + layers) / (2 * layers); }
};

/// Shape of a Next-DiT: Z-Image, or Lumina Image 2.0 before it.
struct NextDitConfig {
  bool z_image = true;
  std::int64_t channels = 16;  // of the latent
  std::int64_t patch = 2;      // latent cells a token, each way
  std::int64_t width = 3840;   // of a token
  std::int64_t heads = 30;
  std::int64_t kv_heads = 30;
  std::int64_t head_width = 128;
  std::int64_t mlp_width = 10240;  // inside the gated feed-forward layers
  std::int64_t text_width = 2560;  // of a text token
  std::int64_t layers = 30;
  std::int64_t noise_refiners = 2, context_refiners = 2;
  std::int64_t time_width = 1024;     // inside the embedding of the noise level
  std::int64_t embedded_width = 256;  // of the embedding of the noise level
  bool pads = true;                   // text and picture are filled up to multiples of kPadTo
  /// The file came in the names of the diffusers library, which keeps queries, keys and values apart.
  bool split_qkv = false;
  std::vector<ControlConfig> patches;  // model patches that run with it

  /// How many numbers of a head follow the index, the row and the column of a token.
  std::vector<std::int64_t> axes() const;
  double rope_theta() const { return z_image ? 256.0 : 10000.0; }
  /// The embedding of the noise level takes 0..1 times this.
  double time_scale() const { return z_image ? 1000.0 : 1.0; }
  /// Of the layers' modulation in the names: a SiLU stands before Lumina's.
  std::int64_t modulation_index() const { return z_image ? 0 : 1; }
};

inline constexpr std::int64_t kPadTo = 32;

/// A Next-DiT's tensors under original names, whatever the file calls them; queries, keys and values
/// that the file keeps apart are "q", "k", "v" in place of "qkv". Empty where it is none.
weights::Checkpoint with_original_names(const weights::Checkpoint& below);

/// Reads the configuration off names and shapes; `dit` has original names. Error(MissingWeight)
/// where a tensor that tells a size is absent, Error(Shape) where sizes make no sense, Error(Format)
/// for relatives that are not supported. Source of the rules: ComfyUI comfy/model_detection.py.
NextDitConfig next_dit_config(const weights::Checkpoint& dit);

/// The names of the diffusers library without their ends -> the network's, where the two differ.
/// Queries, keys and values go to "q", "k", "v".
std::map<std::string, std::string> diffusers_layers(const NextDitConfig& config);

/// The configuration of a ControlNet of that kind. Reads one weight where shapes do not tell enough.
ControlConfig control_config(const weights::Checkpoint& patch);
/// The tensors of such a file under original names, as with_original_names() has them.
weights::Checkpoint with_original_control_names(const weights::Checkpoint& patch);

/// What the transformer layers are called: "noise_refiner.0", ..., "layers.29".
std::vector<std::string> layer_names(const NextDitConfig& config);

}  // namespace distorch::models::z_image
