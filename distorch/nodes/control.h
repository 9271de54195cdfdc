#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "distorch/nodes/model_cache.h"
#include "distorch/sampling/conditioning.h"
#include "distorch/sampling/guidance.h"
#include "distorch/streaming/engine.h"

/// ControlNets and T2I-adapters: what travels on CONTROL_NET links and with conditionings, and how
/// they run inside a diffusion model's step.
namespace distorch::nodes {

/// What CONTROL_NET carries.
struct ControlNet {
  /// Null: its file holds low-rank changes to a UNet's weights (a control LoRA), so that it can be
  /// opened only where the UNet is known (with_open_controls()).
  std::shared_ptr<LoadedControl> loaded;
  std::shared_ptr<const ControlOverlay> overlay;
  std::optional<int> type;  // of a union network's kinds of control
  /// On weights that it has from a UNet.
  std::vector<streaming::LoraUse> loras;
  bool operator==(const ControlNet&) const = default;
};

/// One use of a ControlNet: what ConditioningItem::control points to.
struct ControlUse final : sampling::Control {
  ControlNet net;
  at::Tensor image;  // [B, H, W, C] 0..1 on the CPU, as the node got it
  Vae vae;           // for networks that want a latent
  at::Tensor keep;   // [B, 1, H, W], 1 = keep, for those that inpaint; undefined: all
  double strength = 1.0;
  // Parts of the run that it counts in: 0 the first step, 1 the last.
  double start_percent = 0.0, end_percent = 1.0;
  std::shared_ptr<const ControlUse> previous;  // whose residuals are added to its own

  bool equals(const sampling::Control& other) const override;
};

/// The control of an item; null: none.
std::shared_ptr<const ControlUse> control_of(const sampling::ConditioningItem& item);

/// The same conditioning with all control LoRAs opened over the UNet of `model`.
sampling::Conditioning with_open_controls(sampling::Conditioning conditioning, const Model& model,
                                          ModelCache& models);

/// The ControlNets of one run of a diffusion model. What follows from a hint alone is computed when
/// it is first asked for, at the size that is asked for, and kept until the run ends. Source: ComfyUI
/// comfy/controlnet.py, ControlBase, ControlNet and T2IAdapter.
class ControlRun {
 public:
  /// `pixels`: of a side of the picture, a latent cell; `rows`: latents of the run.
  ControlRun(streaming::Engine& engine, std::int64_t pixels, std::int64_t rows)
      : engine_(engine), pixels_(pixels), rows_(rows) {}

  /// Every network that the conditioning uses. Pictures that a VAE has to encode are encoded at once,
  /// for latents of shape `x`. Error(Usage) that names the network's file where it wants a VAE and
  /// none is connected.
  void add(const sampling::Conditioning& conditioning, at::IntArrayRef x);
  bool empty() const { return nets_.empty(); }
  /// Names of the UNet's inputs that will be there.
  std::set<std::string> input_names() const;
  /// What the engine needs to know of each network for calls of these sizes.
  std::vector<streaming::Engine::Wanted> wanted(const models::CallSizes& sizes, double steps) const;

  struct Call {
    at::IntArrayRef x;  // shape of the latents
    const models::Inputs&
        inputs;  // of the UNet, in its names: "x" and "timestep" as the UNet gets them
    const sampling::ModelSampling& sampling;
    const sampling::CallFacts& facts;
  };
  /// The residuals of a use and of those before it, by the names of the UNet's inputs; none outside
  /// their ranges. On the networks' devices.
  models::Inputs residuals(const ControlUse& use, const Call& call);

 private:
  /// What encode() gave, and for what.
  struct Encoded {
    const LoadedControl* net;
    std::optional<int> type;
    at::Tensor image, keep;
    std::int64_t height, width;
    models::Inputs inputs;
  };

  const models::Inputs& encoded(const ControlUse& use, at::IntArrayRef x);
  at::Tensor hint_of(const ControlUse& use, std::int64_t height, std::int64_t width) const;
  at::Tensor latent_hint(const ControlUse& use, at::IntArrayRef x) const;
  at::Tensor spread(const at::Tensor& value, std::int64_t conditionings) const;
  models::Inputs own_residuals(const ControlUse& use, const Call& call);

  streaming::Engine& engine_;
  std::int64_t pixels_, rows_;
  std::vector<ControlNet> nets_;
  std::vector<Encoded> encoded_;
};

}  // namespace distorch::nodes
