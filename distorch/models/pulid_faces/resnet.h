#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "distorch/nn/batch_norm.h"
#include "distorch/nn/conv.h"
#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

/// What facexlib's networks are made of.
namespace distorch::models::pulid_faces {

/// A convolution without bias and the norm behind it.
class ConvNorm {
 public:
  ConvNorm(const weights::Scope& conv, const weights::Scope& norm, std::int64_t in,
           std::int64_t out, nn::ConvOptions options = {});
  at::Tensor operator()(const at::Tensor& x) const { return norm_(conv_(x)); }

 private:
  nn::Conv2d conv_;
  nn::BatchNorm norm_;
};

struct ResNetConfig {
  std::int64_t width = 64;
  std::vector<std::int64_t> blocks;  // of the four stages
  bool bottleneck = true;  // 1x1, 3x3 and 1x1 to four times the width (ResNet50); else two 3x3
  /// Channels of stage 0 to 3.
  std::int64_t channels(std::size_t stage) const { return (width << stage) * (bottleneck ? 4 : 1); }
};
/// Told by the shapes below a prefix ("body."). Error(MissingWeight), Error(Shape).
ResNetConfig resnet_config(const weights::Checkpoint& part, const std::string& prefix);

/// He et al. 2016, as torchvision names and strides it; without its last layer. Blocks: the first
/// convolution, every residual block.
class ResNet {
 public:
  ResNet(const weights::Scope& scope, const ResNetConfig& config);
  /// x [B, 3, H, W] float32 -> the stages 1 to 3, at 1/8, 1/16 and 1/32 of the size rounded up.
  weights::Tensors forward(const at::Tensor& x) const;

 private:
  struct Residual {
    weights::Block block;
    std::vector<ConvNorm> convs;
    std::optional<ConvNorm> shortcut;
    at::Tensor forward(const at::Tensor& x) const;
  };
  ResNet(const weights::Scope& scope, const weights::Scope& entry, const ResNetConfig& config);
  Residual residual(const weights::Scope& scope, std::int64_t in, std::size_t stage,
                    std::int64_t stride) const;

  ResNetConfig config_;
  weights::Block entry_;
  ConvNorm first_;
  std::vector<std::vector<Residual>> stages_;
};

}  // namespace distorch::models::pulid_faces
