#include "distorch/models/z_image/control_patch.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"
#include "distorch/models/z_image/embed.h"
#include "distorch/models/z_image/family.h"

namespace distorch::models::z_image {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr const char* kEmbedder = "control_all_x_embedder.2-1.weight";

NextDitConfig like_its_file(NextDitConfig config, const ControlConfig& control) {
  config.split_qkv = control.split_qkv;
  config.mlp_width = control.mlp_width;
  return config;
}

nn::RopeTable first_of(const nn::RopeTable& rope, std::int64_t count) {
  return {rope.cos.narrow(1, 0, count), rope.sin.narrow(1, 0, count), rope.halves};
}

}  // namespace

ControlLayer::ControlLayer(const Scope& s, const NextDitConfig& c, bool first)
    : before_(first ? std::optional<Matrix>(std::in_place, (s / "before_proj").block(), c.width)
                    : std::nullopt),
      layer_(s.block(), c, true),
      after_((s / "after_proj").block(), c.width) {}

ControlLayer::Result ControlLayer::forward(const Tensor& control, const Tensor& image,
                                           const nn::RopeTable& rope, const Tensor& level) const {
  auto c = control;
  if (before_)
    c = before_->block.run1({control, image}, [this](const Tensors& in) {
      return before_->linear(in[0]).add_(in[1].narrow(1, 0, in[0].size(1)));
    });
  c = layer_.forward(c, rope, level);
  auto added = after_.block.run1({c}, [this](const Tensors& in) { return after_.linear(in[0]); });
  return {c, added};
}

ControlPatch::ControlPatch(const Scope& s, const NextDitConfig& c, const ControlConfig& control)
    : ControlPatch(s, (s / "control_all_x_embedder" / "2-1").block(), c, control) {}

ControlPatch::ControlPatch(const Scope& s, const Scope& entry, const NextDitConfig& c,
                           const ControlConfig& control)
    : scope_(s),
      config_(like_its_file(c, control)),
      control_(control),
      block_(entry),
      embed_(entry, control.channels * c.patch * c.patch, c.width) {
  if (control.refines) return;
  for (std::int64_t i = 0; i < c.noise_refiners; ++i)
    plain_refiners_.emplace_back((s / "control_noise_refiner" / i).block(), config_, true);
}

void ControlPatch::add_refiner() {
  if (!control_.refines) return;
  auto i = ++refiners_seen_ - 1;
  if (!control_.misplaced)
    refiners_.emplace_back(scope_ / "control_noise_refiner" / i, config_, i == 0);
  else
    for (auto k = i; k < (i == 0 ? 1 : control_.layers); ++k)
      layers_.emplace_back(scope_ / "control_layers" / k, config_, k == 0);
}

void ControlPatch::add_layer() {
  auto i = ++layers_seen_ - 1;
  auto k = static_cast<std::int64_t>(layers_.size());
  if (i == k * control_.distance() && k < control_.layers)
    layers_.emplace_back(scope_ / "control_layers" / k, config_, k == 0);
}

ControlPatch::State ControlPatch::start(const Tensor& latent, std::int64_t batch,
                                        const nn::RopeTable& rope, const Tensor& level,
                                        double strength) const {
  State state{.control = {}, .image = {}, .strength = strength};
  state.control = block_.run1({latent}, [&](const Tensors& in) {
    auto tokens = embed_(to_patches(in[0].to(embed_.dtype()), config_.patch));
    return tokens.size(0) == batch ? tokens : tokens.expand({batch, -1, -1}).contiguous();
  });
  for (const auto& layer : plain_refiners_)
    state.control = layer.forward(state.control, first_of(rope, state.control.size(1)), level);
  return state;
}

void ControlPatch::run(const ControlLayer& layer, State& state, const Tensor& image,
                       const nn::RopeTable& rope, const Tensor& level) const {
  auto count = state.control.size(1);
  auto result = layer.forward(state.control, state.image, first_of(rope, count), level);
  state.control = result.control;
  state.image = Tensor();
  if (image.defined()) image.narrow(1, 0, count).add_(result.added, state.strength);
}

void ControlPatch::after_refiner(std::int64_t i, State& state, const Tensor& image,
                                 const nn::RopeTable& rope, const Tensor& level) const {
  if (!control_.refines) return;
  if (!control_.misplaced) return run(refiners_.at(i), state, image, rope, level);
  if (i == 0) return run(layers_.at(0), state, image, rope, level);
  for (std::size_t k = 1; i == 1 && k < layers_.size(); ++k)
    run(layers_[k], state, k == 1 ? image : Tensor(), rope, level);
}

void ControlPatch::after_layer(std::int64_t i, State& state, const Tensor& image,
                               const nn::RopeTable& rope, const Tensor& level) const {
  auto k = i / control_.distance();
  if (i % control_.distance() == 0 && k < static_cast<std::int64_t>(layers_.size()))
    run(layers_[k], state, image, rope, level);
}

bool is_control_patch(const Checkpoint& file) {
  return file.has(kEmbedder) && file.has_prefix("control_layers.0.");
}

std::int64_t control_channels(const Checkpoint& patch) { return control_config(patch).channels; }

std::shared_ptr<const Family> with_control_patch(const Family& family, const Checkpoint& patch) {
  const auto& base = family.diffusion();
  auto fails = [&](const std::string& why) {
    throw Error(ErrorKind::Usage, patch.path(),
                fmt::format("is a ControlNet for Z-Image, {} {}", base.path(), why));
  };
  if (family.name() != "Z-Image") fails("is a " + family.name());
  auto config = next_dit_config(base);
  if (auto width = size_of(patch, kEmbedder, 0); width != config.width)
    fails(fmt::format("has tokens of width {} and the ControlNet of {}", config.width, width));
  auto both = base;
  auto own = with_original_control_names(patch);
  for (const auto& [name, stored] : own.tensors())
    both.add(fmt::format("model_patch.{}.{}", config.patches.size(), name), stored);
  return detect(both, both);
}

}  // namespace distorch::models::z_image
