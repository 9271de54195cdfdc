#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "distorch/weights/checkpoint.h"

namespace distorch::models::sd {

/// Shape of a Stable Diffusion UNet. Levels go from the full latent size down, each half the size
/// of the one before.
struct UNetConfig {
  // 9: inpainting (latent, mask, masked latent); 8: edit by instruction
  std::int64_t in_channels = 4;
  std::int64_t out_channels = 4;
  std::int64_t model_channels = 320;
  std::int64_t time_width = 1280;
  std::int64_t context_width = 768;  // 0 where nothing attends to a text
  std::int64_t vector_width = 0;     // of a second conditioning vector (SDXL's label_emb); 0: none
  std::vector<std::int64_t> channels;    // by level
  std::vector<std::int64_t> res_blocks;  // by level, on the way down; one more on the way up
  // transformer blocks after each residual block on the way down; 0: none
  std::vector<std::int64_t> depth_in;
  std::vector<std::int64_t> depth_out;  // the same on the way up, in execution order
  std::int64_t depth_middle = 1;        // -1: a residual block only, -2: no middle at all
  // SD 2.x: matrices around the transformer; SD 1.x: 1x1 convolutions
  bool linear_projection = false;
  std::int64_t image_prompts = 0;  // pictures that it may look at beside the text (image_prompt.h)

  /// Heads of an attention of so many channels: 8 with convolutions (SD 1.x), channels / 64 with
  /// matrices (SD 2.x).
  std::int64_t heads(std::int64_t channels) const;
};

/// Reads the configuration off names and shapes ("input_blocks.1.0.in_layers.2.weight"). `unet` has
/// original names. Errors: Error(MissingWeight) where a tensor that tells a size is absent,
/// Error(Shape) where sizes make no sense. Source of the rules: ComfyUI comfy/model_detection.py,
/// detect_unet_config.
UNetConfig unet_config(const weights::Checkpoint& unet);

/// The same of a network that has only the way down and the middle (ControlNets): out_channels is
/// 0, depth_out empty.
UNetConfig encoder_config(const weights::Checkpoint& encoder);

/// Whether an SD 2.x UNet of 4 input channels predicts velocity: the spread of one norm's bias
/// tells the two trained models apart (> 0.09; source: ComfyUI comfy/supported_models.py, SD20).
/// Reads that one small tensor.
bool predicts_velocity(const weights::Checkpoint& unet);

/// Names of the diffusers library -> original names, for every tensor of a UNet of this shape (with
/// "weight", "bias").
std::map<std::string, std::string> diffusers_names(const UNetConfig& config);

/// A UNet with diffusers names under original ones; any other checkpoint comes back as it is.
weights::Checkpoint with_original_names(const weights::Checkpoint& unet);

}  // namespace distorch::models::sd
