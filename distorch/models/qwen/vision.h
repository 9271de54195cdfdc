#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "distorch/models/qwen/config.h"
#include "distorch/models/text_encoder.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::qwen {

/// A picture [1, H, W, 3] float32 0..1 as the tower takes it: sides rounded to multiples of 28
/// pixels (between 3,136 and 12,845,056 pixels in all), bilinear, normalised, cut into patches; four
/// neighbouring ones lie together. `column` and the rest of the tokens are the caller's.
/// Source: ComfyUI comfy/text_encoders/qwen_vl.py, process_qwen2vl_images.
TokenPicture cut_picture(const at::Tensor& picture, const VisionConfig& config);

/// The order in which the tower works: positions of groups of four patches so that windows of equal
/// shape follow one another.
struct Windows {
  struct Group {
    std::int64_t count = 0;  // windows
    std::int64_t size = 0;   // patches of each
  };
  std::vector<std::int64_t> order;  // group of four at each place
  std::vector<Group> groups;
};
/// Windows of 4 x 4 groups over a picture of rows x columns groups, smaller at the edges.
Windows windows_of(std::int64_t rows, std::int64_t columns);

/// The vision tower of Qwen2.5-VL: attention in windows but for every eighth layer, positions by row
/// and column; four patches become one vector of the language model.
/// Blocks: patches, every layer, the merger.
/// Source: Qwen team 2025 (Qwen2.5-VL); ComfyUI comfy/text_encoders/qwen_vl.py.
class Vision {
 public:
  /// Declares its weights in `manifest`, which must outlive it.
  Vision(weights::Manifest& manifest, const VisionConfig& config);

  const VisionConfig& config() const { return config_; }

  /// patches [rows · columns, numbers] float32 on the device, as cut_picture() orders them ->
  /// [rows · columns / 4, out_width] float32. Needs weights attached.
  at::Tensor forward(const at::Tensor& patches, std::int64_t rows, std::int64_t columns) const;

 private:
  class Layer;
  struct Patches {
    Patches(const weights::Scope& scope, const VisionConfig& config);
    weights::Block block;
    at::Tensor matrix() const;  // [width, numbers of a patch], while the block is running
    weights::Weight weight;     // [width, 3, frames, patch, patch]
    weights::Weight second;     // config.frames_apart: of the other frame, both without `frames`
  };
  struct Merger {
    Merger(const weights::Scope& scope, const VisionConfig& config);
    weights::Block block;
    nn::RmsNorm norm;
    nn::Linear first, second;
  };

  VisionConfig config_;
  Patches patches_;
  std::vector<std::shared_ptr<const Layer>> layers_;
  Merger merger_;
};

}  // namespace distorch::models::qwen
