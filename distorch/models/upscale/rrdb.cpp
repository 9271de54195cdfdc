#include "distorch/models/upscale/rrdb.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <regex>

#include "distorch/models/tensor_size.h"
#include "distorch/nn/conv.h"

namespace distorch::models::upscale {

using at::Tensor;
using nn::Conv2d;
using weights::Block;
using weights::Checkpoint;
using weights::Manifest;
using weights::Scope;

namespace {

constexpr double kSlope = 0.2;     // of leaky ReLUs
constexpr double kResidual = 0.2;  // how much of a block's result is added

/// Five convolutions, each of which sees all before it. x [B, width, H, W] -> the same shape.
class DenseBlock {
 public:
  DenseBlock(const Scope& s, const RrdbConfig& c) {
    for (int i = 0; i < 5; ++i)
      convolutions_.emplace_back(s / fmt::format("conv{}", i + 1), c.width + i * c.growth,
                                 i == 4 ? c.width : c.growth);
    if (c.plus) beside_ = (s / "conv1x1").weight("weight", {c.growth, c.width, 1, 1});
  }

  Tensor forward(const Tensor& x) const {
    std::vector<Tensor> seen = {x};
    for (std::size_t i = 0; i < 4; ++i) {
      auto y = at::leaky_relu(convolutions_[i](at::cat(seen, 1)), kSlope);
      if (beside_.declared() && i == 1) y = y + at::conv2d(x, beside_.dense());
      if (beside_.declared() && i == 3) y = y + seen[2];
      seen.push_back(std::move(y));
    }
    return convolutions_[4](at::cat(seen, 1)).mul_(kResidual).add_(x);
  }

 private:
  std::vector<Conv2d> convolutions_;
  weights::Weight beside_;
};

class ResidualBlock {
 public:
  ResidualBlock(const Scope& scope, const RrdbConfig& c) : block_(scope) {
    for (int i = 1; i <= 3; ++i) dense_.emplace_back(scope / fmt::format("rdb{}", i), c);
  }

  Tensor forward(const Tensor& x) const {
    return block_.run1({x}, [this](const weights::Tensors& in) {
      auto y = in[0];
      for (const auto& dense : dense_) y = dense.forward(y);
      return y.mul_(kResidual).add_(in[0]);
    });
  }

 private:
  Block block_;
  std::vector<DenseBlock> dense_;
};

/// The first convolution.
class Entry {
 public:
  Entry(const Scope& scope, const RrdbConfig& c)
      : block_(scope),
        unshuffle_(c.unshuffle),
        first_(scope / "conv_first", c.in_channels, c.width) {}

  Tensor forward(const Tensor& image) const {
    return block_.run1({image}, [this](const weights::Tensors& in) {
      auto x = unshuffle_ > 1 ? at::pixel_unshuffle(in[0], unshuffle_) : in[0];
      return first_(nn::to_layout(x, first_.dtype()));
    });
  }

 private:
  Block block_;
  std::int64_t unshuffle_;
  Conv2d first_;
};

/// From features to the picture.
class Exit {
 public:
  Exit(const Scope& scope, const RrdbConfig& c)
      : block_(scope),
        body_(scope / "conv_body", c.width, c.width),
        sharp_(scope / "conv_hr", c.width, c.width),
        last_(scope / "conv_last", c.width, c.out_channels) {
    for (int i = 1; i <= c.doublings; ++i)
      doublings_.emplace_back(scope / fmt::format("conv_up{}", i), c.width, c.width);
  }

  Tensor forward(const Tensor& features, const Tensor& first) const {
    return block_.run1({features, first}, [this](const weights::Tensors& in) {
      auto x = body_(in[0]).add_(in[1]);
      for (const auto& doubling : doublings_)
        x = at::leaky_relu(doubling(nn::upsample_nearest(x, x.size(2) * 2, x.size(3) * 2)), kSlope);
      return last_(at::leaky_relu(sharp_(x), kSlope));
    });
  }

 private:
  Block block_;
  Conv2d body_;
  std::vector<Conv2d> doublings_;
  Conv2d sharp_, last_;
};

class Rrdb : public UpscaleNetwork {
 public:
  explicit Rrdb(const RrdbConfig& config)
      : config_(config), entry_(Scope(manifest_).block("entry"), config) {
    for (int i = 0; i < config.blocks; ++i) {
      auto name = fmt::format("body.{}", i);
      body_.emplace_back((Scope(manifest_) / "body" / i).block(name), config);
    }
    exit_.emplace(Scope(manifest_).block("exit"), config);
  }

  Manifest& manifest() override { return manifest_; }

  UpscaleShape shape() const override {
    auto unshuffled = config_.unshuffle * config_.unshuffle;
    UpscaleShape shape{(1 << config_.doublings) / config_.unshuffle,
                       config_.in_channels / unshuffled, config_.out_channels};
    shape.smallest = config_.unshuffle > 1 ? 4 : 2;
    shape.multiple_of = config_.unshuffle > 1 ? 4 : 1;
    return shape;
  }

  Tensor forward(const Tensor& image) const override {
    auto first = entry_.forward(image);
    auto x = first;
    for (const auto& block : body_) x = block.forward(x);
    return exit_->forward(x, first).to(at::kFloat);
  }

 private:
  Manifest manifest_;
  RrdbConfig config_;
  Entry entry_;
  std::vector<ResidualBlock> body_;
  std::optional<Exit> exit_;
};

/// The older spellings of a name, or the name itself. `last`: number of the last layer of
/// "model.N", `blocks`: how many residual blocks there are.
std::string current_name(const std::string& name, int last, int blocks) {
  static const std::regex dense(
      "(?:model\\.1\\.sub|RRDB_trunk)\\.(\\d+)\\.RDB(\\d)\\.conv(1x1|\\d)(?:\\.0)?\\.(.*)");
  static const std::regex layer("model\\.(\\d{1,6})\\.(weight|bias)");
  static const std::regex renamed("(trunk_conv|upconv(\\d)|HRconv)\\.(weight|bias)");
  std::smatch match;
  if (std::regex_match(name, match, dense))
    return fmt::format("body.{}.rdb{}.conv{}.{}", match[1].str(), match[2].str(), match[3].str(),
                       match[4].str());
  if (name.starts_with(fmt::format("model.1.sub.{}.", blocks)))
    return "conv_body." + name.substr(name.rfind('.') + 1);
  if (std::regex_match(name, match, layer)) {
    auto number = std::stoi(match[1].str());
    auto part = number == 0          ? "conv_first"
                : number == last     ? "conv_last"
                : number == last - 2 ? "conv_hr"
                                     : fmt::format("conv_up{}", number / 3);
    return part + "." + match[2].str();
  }
  if (std::regex_match(name, match, renamed)) {
    auto part = match[1] == "trunk_conv" ? "conv_body"
                : match[1] == "HRconv"   ? "conv_hr"
                                         : "conv_up" + match[2].str();
    return part + "." + match[3].str();
  }
  return name;
}

Checkpoint with_current_names(const Checkpoint& file) {
  int last = 0;
  for (const auto& [name, stored] : file.tensors())
    if (int number = 0, used = 0;
        std::sscanf(name.c_str(), "model.%d.%n", &number, &used) == 1 && used > 0)
      last = std::max(last, number);
  auto blocks = file.count("model.1.sub.") - 1;
  Checkpoint result;
  for (const auto& [name, stored] : file.tensors())
    result.add(current_name(name, last, blocks), stored);
  return result;
}

/// How many pixels of a side have become channels: RealESRGAN x1 and x2.
std::int64_t unshuffled(std::int64_t in, std::int64_t out) {
  return in == out * 4 ? 2 : in == out * 16 ? 4 : 1;
}

}  // namespace

std::unique_ptr<UpscaleNetwork> make_rrdb(const RrdbConfig& config) {
  return std::make_unique<Rrdb>(config);
}

UpscalePart find_rrdb(const Checkpoint& file) {
  bool known = file.has("model.1.sub.0.RDB1.conv1.0.weight") ||
               file.has("body.0.rdb1.conv1.weight") || file.has("RRDB_trunk.0.RDB1.conv1.weight");
  if (!known) return {};
  auto part = with_current_names(file);
  RrdbConfig config;
  config.width = size_of(part, "conv_first.weight", 0);
  config.in_channels = size_of(part, "conv_first.weight", 1);
  config.out_channels = size_of(part, "conv_last.weight", 0);
  config.growth = size_of(part, "body.0.rdb1.conv1.weight", 0);
  config.blocks = part.count("body.");
  config.doublings = 0;
  while (part.has_prefix(fmt::format("conv_up{}.", config.doublings + 1))) ++config.doublings;
  config.unshuffle = unshuffled(config.in_channels, config.out_channels);
  config.plus = part.has("body.0.rdb1.conv1x1.weight");
  return {part, [config] { return make_rrdb(config); }};
}

}  // namespace distorch::models::upscale
