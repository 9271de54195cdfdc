#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace distorch::sampling {

/// What steers the network beside the text while a conditioning counts (ControlNets). Nodes make it
/// and the model reads it; sampling asks only which conditionings may share a call.
class Control {
 public:
  virtual ~Control() = default;
  /// Whether both say the same: the same networks, hints, strengths, ranges.
  virtual bool equals(const Control& other) const = 0;
};

/// A box of the latent, one entry a dimension (height, width; with frames before them for video).
/// fraction: parts of the latent's size; otherwise latent cells.
struct Area {
  std::vector<double> size;
  std::vector<double> origin;
  bool fraction = false;
  bool operator==(const Area&) const = default;
};

/// One prompt with where, when and how strongly it counts. What ComfyUI keeps as [tensor, options].
struct ConditioningItem {
  at::Tensor cross_attn;     // [1 or B, tokens, width]; undefined: none
  at::Tensor pooled_output;  // [1 or B, width]; undefined: none
  std::optional<Area> area;
  double strength = 1.0;
  at::Tensor mask;  // [H, W] or [B, H, W], any size; undefined: everywhere
  double mask_strength = 1.0;
  bool set_area_to_bounds = false;      // compute only the box around the mask
  std::optional<double> start_percent;  // 0 = first step, 1 = last
  std::optional<double> end_percent;
  std::shared_ptr<const Control> control;  // null: none
  /// Negative items without a control of their own take this one's.
  bool control_for_negative = false;
  /// Anything else a model family reads: "guidance", "width", ... and "concat_latent_image", ...
  std::map<std::string, double> numbers;
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::string> texts;  // "reference_latents_method", ...
  /// Pictures that the model looks at beside the one it makes, in order, of any sizes: [B, C, h, w]
  /// in the scale of a LATENT.
  std::vector<at::Tensor> reference_latents;
};

/// What the CONDITIONING type of a workflow carries.
using Conditioning = std::vector<ConditioningItem>;

}  // namespace distorch::sampling
