#pragma once
#include "distorch/models/family.h"

namespace distorch::models::sd2 {

/// Stable Diffusion 2.1 unCLIP: beside the text it is told pictures, as a picture encoder sees them.
/// Told from SD 2.x by the second conditioning, whose widths are those of CLIP-L and OpenCLIP-H.
std::unique_ptr<const Family> detect_unclip(const weights::Checkpoint& below,
                                            const weights::Checkpoint& file);

/// A picture as a conditioning carries it.
struct UnclipPicture {
  at::Tensor embeds;  // [pictures, width]
  double strength = 1.0;
  double noise_augmentation = 0.0;  // 0..1
};

/// [1, 2·width] float32 on the CPU: the pictures' embeddings, noised as far as is asked for, and how
/// far. Several are added up and noised a little more. Source: ComfyUI comfy/model_base.py,
/// unclip_adm.
at::Tensor unclip_vector(const std::vector<UnclipPicture>& pictures, std::uint64_t seed);

}  // namespace distorch::models::sd2
