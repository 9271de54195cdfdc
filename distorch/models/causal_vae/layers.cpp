#include "distorch/models/causal_vae/layers.h"

#include <cmath>

#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/patch.h"

namespace distorch::models::causal_vae {

using at::Tensor;
using weights::Tensors;

namespace {

std::vector<std::int64_t> gamma_shape(std::int64_t channels, ChannelNorm::Of of) {
  std::vector<std::int64_t> shape = {channels, 1, 1};
  if (of == ChannelNorm::Of::Frames) shape.push_back(1);
  return shape;
}

/// A body's results: what it computed and, where it is to be kept, what it has to remember.
Tensors with_memory(Tensor result, bool keep, std::initializer_list<Tensor> memory) {
  Tensors all = {std::move(result)};
  if (keep) all.insert(all.end(), memory);
  return all;
}

}  // namespace

ChannelNorm::ChannelNorm(const weights::Scope& scope, std::int64_t channels, Of of)
    : scale_(std::sqrt(static_cast<double>(channels))),
      gamma_(scope.weight("gamma", gamma_shape(channels, of))) {}

Tensor ChannelNorm::operator()(const Tensor& x) const {
  auto length = at::linalg_vector_norm(x, 2, at::IntArrayRef{1}, /*keepdim=*/true);
  auto gamma = nn::patched(gamma_).reshape({1, -1, 1, 1}) * scale_;
  return (x / length.clamp_min_(1e-12)).mul_(gamma);
}

Tensor ChannelNorm::silu(const Tensor& x) const { return nn::silu_over((*this)(x)); }

CausalConv::CausalConv(const weights::Scope& scope, std::int64_t in, std::int64_t out,
                       Kernel kernel)
    : kernel_(kernel),
      weight_(scope.weight("weight", {out, in, kernel.time, kernel.space, kernel.space})),
      bias_(scope.weight("bias", {out})) {}

Tensor CausalConv::frame_product(const Tensor& x, std::int64_t step, bool with_bias) const {
  auto weight = nn::patched(weight_).select(2, step).contiguous(at::MemoryFormat::ChannelsLast);
  auto padding = kernel_.space / 2;
  std::optional<Tensor> bias;
  if (with_bias) bias = nn::patched(bias_);
  return at::conv2d(x.contiguous(at::MemoryFormat::ChannelsLast), weight, bias, {1, 1},
                    {padding, padding});
}

Tensor CausalConv::operator()(const Tensor& x, const Past& past) const {
  auto last = kernel_.time - 1;
  auto result = frame_product(x, last, true);
  auto before = past.defined() ? past.size(0) : 0, frames = x.size(0);
  if (before + frames < 2 || last == 0) return result;
  auto all = before == 0 ? x : at::cat({past, x});
  for (std::int64_t back = 1; back <= last; ++back) {
    // The first frames have nothing so far back.
    auto skipped = std::max<std::int64_t>(0, back - before);
    if (skipped >= frames) continue;
    auto seen = all.narrow(0, skipped + before - back, frames - skipped);
    result.narrow(0, skipped, frames - skipped).add_(frame_product(seen, last - back, false));
  }
  return result;
}

Tensor CausalConv::halved(const Tensor& x) const {
  auto last = kernel_.time - 1, end = x.size(0) - last;
  Tensor result;
  for (std::int64_t step = 0; step <= last; ++step) {
    auto part = frame_product(x.slice(0, step, end + step, 2), step, step == 0);
    result = step == 0 ? part : result.add_(part);
  }
  return result;
}

Past remembered(const Tensor& x, const Past& past) {
  auto frames = x.size(0);
  if (frames >= 2) return x.narrow(0, frames - 2, 2).clone();
  if (!past.defined()) return x.clone();
  return at::cat({past.narrow(0, past.size(0) - 1, 1), x});
}

ResidualBlock::ResidualBlock(const weights::Scope& s, std::int64_t in, std::int64_t out)
    : block_(s),
      norm1_(s / "residual" / 0, in, ChannelNorm::Of::Frames),
      norm2_(s / "residual" / 3, out, ChannelNorm::Of::Frames),
      conv1_(s / "residual" / 2, in, out),
      conv2_(s / "residual" / 6, out, out) {
  if (in != out) shortcut_.emplace(s / "shortcut", in, out, CausalConv::Kernel{1, 1});
}

Tensor ResidualBlock::forward(const Tensor& x, Memory& memory, bool keep) const {
  auto results = block_.run({x, memory.first, memory.second}, [&](const Tensors& in) {
    auto h = norm1_.silu(in[0]);
    auto first = keep ? remembered(h, in[1]) : Tensor();
    h = conv1_(h, in[1]);
    h = norm2_.silu(h);
    auto second = keep ? remembered(h, in[2]) : Tensor();
    h = conv2_(h, in[2]);
    h.add_(shortcut_ ? (*shortcut_)(in[0]) : in[0]);
    return with_memory(std::move(h), keep, {first, second});
  });
  if (keep) memory = {results[1], results[2]};
  return results[0];
}

FrameAttention::FrameAttention(const weights::Scope& s, std::int64_t channels)
    : block_(s),
      norm_(s / "norm", channels, ChannelNorm::Of::Pictures),
      qkv_(s / "to_qkv", channels, 3 * channels, nn::pointwise),
      out_(s / "proj", channels, channels, nn::pointwise) {}

Tensor FrameAttention::forward(const Tensor& x) const {
  return block_.run1({x}, [this](const Tensors& in) {
    auto parts = nn::to_tokens(qkv_(norm_(in[0]))).chunk(3, 2);
    auto y = nn::attention(parts[0], parts[1], parts[2], {.heads = 1});
    return out_(nn::to_image(y, in[0].size(2), in[0].size(3))).add_(in[0]);
  });
}

Downsample::Downsample(const weights::Scope& s, std::int64_t channels, bool time)
    : block_(s), conv_(s / "resample" / 1, channels, channels, {.stride = 2, .padding = 0}) {
  if (time) time_.emplace(s / "time_conv", channels, channels, CausalConv::Kernel{3, 1});
}

Tensor Downsample::forward(const Tensor& x, Past& past, bool keep) const {
  keep = keep && time_;
  auto results = block_.run({x, past}, [&](const Tensors& in) {
    auto h = conv_(at::constant_pad_nd(in[0], {0, 1, 0, 1}));
    auto last = keep ? h.narrow(0, h.size(0) - 1, 1).clone() : Tensor();
    if (in[1].defined()) h = time_->halved(at::cat({in[1], h}));
    return with_memory(std::move(h), keep, {last});
  });
  if (keep) past = results[1];
  return results[0];
}

Upsample::Upsample(const weights::Scope& s, std::int64_t in, std::int64_t out, bool time)
    : block_(s), conv_(s / "resample" / 1, in, out) {
  if (time) time_.emplace(s / "time_conv", in, 2 * in, CausalConv::Kernel{3, 1});
}

Tensor Upsample::doubled_in_time(const Tensor& x, const Past& past) const {
  auto pairs = (*time_)(x, past);  // [T, 2·C, h, w]: both frames of a time side by side
  auto frames = pairs.size(0), channels = x.size(1);
  return pairs.permute({0, 2, 3, 1})
      .reshape({frames, x.size(2), x.size(3), 2, channels})
      .permute({0, 3, 4, 1, 2})
      .reshape({2 * frames, channels, x.size(2), x.size(3)});
}

Tensor Upsample::forward(const Tensor& x, Past& past, bool first_chunk, bool keep) const {
  // The first chunk's frame has no partner, and the convolution does not see it.
  bool doubles = time_ && !first_chunk;
  keep = keep && doubles;
  auto results = block_.run({x, past}, [&](const Tensors& in) {
    auto h = doubles ? doubled_in_time(in[0], in[1]) : in[0];
    h = conv_(nn::upsample_nearest(h.contiguous(at::MemoryFormat::ChannelsLast), 2 * h.size(2),
                                   2 * h.size(3)));
    return with_memory(std::move(h), keep, {keep ? remembered(in[0], in[1]) : Tensor()});
  });
  if (keep) past = results[1];
  return results[0];
}

}  // namespace distorch::models::causal_vae
