#pragma once
#include <memory>

#include "distorch/models/control/control.h"
#include "distorch/models/sd/unet_config.h"

namespace distorch::models::control {

/// Shape of a ControlNet of Stable Diffusion 1.x, 2.x or XL.
struct ControlNetConfig {
  sd::UNetConfig encoder;  // the half of a UNet that it copies
  // channels of the hint, then of the output of each of the 8 convolutions that encode it
  std::vector<std::int64_t> hint_widths;
  // Union networks: number of kinds of control (0: no union), width of their embedding, layers.
  std::int64_t types = 0;
  std::int64_t type_width = 320;
  std::int64_t type_layers = 1;
};

/// Reads the configuration off names and shapes. `part` has original names. Errors as
/// sd::unet_config.
ControlNetConfig control_net_config(const weights::Checkpoint& part);

/// A ControlNet with diffusers names under original ones; any other checkpoint comes back as it is.
weights::Checkpoint with_original_names(const weights::Checkpoint& part);

/// The first half of a UNet with a picture added to its first features; a 1x1 convolution of each
/// stage's output is its residual. Blocks: input_hint_block, the union's parts, then as in the UNet,
/// and all 1x1 convolutions together ("zero_convs") at the end.
/// Source: Zhang et al. 2023; ComfyUI comfy/cldm/cldm.py; the union's parts: xinsir6/ControlNetPlus.
class ControlNet final : public ControlNetwork {
 public:
  explicit ControlNet(const ControlNetConfig& config);
  ~ControlNet() override;

  const ControlNetConfig& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  HintFormat hint() const override { return {.channels = config_.hint_widths.front()}; }
  const std::vector<Place>& places() const override { return places_; }
  int control_types() const override { return static_cast<int>(config_.types); }

  /// "guide": features of the hint [B, model_channels, h, w]; of unions "kind" as well: the
  /// embedding of the kind of control [1, time_width].
  Inputs encode(const at::Tensor& hint, std::optional<int> type) const override;
  const InputSpecs& inputs() const override { return inputs_; }
  at::Tensor apply(const Inputs& inputs) const override;
  Inputs residuals(const at::Tensor& packed, at::IntArrayRef x) const override;

 private:
  struct Parts;

  ControlNetConfig config_;
  weights::Manifest manifest_;
  InputSpecs inputs_;
  std::unique_ptr<const Parts> parts_;
  std::vector<Place> places_;
  std::vector<std::int64_t> widths_, halvings_;  // by place: channels, how often the size is halved
};

}  // namespace distorch::models::control
