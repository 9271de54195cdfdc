#include "distorch/models/causal_vae/shortcuts.h"

#include <ATen/ATen.h>

namespace distorch::models::causal_vae {

using at::Tensor;

Tensor averaged(const Tensor& x, const Group& group) {
  auto time = group.time, space = group.space;
  auto missing = (time - x.size(0) % time) % time;
  auto whole = missing > 0 ? at::constant_pad_nd(x, {0, 0, 0, 0, 0, 0, missing, 0}) : x;
  auto frames = whole.size(0) / time, channels = x.size(1);
  auto rows = x.size(2) / space, columns = x.size(3) / space;
  auto together = channels * time * space * space / group.out;
  return whole.reshape({frames, time, channels, rows, space, columns, space})
      .permute({0, 2, 1, 4, 6, 3, 5})
      .reshape({frames, group.out, together, rows, columns})
      .mean(2);
}

Tensor repeated(const Tensor& x, const Group& group, bool first_chunk) {
  auto time = group.time, space = group.space;
  auto frames = x.size(0), rows = x.size(2), columns = x.size(3);
  auto times = group.out * time * space * space / x.size(1);
  auto result = x.repeat_interleave(times, 1)
                    .reshape({frames, group.out, time, space, space, rows, columns})
                    .permute({0, 2, 1, 5, 3, 6, 4})
                    .reshape({frames * time, group.out, rows * space, columns * space});
  return first_chunk ? result.narrow(0, time - 1, result.size(0) - (time - 1)) : result;
}

Tensor to_patches(const Tensor& pixels, std::int64_t patch) {
  if (patch == 1) return pixels;
  auto frames = pixels.size(0), channels = pixels.size(1);
  auto rows = pixels.size(2) / patch, columns = pixels.size(3) / patch;
  return pixels.reshape({frames, channels, rows, patch, columns, patch})
      .permute({0, 1, 5, 3, 2, 4})
      .reshape({frames, channels * patch * patch, rows, columns});
}

Tensor from_patches(const Tensor& patches, std::int64_t patch) {
  if (patch == 1) return patches;
  auto frames = patches.size(0), channels = patches.size(1) / (patch * patch);
  auto rows = patches.size(2), columns = patches.size(3);
  return patches.reshape({frames, channels, patch, patch, rows, columns})
      .permute({0, 1, 4, 3, 5, 2})
      .reshape({frames, channels, rows * patch, columns * patch});
}

}  // namespace distorch::models::causal_vae
