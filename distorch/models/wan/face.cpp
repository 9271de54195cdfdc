#include "distorch/models/wan/face.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <numbers>

#include "distorch/base/error.h"
#include "distorch/models/wan/tokens.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/patch.h"

namespace distorch::models::wan {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr double kEpsilon = 1e-6;
constexpr std::int64_t kMotions = 20, kStyle = 512, kFaceSide = 512;
// Channels of the motion encoder's levels, each half as wide and high as the one before.
constexpr std::array<std::int64_t, 8> kChannels = {32, 64, 128, 256, 512, 512, 512, 512};
constexpr std::int64_t kFaceTokens = 4, kFaceWidth = 1024;
constexpr std::int64_t kLayersPerFace = 5;
// Pictures of a face that go through the motion encoder at a time.
constexpr std::int64_t kAtOnce = 8;

/// Layers whose numbers are kept at spread 1: they are scaled when they are used.
Tensor equalized(const weights::Weight& weight) {
  auto value = nn::patched(weight);
  auto inputs = value.numel() / value.size(0);
  return value * (1.0 / std::sqrt(static_cast<double>(inputs)));
}

Tensor activated(const Tensor& x, const weights::Weight& bias) {
  return at::leaky_relu(x + nn::patched(bias), 0.2).mul_(std::numbers::sqrt2);
}

/// Every channel smoothed with the kernel [4, 4].
Tensor blurred(const Tensor& x, const weights::Weight& kernel, std::int64_t padding) {
  auto own = at::flip(nn::patched(kernel).to(x.scalar_type()), {0, 1});
  auto channels = x.size(1);
  return at::conv2d(x, own.view({1, 1, own.size(0), own.size(1)}).expand({channels, 1, -1, -1}), {},
                    {1, 1}, {padding, padding}, {1, 1}, channels);
}

}  // namespace

MotionEncoder::Residual::Residual(const Scope& s, std::int64_t in, std::int64_t out)
    : first((s / "conv1" / 0).weight("weight", {in, in, 3, 3})),
      first_bias((s / "conv1" / 1).weight("bias", {1, in, 1, 1})),
      blur((s / "conv2" / 0).weight("kernel", {4, 4})),
      second((s / "conv2" / 1).weight("weight", {out, in, 3, 3})),
      second_bias((s / "conv2" / 2).weight("bias", {1, out, 1, 1})),
      skip_blur((s / "skip" / 0).weight("kernel", {4, 4})),
      skip((s / "skip" / 1).weight("weight", {out, in, 1, 1})) {}

MotionEncoder::MotionEncoder(const Scope& s) {
  auto app = s / "enc" / "net_app" / "convs";
  entry_ = (app / 0 / 0).weight("weight", {kChannels[0], 3, 1, 1});
  entry_bias_ = (app / 0 / 1).weight("bias", {1, kChannels[0], 1, 1});
  for (std::size_t i = 1; i < kChannels.size(); ++i)
    residual_.emplace_back(app / static_cast<std::int64_t>(i), kChannels[i - 1], kChannels[i]);
  exit_ = (app / static_cast<std::int64_t>(kChannels.size()))
              .weight("weight", {kStyle, kChannels.back(), 4, 4});
  for (std::int64_t i = 0; i < 5; ++i) {
    auto place = s / "enc" / "fc" / i;
    auto out = i < 4 ? kStyle : kMotions;
    linear_.push_back({place.weight("weight", {out, kStyle}), place.weight("bias", {out})});
  }
  directions_ = (s / "dec" / "direction").weight("weight", {kStyle, kMotions});
}

Tensor MotionEncoder::residual(const Residual& layer, const Tensor& x) {
  auto h = activated(at::conv2d(x, equalized(layer.first), {}, {1, 1}, {1, 1}), layer.first_bias);
  h = at::conv2d(blurred(h, layer.blur, 2), equalized(layer.second), {}, {2, 2});
  h = activated(h, layer.second_bias);
  auto past = at::conv2d(blurred(x, layer.skip_blur, 1), equalized(layer.skip), {}, {2, 2});
  return (h + past).mul_(1.0 / std::numbers::sqrt2);
}

Tensor MotionEncoder::operator()(const Tensor& pictures) const {
  auto x = activated(at::conv2d(pictures.to(entry_.dtype()), equalized(entry_)), entry_bias_);
  for (const auto& layer : residual_) x = residual(layer, x);
  x = at::conv2d(x, equalized(exit_)).flatten(1);
  for (const auto& layer : linear_)
    x = at::linear(x, equalized(layer.weight), nn::patched(layer.bias));
  auto directions = nn::patched(directions_);
  auto steady = directions + 1e-8 * at::eye(kStyle, kMotions, directions.options());
  auto orthogonal = std::get<0>(at::linalg_qr(steady.to(at::kFloat)));
  return x.matmul(orthogonal.transpose(0, 1).to(x.scalar_type()));
}

CausalConv1d::CausalConv1d(const Scope& s, const Sizes& sizes)
    : stride_(sizes.stride),
      weight_((s / "conv").weight("weight", {sizes.out, sizes.in, 3})),
      bias_((s / "conv").weight("bias", {sizes.out})) {}

Tensor CausalConv1d::operator()(const Tensor& x) const {
  return at::conv1d(at::replication_pad1d(x, {2, 0}), nn::patched(weight_), nn::patched(bias_),
                    {stride_});
}

FaceEncoder::FaceEncoder(const Scope& s, const Config& c)
    : first_(s / "conv1_local", {kStyle, kFaceWidth * kFaceTokens}),
      second_(s / "conv2", {kFaceWidth, kFaceWidth, 2}),
      third_(s / "conv3", {kFaceWidth, kFaceWidth, 2}),
      out_(s / "out_proj", kFaceWidth, c.width),
      padding_(s.weight("padding_tokens", {1, 1, 1, c.width})) {}

Tensor FaceEncoder::operator()(const Tensor& motions) const {
  // Channels last and back around each norm.
  auto normed = [](const Tensor& x) {
    return nn::silu(nn::layer_norm(x.transpose(1, 2).contiguous(), kEpsilon));
  };
  auto batch = motions.size(0);
  auto x = first_(motions.transpose(1, 2));
  x = normed(x.unflatten(1, {kFaceTokens, kFaceWidth}).flatten(0, 1));
  x = normed(second_(x.transpose(1, 2)));
  x = out_(normed(third_(x.transpose(1, 2))));  // [B · 4, T / 4, width]
  x = x.unflatten(0, {batch, kFaceTokens}).transpose(1, 2);
  auto padding = nn::patched(padding_).to(x.scalar_type());
  return at::cat({x, padding.expand({batch, x.size(1), 1, x.size(3)})}, 2);
}

FaceBlock::FaceBlock(const Scope& s, const Config& c)
    : heads_(c.heads()),
      block_(s),
      kv_(s / "linear1_kv", c.width, 2 * c.width),
      q_(s / "linear1_q", c.width, c.width),
      out_(s / "linear2", c.width, c.width),
      norm_q_(s / "q_norm", Config::kHeadWidth, kEpsilon),
      norm_k_(s / "k_norm", Config::kHeadWidth, kEpsilon) {}

Tensor FaceBlock::forward(const Tensor& x, const Tensor& face) const {
  return block_.run1({x, face}, [&](const Tensors& in) {
    auto batch = in[1].size(0), frames = in[1].size(1);
    auto split = [&](const Tensor& t) { return t.unflatten(-1, {heads_, -1}); };
    auto both = kv_(nn::layer_norm(in[1], kEpsilon)).chunk(2, -1);
    auto k = norm_k_(split(both[0])).flatten(0, 1);
    auto q = norm_q_(split(q_(nn::layer_norm(in[0], kEpsilon))));
    q = q.reshape({batch * frames, -1, q.size(2), q.size(3)});
    auto seen = nn::attend(q, k, split(both[1]).flatten(0, 1));
    return in[0] + out_(seen.reshape({batch, -1, in[0].size(2)}));
  });
}

Animate::Animate(const Scope& root, const Config& c) {
  auto pose = root.block("pose in");
  pose_block_ = weights::Block(pose);
  pose_ = (pose / "pose_patch_embedding")
              .weight("weight", {c.width, c.out_channels, 1, kPatch, kPatch});
  pose_bias_ = (pose / "pose_patch_embedding").weight("bias", {c.width});
  auto face = root.block("face in");
  face_block_ = weights::Block(face);
  motion_.emplace(face / "motion_encoder");
  encoder_.emplace(face / "face_encoder", c);
  for (std::int64_t i = 0; i < c.face_layers; ++i)
    layers_.emplace_back((root / "face_adapter" / "fuser_blocks" / i).block(), c);
}

Tensor Animate::posed(const Tensor& tokens, const Tensor& pose, at::IntArrayRef latent) const {
  if (!pose.defined()) return tokens;
  if (pose.sizes().slice(3) != latent.slice(3))
    throw Error(ErrorKind::Shape, "pose_video",
                fmt::format("is of {} (height, width) in the latent, and the video of {}",
                            c10::str(pose.sizes().slice(3)), c10::str(latent.slice(3))));
  auto count = std::min(pose.size(2), latent[2] - 1);
  if (count <= 0) return tokens;
  auto added = pose_block_.run1({to_tokens(pose.narrow(2, 0, count))}, [&](const Tensors& in) {
    return nn::linear(in[0].to(pose_.dtype()), pose_, pose_bias_);
  });
  auto each = tokens.size(1) / latent[2], behind = (latent[2] - 1 - count) * each;
  return tokens + at::constant_pad_nd(added, {0, 0, each, behind});
}

Tensor Animate::face_of(const Tensor& pictures, std::int64_t frames) const {
  if (pictures.size(3) != kFaceSide || pictures.size(4) != kFaceSide)
    throw Error(ErrorKind::Shape, "face_video",
                fmt::format("has to be of {} x {} pixels, and is of {} x {}", kFaceSide, kFaceSide,
                            pictures.size(4), pictures.size(3)));
  auto face = face_block_.run1({pictures}, [&](const Tensors& in) {
    auto batch = in[0].size(0);
    Tensors motions;
    for (const auto& some : in[0].transpose(1, 2).flatten(0, 1).split(kAtOnce))
      motions.push_back((*motion_)(some));
    return (*encoder_)(at::cat(motions).unflatten(0, {batch, -1}));
  });
  // The first latent frame is the character's picture.
  auto missing = frames - face.size(1) - 1;
  face = at::constant_pad_nd(face, {0, 0, 0, 0, 1, std::max<std::int64_t>(0, missing)});
  return face.narrow(1, 0, frames);
}

Tensor Animate::after(std::int64_t layer, const Tensor& x, const Tensor& face) const {
  auto own = static_cast<std::size_t>(layer / kLayersPerFace);
  if (!face.defined() || layer % kLayersPerFace != 0 || own >= layers_.size()) return x;
  return layers_[own].forward(x, face);
}

}  // namespace distorch::models::wan
