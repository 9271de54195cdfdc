#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "distorch/nodes/wan_wrapper_network.h"

/// The WanVideoWrapper's control networks: they run within the steps of a Wan model, their weights
/// placed and streamed like its own, and what they give is added behind its layers.
namespace distorch::models::wan {
class ControlNet;
class Uni3C;
}  // namespace distorch::models::wan

namespace distorch::nodes::wan_wrapper {

struct SamplerJob;

/// WANVIDEOCONTROLNET, of both loaders.
struct WanControl {
  std::shared_ptr<Loaded<models::Network>> loaded;
  std::filesystem::path file;
};

/// A video that a ControlNet (models/wan/control_net.h) steers a model by.
struct FollowedVideo {
  WanControl net;
  at::Tensor images;  // [frames, H, W, 3] 0..1 on the CPU
  double strength = 1.0;
  std::int64_t stride = 3;    // layers of the model to one residual
  double start = 0, end = 1;  // parts of the run's slice; at `end` it does not count any more
};

/// UNI3C_EMBEDS: a rendered video by which a Uni3C network (models/wan/uni3c.h) leads the camera.
struct RenderedVideo {
  WanControl net;
  at::Tensor latent;  // [1, C, T, h, w] in the model's scale, of any T, h and w
  double strength = 1.0;
  double start = 0, end = 1;
};

/// The control networks of one run.
class ControlRun {
 public:
  /// `shape`: of the whole latent. Error(Shape) or Error(Usage) naming the network's file where it is
  /// for another model, or where the video is of another size than the one that is made.
  ControlRun(const SamplerJob& job, const WanNetwork& network,
             const std::vector<std::int64_t>& shape);

  bool empty() const { return !followed_ && !rendered_; }
  /// The model's inputs that are theirs, as shapes alone, in a call with a latent of these sizes.
  void add_shapes(models::Inputs& call, const std::vector<std::int64_t>& latent) const;
  /// What the engine has to know of them for such a call.
  std::vector<streaming::Engine::Wanted> wanted(const std::vector<std::int64_t>& latent,
                                                const Pass& pass, int steps) const;

  /// Says in a pass which networks count in this part of the run, and the prompt [n, width].
  void tell(Pass& pass, double part, const at::Tensor& prompt) const;
  /// What the networks that count give for x [1, C, T, h, w], as inputs of the model. Passes over the
  /// same latent see the same: it is computed once.
  void add_residuals(models::Inputs& call, const at::Tensor& x, float timestep, const Pass& pass,
                     WanNetwork& network);

 private:
  /// What was last computed, and for what.
  struct Said {
    at::Tensor x;
    float timestep = 0;
    at::Tensor residuals;
  };
  at::Tensor follow(const at::Tensor& x, float timestep, const Pass& pass);
  at::Tensor render(const at::Tensor& x, float timestep, const Pass& pass, WanNetwork& network);

  std::shared_ptr<const FollowedVideo> followed_;
  const models::wan::ControlNet* control_net_ = nullptr;
  std::optional<RenderedVideo> rendered_;  // its latent of the run's size
  const models::wan::Uni3C* uni3c_ = nullptr;
  at::Tensor guide_;  // undefined until it is first asked for
  Said follow_said_, render_said_;
};

}  // namespace distorch::nodes::wan_wrapper
