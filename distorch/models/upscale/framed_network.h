#pragma once
#include "distorch/models/upscale/upscale.h"
#include "distorch/models/upscale/window_parts.h"

namespace distorch::models::upscale {

/// A row of groups of blocks ("layers.{i}") in a frame. Config has `frame` and `depths`, one for each
/// group; a Group is made from its scope, the config and its number.
template <class Config, class Group>
class FramedNetwork : public UpscaleNetwork {
 public:
  /// The norm of the first features lies below `norm`.
  FramedNetwork(const Config& config, const char* norm)
      : config_(config), entry_(weights::Scope(manifest_).block("entry"), config.frame, norm) {
    for (std::size_t i = 0; i < config.depths.size(); ++i)
      groups_.emplace_back(
          (weights::Scope(manifest_) / "layers" / static_cast<std::int64_t>(i)).block(), config, i);
    exit_.emplace(weights::Scope(manifest_).block("exit"), config.frame);
  }

  weights::Manifest& manifest() override { return manifest_; }

 protected:
  const Config& config() const { return config_; }
  /// [B, in_channels, H, W] -> [B, out_channels, scale · H, scale · W] in float32.
  at::Tensor through(const at::Tensor& x) const {
    auto features = entry_.forward(x);
    auto h = features[1];
    for (const auto& group : groups_) h = group.forward(h);
    return exit_->forward(h, features[0]).to(at::kFloat);
  }

 private:
  weights::Manifest manifest_;
  Config config_;
  FrameEntry entry_;
  std::vector<Group> groups_;
  std::optional<FrameExit> exit_;
};

/// Pixels that a side lacks to be a multiple of `step`.
inline std::int64_t missing_pixels(std::int64_t length, std::int64_t step) {
  return (step - length % step) % step;
}

}  // namespace distorch::models::upscale
