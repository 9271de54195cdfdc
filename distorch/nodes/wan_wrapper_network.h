#pragma once
#include <ATen/core/Tensor.h>

#include <set>
#include <string>
#include <vector>

#include "distorch/nodes/pack_network.h"
#include "distorch/nodes/wan_wrapper.h"

namespace distorch::nodes::wan_wrapper {

/// What the network is told of one pass (the positive one or the negative) beside the latent and
/// its noise level; all on any device, undefined: none.
struct Pass {
  at::Tensor text;           // [1, prompts · 512, width]
  at::Tensor vision;         // [1, n, 1280]
  at::Tensor beside;         // [1, channels, T, h, w]
  at::Tensor reference;      // [1, channels, h, w], before the first frame
  at::Tensor made_anew;      // [1, 1, T, 1, 1], 0 for frames that are given as they are
  at::Tensor vace;           // [1, N, channels, T, h, w]
  at::Tensor vace_strength;  // [1, N]
  at::Tensor speech;         // [1, T, n, width]
  std::int64_t prompts = 1;
  // For control networks (wan_wrapper_control.h): which of them count, the frames that the latent is
  // of (none: all), and the positive prompt's states as they are, [1, n, width].
  bool followed = false, rendered = false;
  std::vector<std::int64_t> frames;
  at::Tensor prompt;
};

class ControlRun;

/// What else a call does.
struct CallOptions {
  std::set<std::int64_t> skipped;  // layers
  double enhance = 0;
  std::int64_t riflex = 0;
  double speech_scale = 1;
};

/// A model of a run, its weights in place for as long as this object lives. Passes share a call
/// where they can: one pass over the weights serves both.
class WanNetwork {
 public:
  WanNetwork(const WanModel& model, streaming::Engine& engine);

  /// Plans for the largest call of the run and brings the weights.
  struct Sizes {
    std::vector<std::int64_t> latent;  // [1, C, T, h, w]
    std::vector<Pass> passes;
    CallOptions options;
    bool keeps_change = false;
    int steps = 1;
  };
  void prepare(const Sizes& sizes);

  /// The velocity of each pass, x [1, C, T, h, w] float32 on device() -> [B, C, T, h, w] float32.
  at::Tensor velocities(const at::Tensor& x, float timestep, const std::vector<Pass>& passes,
                        const CallOptions& options);
  KeptCall kept_velocities(const at::Tensor& x, float timestep, const std::vector<Pass>& passes,
                           const CallOptions& options);
  /// The same with all layers left out: `change` [B, L, width] is what they added before.
  at::Tensor changed_velocities(const at::Tensor& x, float timestep,
                                const std::vector<Pass>& passes, const CallOptions& options,
                                const at::Tensor& change);
  /// What the layers begin with: the embedding of the noise level, its parts (flat), or the tokens
  /// [1, L · width] of one pass.
  struct Entrance {
    at::Tensor embedding, parts;
  };
  Entrance times(const at::Tensor& x, float timestep, const Pass& pass);
  at::Tensor tokens(const at::Tensor& x, float timestep, const Pass& pass);

  /// Networks that steer this one from prepare() on; they must outlive it.
  void steer_by(ControlRun& controls) { controls_ = &controls; }

  /// The strengths of this step.
  void set_step(std::size_t step);

  at::Device device() const { return network_.device(); }
  /// What it computes in.
  at::ScalarType dtype() const { return network_.loaded().weights->options().dtype; }
  std::int64_t channels() const;
  /// Channels beside the latent.
  std::int64_t beside() const;
  std::int64_t vision_width() const;
  std::int64_t text_width() const;
  /// Of the speech's tokens; 0: the model hears none.
  std::int64_t speech_width() const;
  std::int64_t width() const;
  /// Channels of the control frames of VACE; 0: the model has none.
  std::int64_t vace_channels() const;
  /// Whether it takes a reference picture before the first frame.
  bool takes_reference() const;

 private:
  models::Inputs inputs(const at::Tensor& x, float timestep, const std::vector<Pass>& passes,
                        const CallOptions& options) const;

  models::Inputs steered_inputs(const at::Tensor& x, float timestep,
                                const std::vector<Pass>& passes, const CallOptions& options);

  const WanModel& model_;
  PackNetwork network_;
  ControlRun* controls_ = nullptr;
};

/// States [n, width] with rows of zeros behind them up to 512, [1, 512, width].
at::Tensor padded_text(const at::Tensor& states);

}  // namespace distorch::nodes::wan_wrapper
