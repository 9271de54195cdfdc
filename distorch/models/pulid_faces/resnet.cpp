#include "distorch/models/pulid_faces/resnet.h"

#include <fmt/format.h>

#include "distorch/models/tensor_size.h"

namespace distorch::models::pulid_faces {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr std::int64_t kStages = 4;

nn::ConvOptions without_bias(std::int64_t kernel, std::int64_t stride = 1) {
  return {.kernel = kernel, .stride = stride, .padding = kernel / 2, .bias = false};
}

}  // namespace

ConvNorm::ConvNorm(const Scope& conv, const Scope& norm, std::int64_t in, std::int64_t out,
                   nn::ConvOptions options)
    : conv_(conv, in, out, (options.bias = false, options)), norm_(norm, out) {}

ResNetConfig resnet_config(const weights::Checkpoint& part, const std::string& prefix) {
  ResNetConfig c;
  c.width = size_of(part, prefix + "conv1.weight", 0);
  for (std::int64_t stage = 1; stage <= kStages; ++stage)
    c.blocks.push_back(part.count(fmt::format("{}layer{}.", prefix, stage)));
  c.bottleneck = part.has(prefix + "layer1.0.conv3.weight");
  return c;
}

ResNet::ResNet(const Scope& scope, const ResNetConfig& config)
    : ResNet(scope, scope.block(scope.prefix() + ".conv1"), config) {}

ResNet::ResNet(const Scope& scope, const Scope& entry, const ResNetConfig& config)
    : config_(config),
      entry_(entry),
      first_(entry / "conv1", entry / "bn1", 3, config.width, without_bias(7, 2)) {
  auto in = config_.width;
  for (std::size_t stage = 0; stage < config_.blocks.size(); ++stage) {
    auto& blocks = stages_.emplace_back();
    for (std::int64_t i = 0; i < config_.blocks[stage]; ++i) {
      auto s = (scope / fmt::format("layer{}", stage + 1) / i).block();
      blocks.push_back(residual(s, in, stage, stage > 0 && i == 0 ? 2 : 1));
      in = config_.channels(stage);
    }
  }
}

ResNet::Residual ResNet::residual(const Scope& s, std::int64_t in, std::size_t stage,
                                  std::int64_t stride) const {
  const auto inner = config_.width << stage, out = config_.channels(stage);
  Residual block{.block = weights::Block(s), .convs = {}, .shortcut = {}};
  auto add = [&](int index, std::int64_t from, std::int64_t to, nn::ConvOptions options) {
    block.convs.emplace_back(s / fmt::format("conv{}", index), s / fmt::format("bn{}", index), from,
                             to, options);
  };
  if (config_.bottleneck) {
    add(1, in, inner, without_bias(1));
    add(2, inner, inner, without_bias(3, stride));
    add(3, inner, out, without_bias(1));
  } else {
    add(1, in, inner, without_bias(3, stride));
    add(2, inner, out, without_bias(3));
  }
  if (in != out || stride != 1)
    block.shortcut.emplace(s / "downsample" / 0, s / "downsample" / 1, in, out,
                           without_bias(1, stride));
  return block;
}

Tensor ResNet::Residual::forward(const Tensor& x) const {
  return block.run1({x}, [this](const Tensors& in) {
    auto h = in[0];
    for (std::size_t i = 0; i < convs.size(); ++i)
      h = i + 1 < convs.size() ? at::relu(convs[i](h)) : convs[i](h);
    return at::relu(h + (shortcut ? (*shortcut)(in[0]) : in[0]));
  });
}

Tensors ResNet::forward(const Tensor& x) const {
  auto h = entry_.run1({x}, [this](const Tensors& in) {
    return at::max_pool2d(at::relu(first_(in[0])), {3, 3}, {2, 2}, {1, 1});
  });
  Tensors results;
  for (std::size_t stage = 0; stage < stages_.size(); ++stage) {
    for (const auto& block : stages_[stage]) h = block.forward(h);
    if (stage > 0) results.push_back(h);
  }
  return results;
}

}  // namespace distorch::models::pulid_faces
