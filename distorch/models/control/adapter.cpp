#include "distorch/models/control/adapter.h"

#include <fmt/format.h>

#include <array>

#include "distorch/base/error.h"
#include "distorch/nn/conv.h"

namespace distorch::models::control {
namespace {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

/// Half the size, rounded up. At the edge of an odd size zeros count as pixels.
Tensor halved(const Tensor& x) {
  return at::avg_pool2d(x, {2, 2}, {2, 2}, {x.size(2) % 2, x.size(3) % 2});
}

nn::ConvOptions same_size(std::int64_t kernel) {
  return {.kernel = kernel, .stride = 1, .padding = kernel / 2};
}

/// Two convolutions with ReLU in between, added to the input.
struct Residual {
  Residual(const Scope& s, std::int64_t channels, std::int64_t second_kernel)
      : first(s / "block1", channels, channels),
        second(s / "block2", channels, channels, same_size(second_kernel)) {}
  Tensor operator()(const Tensor& x) const { return second(at::relu(first(x))).add_(x); }
  nn::Conv2d first, second;
};

bool halves(const AdapterConfig& c, std::size_t stage) { return c.for_xl ? stage == 2 : stage > 0; }

/// Where the feature of a stage goes: behind the last residual blocks of SD's levels, into SDXL's.
Place place_of(const AdapterConfig& c, int stage) {
  if (!c.for_xl) return {Place::At::Input, 3 * stage + 2};
  constexpr std::array blocks = {3, 5, 8};
  if (stage < 3) return {Place::At::Input, blocks[stage]};
  return {Place::At::Middle};
}

std::int64_t size_at(const Checkpoint& c, const std::string& name, std::size_t dim) {
  const auto& shape = c.shape(name);
  if (shape.size() == 4 && shape[dim] > 0) return shape[dim];
  throw Error(ErrorKind::Shape, c.path(), fmt::format("'{}' is no convolution's weight", name));
}

AdapterConfig light_config(const Checkpoint& c) {
  AdapterConfig config;
  config.in_channels = size_at(c, "body.0.in_conv.weight", 1);
  config.blocks = c.count("body.0.body.");
  for (int i = 0; i < c.count("body."); ++i) {
    auto stage = fmt::format("body.{}.", i);
    config.inner.push_back(size_at(c, stage + "in_conv.weight", 0));
    config.channels.push_back(size_at(c, stage + "out_conv.weight", 0));
  }
  return config;
}

}  // namespace

/// From the features of one stage to those of the next. Each residual block is a weights::Block with
/// what comes before it; a light adapter's stage is one.
class Adapter::Stage {
 public:
  /// `in`: channels of what comes in.
  Stage(weights::Manifest& manifest, const AdapterConfig& c, std::size_t index, std::int64_t in)
      : halves_(halves(c, index)) {
    auto channels = c.channels[index];
    auto body = Scope(manifest) / "body";
    if (!c.inner.empty()) {
      auto s = (body / static_cast<std::int64_t>(index)).block();
      auto inner = c.inner[index];
      before_.emplace_back(s / "in_conv", in, inner, nn::pointwise);
      Part part{weights::Block(s), {}};
      for (std::int64_t j = 0; j < c.blocks; ++j)
        part.residuals.emplace_back(s / "body" / j, inner, 3);
      parts_.push_back(std::move(part));
      after_.emplace(s / "out_conv", inner, channels, nn::pointwise);
      return;
    }
    if (index == 0) {
      auto s = Scope(manifest).block("conv_in");
      before_.emplace_back(s / "conv_in", in, channels);
      parts_.push_back({weights::Block(s), {}});
    }
    for (std::int64_t j = 0; j < c.blocks; ++j) {
      auto s = (body / (static_cast<std::int64_t>(index) * c.blocks + j)).block();
      if (j == 0 && halves_ && c.strided)
        down_.emplace(s / "down_opt" / "op", in, in, nn::ConvOptions{.stride = 2});
      if (j == 0 && index > 0 && in != channels)
        before_.emplace_back(s / "in_conv", in, channels, same_size(c.kernel));
      Part part{weights::Block(s), {}};
      part.residuals.emplace_back(s, channels, c.kernel);
      parts_.push_back(std::move(part));
    }
  }

  Tensor forward(Tensor x) const {
    for (std::size_t p = 0; p < parts_.size(); ++p) {
      bool is_first = p == 0, is_last = p + 1 == parts_.size();
      x = parts_[p].block.run1({x}, [&](const Tensors& in) {
        auto h = is_first ? enter(in[0]) : in[0];
        for (const auto& residual : parts_[p].residuals) h = residual(h);
        return is_last && after_ ? (*after_)(h) : h;
      });
    }
    return x;
  }

 private:
  struct Part {
    weights::Block block;
    std::vector<Residual> residuals;
  };

  Tensor enter(const Tensor& x) const {
    auto h = nn::to_layout(x, before_.empty() ? x.scalar_type() : before_.front().dtype());
    if (halves_) h = down_ ? (*down_)(h) : halved(h);
    for (const auto& conv : before_) h = conv(h);
    return h;
  }

  bool halves_;
  std::optional<nn::Conv2d> down_;
  std::vector<nn::Conv2d> before_;
  std::vector<Part> parts_;
  std::optional<nn::Conv2d> after_;
};

Adapter::Adapter(const AdapterConfig& config) : config_(config) {
  auto in = config_.in_channels;
  for (std::size_t i = 0; i < config_.channels.size(); ++i) {
    stages_.push_back(std::make_unique<const Stage>(manifest_, config_, i, in));
    in = config_.channels[i];
    places_.push_back(place_of(config_, static_cast<int>(i)));
  }
}

Adapter::~Adapter() = default;

Inputs Adapter::encode(const Tensor& hint, std::optional<int>) const {
  auto wanted = this->hint();
  if (hint.size(1) != wanted.channels)
    throw Error(ErrorKind::Shape, "T2I-adapter",
                fmt::format("takes hints of {} channels, got {}", wanted.channels, hint.size(1)));
  auto x = at::pixel_unshuffle(hint, config_.unshuffle);
  Inputs features;
  for (std::size_t i = 0; i < stages_.size(); ++i)
    features.set(name_of(places_[i]), x = stages_[i]->forward(x));
  return features;
}

Tensor Adapter::apply(const Inputs&) const {
  throw Error(ErrorKind::Internal, "T2I-adapter", "does nothing at a step");
}

Inputs Adapter::residuals(const Tensor&, at::IntArrayRef) const { return {}; }

AdapterConfig adapter_config(const Checkpoint& c) {
  if (c.has("body.0.in_conv.weight")) return light_config(c);
  AdapterConfig config;
  config.in_channels = size_at(c, "conv_in.weight", 1);
  config.for_xl = config.in_channels == 256 || config.in_channels == 768;
  if (config.for_xl) config.unshuffle = 16;
  if (config.in_channels % (config.unshuffle * config.unshuffle) != 0)
    throw Error(ErrorKind::Shape, c.path(),
                fmt::format("holds an adapter of {} numbers a cell, which are no {}x{} pixels",
                            config.in_channels, config.unshuffle, config.unshuffle));
  config.kernel = size_at(c, "body.0.block2.weight", 2);
  for (int i = 0; i + 1 < c.count("body."); i += 2)
    config.channels.push_back(size_at(c, fmt::format("body.{}.block1.weight", i), 0));
  for (const auto& [name, stored] : c.tensors())
    config.strided = config.strided || name.ends_with("down_opt.op.weight");
  return config;
}

Checkpoint with_original_adapter_names(const Checkpoint& part) {
  if (!part.has("adapter.body.0.resnets.0.block1.weight")) return part;
  auto bare = part.part("adapter.");
  bool light = !bare.has("conv_in.weight");
  Checkpoint renamed;
  for (const auto& [name, stored] : bare.tensors()) {
    int stage = 0, inner = 0, end = 0;
    if (std::sscanf(name.c_str(), "body.%d.resnets.%d.%n", &stage, &inner, &end) == 2 && end > 0)
      renamed.add(light ? fmt::format("body.{}.body.{}.{}", stage, inner, name.substr(end))
                        : fmt::format("body.{}.{}", 2 * stage + inner, name.substr(end)),
                  stored);
    else if (!light && std::sscanf(name.c_str(), "body.%d.%n", &stage, &end) == 1 && end > 0)
      renamed.add(fmt::format("body.{}.{}", 2 * stage, name.substr(end)), stored);
    else
      renamed.add(name, stored);
  }
  return renamed;
}

}  // namespace distorch::models::control
