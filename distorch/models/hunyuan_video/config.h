#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "distorch/models/flux/config.h"
#include "distorch/weights/checkpoint.h"

namespace distorch::models::hunyuan_video {

/// Shape of a HunyuanVideo transformer. Sizes of the published text-to-video model are the defaults.
struct Config {
  std::int64_t hidden = 3072;
  std::int64_t head = 128;   // width of one
  std::int64_t mlp = 12288;  // width between the two layers
  std::int64_t depth = 20;   // double blocks
  std::int64_t single_depth = 40;
  std::int64_t refiner_depth = 2;  // blocks of text alone
  std::int64_t in_channels = 16;   // of the noisy latent and what is given beside it
  std::int64_t out_channels = 16;
  std::int64_t text_width = 4096;
  std::int64_t vector_width = 768;  // of the pooled text; 0: none
  bool guidance = true;

  std::int64_t heads() const { return hidden / head; }
  /// Channels beside the noisy latent.
  std::int64_t beside() const { return in_channels - out_channels; }
  /// What the blocks, which are FLUX's, are made by.
  flux::Config blocks() const;
};

/// Cells of a latent that one token stands for, in height and in width; a frame is one by itself.
inline constexpr std::int64_t kPatch = 2;
/// Of the rotary positions.
inline constexpr double kTheta = 256;

/// The transformer's tensors under ComfyUI's names ("double_blocks.0.img_attn.qkv.weight"), from
/// those, Tencent's or diffusers' (HunyuanVideoTransformer3DModel). Empty where there is none, or a
/// relative of other patches or with a second text (HunyuanImage, HunyuanVideo 1.5).
weights::Checkpoint with_our_names(const weights::Checkpoint& below);

/// Reads the sizes off the shapes. Errors: Error(MissingWeight), Error(Shape).
Config config_of(const weights::Checkpoint& part);

/// Where diffusers' layers lie in ours (flux/config.h).
std::map<std::string, flux::OriginalPlace> diffusers_places(const Config& config);

}  // namespace distorch::models::hunyuan_video
