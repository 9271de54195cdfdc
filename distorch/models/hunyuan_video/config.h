#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "distorch/models/flux/config.h"
#include "distorch/weights/checkpoint.h"

namespace distorch::models::hunyuan_video {

/// Cells of a latent that one token stands for, in height and in width, in all but HunyuanVideo 1.5; a
/// frame is one by itself.
inline constexpr std::int64_t kPatch = 2;
/// Of the rotary positions.
inline constexpr double kTheta = 256;

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
  std::int64_t patch = kPatch;  // 1 in HunyuanVideo 1.5

  // What HunyuanVideo 1.5 attends to beside the text (further_tokens.h); 0: nothing of that kind.
  std::int64_t vision_width = 0;                 // of what a picture encoder saw
  std::int64_t glyph_width = 0;                  // of states of words that the video shows
  std::int64_t glyph_hidden = 0, glyph_out = 0;  // behind the first and the second layer over them
  bool marked_kinds = false;                     // tokens carry a mark of what they stand for

  bool is_15() const { return vision_width > 0; }
  std::int64_t heads() const { return hidden / head; }
  /// Channels beside the noisy latent.
  std::int64_t beside() const { return in_channels - out_channels; }
  /// What the blocks, which are FLUX's, are made by.
  flux::Config blocks() const;
};

/// The transformer's tensors under ComfyUI's names ("double_blocks.0.img_attn.qkv.weight"), from
/// those, Tencent's or diffusers' (HunyuanVideoTransformer3DModel). Empty where there is none, or a
/// relative for pictures (HunyuanImage and its refiner): of those that have tokens of one cell or a
/// second text only HunyuanVideo 1.5 looks at pictures.
weights::Checkpoint with_our_names(const weights::Checkpoint& below);

/// Reads the sizes off the shapes. Errors: Error(MissingWeight), Error(Shape).
Config config_of(const weights::Checkpoint& part);

/// Where diffusers' layers lie in ours (flux/config.h).
std::map<std::string, flux::OriginalPlace> diffusers_places(const Config& config);

}  // namespace distorch::models::hunyuan_video
