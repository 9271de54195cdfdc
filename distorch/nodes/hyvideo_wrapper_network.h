#pragma once
#include <ATen/core/Tensor.h>

#include <set>
#include <string>
#include <vector>

#include "distorch/nodes/hyvideo_wrapper.h"
#include "distorch/nodes/pack_network.h"

namespace distorch::nodes::hyvideo {

/// What the network is told of one item of a call beside the latent and its noise level; all on any
/// device, undefined: none.
struct Pass {
  at::Tensor text;       // [1, n, width], n the same in all passes of a call
  at::Tensor pooled;     // [1, width]
  at::Tensor beside;     // [1, channels, T, h, w]
  at::Tensor reference;  // [1, C, t, h', w'], tokens before the video
};

/// What else a call does.
struct CallOptions {
  std::set<std::string> skipped;  // blocks: "double_blocks.3"
  double guidance = 0;            // 0: the model is not told any
  double enhance = 0;
  bool enhance_singles = true, enhance_doubles = true;
  std::int64_t riflex = 0;
  bool given_first = false;  // the first frame is given
  /// The last pass is weakened in this block; -1: it is not.
  std::int64_t weak_block = -1;
  bool weak_apart = true;
};

/// The model of a run, its weights in place for as long as this object lives. Passes share a call:
/// one pass over the weights serves all.
class HyNetwork {
 public:
  HyNetwork(const HyModel& model, streaming::Engine& engine);

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
  /// The same with all blocks left out: `change` [B, L, width] is what they added before.
  at::Tensor changed_velocities(const at::Tensor& x, float timestep,
                                const std::vector<Pass>& passes, const CallOptions& options,
                                const at::Tensor& change);
  /// What the first block attends with, flat.
  at::Tensor entrance(const at::Tensor& x, float timestep, const std::vector<Pass>& passes,
                      const CallOptions& options);

  at::Device device() const { return network_.device(); }
  std::int64_t channels() const;
  /// Channels beside the latent.
  std::int64_t beside() const;
  std::int64_t text_width() const;
  std::int64_t pooled_width() const;  // 0: it takes none

 private:
  models::Inputs inputs(const at::Tensor& x, float timestep, const std::vector<Pass>& passes,
                        const CallOptions& options) const;

  PackNetwork network_;
};

}  // namespace distorch::nodes::hyvideo
