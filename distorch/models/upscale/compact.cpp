#include "distorch/models/upscale/compact.h"

#include <cmath>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"
#include "distorch/nn/conv.h"

namespace distorch::models::upscale {

using at::Tensor;
using nn::Conv2d;
using weights::Checkpoint;
using weights::Manifest;
using weights::Scope;

namespace {

class Compact : public UpscaleNetwork {
 public:
  explicit Compact(const CompactConfig& config) : config_(config) {
    auto scope = Scope(manifest_).block("body") / "body";
    block_ = weights::Block(scope);
    for (int i = 0; i <= config.convolutions; ++i) {
      convolutions_.emplace_back(scope / (2 * i), i == 0 ? config.in_channels : config.width,
                                 config.width);
      slopes_.push_back((scope / (2 * i + 1)).weight("weight", {config.width}));
    }
    convolutions_.emplace_back(scope / (2 * config.convolutions + 2), config.width,
                               config.out_channels * config.scale * config.scale);
  }

  Manifest& manifest() override { return manifest_; }
  UpscaleShape shape() const override {
    return {config_.scale, config_.in_channels, config_.out_channels};
  }

  Tensor forward(const Tensor& image) const override {
    return block_
        .run1({image},
              [this](const weights::Tensors& in) {
                auto x = nn::to_layout(in[0], convolutions_[0].dtype());
                for (std::size_t i = 0; i < slopes_.size(); ++i)
                  x = at::prelu(convolutions_[i](x), slopes_[i].dense());
                auto result = at::pixel_shuffle(convolutions_.back()(x), config_.scale);
                auto base = nn::upsample_nearest(in[0].to(result.scalar_type()), result.size(2),
                                                 result.size(3));
                return result + base;
              })
        .to(at::kFloat);
  }

 private:
  Manifest manifest_;
  CompactConfig config_;
  weights::Block block_;
  std::vector<Conv2d> convolutions_;
  std::vector<weights::Weight> slopes_;
};

/// The scale and the channels that a last convolution of so many channels means.
bool read_scale(std::int64_t channels, CompactConfig& config) {
  for (std::int64_t out : {config.in_channels, std::int64_t{3}, std::int64_t{4}, std::int64_t{1}}) {
    auto scale = static_cast<std::int64_t>(
        std::llround(std::sqrt(static_cast<double>(channels) / static_cast<double>(out))));
    if (scale > 0 && scale * scale * out == channels) {
      config.scale = scale;
      config.out_channels = out;
      return true;
    }
  }
  return false;
}

}  // namespace

std::unique_ptr<UpscaleNetwork> make_compact(const CompactConfig& config) {
  return std::make_unique<Compact>(config);
}

UpscalePart find_compact(const Checkpoint& file) {
  const auto* first = file.find("body.0.weight");
  const auto* slopes = file.find("body.1.weight");
  if (!first || first->shape.size() != 4 || !slopes || slopes->shape.size() != 1) return {};
  auto last = file.count("body.") - 1;
  // A convolution and its slopes take turns; what lies behind a gap is counted by nobody.
  if (last < 2 || file.has_prefix("body." + std::to_string(last + 2) + "."))
    throw Error(ErrorKind::MissingWeight, file.path(),
                "has no tensor 'body." + std::to_string(last + 1) + ".weight'");
  CompactConfig config;
  config.in_channels = size_of(file, "body.0.weight", 1);
  config.width = size_of(file, "body.0.weight", 0);
  config.convolutions = (last - 2) / 2;
  if (!read_scale(size_of(file, "body." + std::to_string(last) + ".weight", 0), config))
    throw Error(ErrorKind::Format, file.path(),
                "has a last layer that fits no scale of a RealESRGAN compact model");
  return {file, [config] { return make_compact(config); }};
}

}  // namespace distorch::models::upscale
