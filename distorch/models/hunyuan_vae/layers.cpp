#include "distorch/models/hunyuan_vae/layers.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>

#include "distorch/nn/attention.h"
#include "distorch/nn/patch.h"

namespace distorch::models::hunyuan_vae {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr double kEps = 1e-6;
constexpr std::int64_t kGroups = 32;
constexpr std::int64_t kTaps = 3;  // frames that a convolution sees
constexpr auto kLayout = at::MemoryFormat::ChannelsLast;

/// Frames that are worked on at once, of so many numbers each: some hundred megabytes.
std::int64_t frames_at_once(std::int64_t numbers) {
  constexpr std::int64_t most = std::int64_t{1} << 28;
  return std::max<std::int64_t>(1, most / std::max<std::int64_t>(1, numbers));
}

/// Calls `one` for each piece of `frames`, with its first frame and its length.
template <class One>
void in_pieces(std::int64_t frames, std::int64_t at_once, One one) {
  for (std::int64_t first = 0; first < frames; first += at_once)
    one(first, std::min(at_once, frames - first));
}

std::int64_t numbers_of(const Tensor& x) { return x.size(1) * x.size(2) * x.size(3); }

Tensor clip_like(const Tensor& x, at::IntArrayRef sizes) {
  return at::empty(sizes, x.options().memory_format(kLayout));
}

/// Repeats the pixels at the edges outwards: the frame's own are all but the first and last rows and
/// columns.
void repeat_edges(const Tensor& frames) {
  for (std::int64_t dim : {2, 3}) {
    auto last = frames.size(dim) - 1;
    frames.select(dim, 0).copy_(frames.select(dim, 1));
    frames.select(dim, last).copy_(frames.select(dim, last - 1));
  }
}

}  // namespace

Tensor Affine::of(const Tensor& frames) const {
  auto y = at::addcmul(shift.view({1, -1, 1, 1}), frames.to(at::kFloat), scale.view({1, -1, 1, 1}));
  if (silu) y = at::silu_(y);
  return y.to(frames.scalar_type());
}

ClipNorm::ClipNorm(const Scope& s, std::int64_t channels)
    : weight_(s.weight("weight", {channels})), bias_(s.weight("bias", {channels})) {}

Affine ClipNorm::of(const Tensor& x, bool silu) const {
  auto channels = x.size(1), each = channels / kGroups;
  Tensors variances, means;
  in_pieces(x.size(0), frames_at_once(numbers_of(x)), [&](std::int64_t first, std::int64_t count) {
    auto grouped = x.narrow(0, first, count)
                       .permute({0, 2, 3, 1})
                       .reshape({count, -1, kGroups, each})
                       .to(at::kFloat);
    auto [variance, mean] =
        at::var_mean(grouped, at::IntArrayRef{1, 3}, std::optional<at::Scalar>(0));
    variances.push_back(variance);
    means.push_back(mean);
  });
  // Frames are of one size: the variance is that within them and that between them.
  auto all = at::cat(means);
  auto mean = all.mean(0);
  auto variance = at::cat(variances).mean(0) + (all - mean).square().mean(0);
  auto factor =
      at::rsqrt(variance + kEps).repeat_interleave(each) * nn::patched(weight_).to(at::kFloat);
  return {factor, nn::patched(bias_).to(at::kFloat) - mean.repeat_interleave(each) * factor, silu};
}

CausalConv::CausalConv(const Scope& s, std::int64_t in, std::int64_t out, Resize resize)
    : resize_(resize),
      weight_((s / "conv").weight("weight", {out, in, kTaps, 3, 3})),
      bias_((s / "conv").weight("bias", {out})) {}

/// The frame that stands at a place of the resized clip; places before it are its first frame's.
std::int64_t CausalConv::frame_at(std::int64_t position) const {
  position = std::max<std::int64_t>(0, position);
  if (resize_ != Resize::DoubleTime) return position;
  return (position + 1) / 2;
}

/// What `count` frames of the result from `first` on see: all places in order, doubled where the
/// convolution doubles, with an edge around.
Tensor CausalConv::padded(const Tensor& x, const Tensor& past, std::int64_t first,
                          std::int64_t count, const Affine* before) const {
  auto height = x.size(2), width = x.size(3), factor = std::int64_t{doubles() ? 2 : 1};
  auto begin = first * time_stride() - (kTaps - 1);
  auto places = (count - 1) * time_stride() + kTaps;
  auto all = clip_like(x, {places, x.size(1), height * factor + 2, width * factor + 2});
  auto inner = all.narrow(2, 1, height * factor).narrow(3, 1, width * factor);
  // [place, C, h, factor, w, factor]
  auto cells = inner.unflatten(2, {height, factor}).unflatten(4, {width, factor});
  Tensor frame;
  std::int64_t made = -1;
  for (std::int64_t i = 0; i < places; ++i) {
    auto index = frame_at(begin + i);
    if (past.defined() && begin + i < 0) {
      frame = past.narrow(0, past.size(0) + begin + i, 1);
    } else if (index != made) {
      frame = x.narrow(0, index, 1);
      if (before) frame = before->of(frame);
      made = index;
    }
    auto place = cells.select(0, i);
    place.copy_(frame[0].unsqueeze(3).unsqueeze(2).expand(place.sizes()));
  }
  repeat_edges(all);
  return all;
}

Tensor CausalConv::operator()(const Tensor& x, const Affine* before, const Tensor& past) const {
  auto kernel = nn::patched(weight_);
  auto bias = nn::patched(bias_);
  std::array<Tensor, kTaps> taps;
  for (std::int64_t i = 0; i < kTaps; ++i)
    taps[static_cast<std::size_t>(i)] = kernel.select(2, i).contiguous(kLayout);
  const std::int64_t stride = halves() ? 2 : 1;
  const std::array<std::int64_t, 2> strides = {stride, stride};
  auto product = [&](const Tensor& frames, std::size_t tap) {
    return at::conv2d(frames, taps[tap], tap == 0 ? std::optional<Tensor>(bias) : std::nullopt,
                      at::IntArrayRef(strides), at::IntArrayRef{0, 0});
  };
  auto side = [&](std::int64_t size) {
    return doubles() ? 2 * size : halves() ? (size - 1) / 2 + 1 : size;
  };
  auto frames = x.size(0);
  if (resize_ == Resize::HalveTime) frames = (frames - 1) / 2 + 1;
  if (resize_ == Resize::DoubleTime) frames = 2 * frames - 1;
  auto out = clip_like(x, {frames, kernel.size(0), side(x.size(2)), side(x.size(3))});
  auto numbers = std::max(numbers_of(out), x.size(1) * out.size(2) * out.size(3));
  in_pieces(frames, frames_at_once(numbers), [&](std::int64_t first, std::int64_t count) {
    auto seen = padded(x, past, first, count, before);
    auto part = out.narrow(0, first, count);
    for (std::int64_t tap = 0; tap < kTaps; ++tap) {
      auto end = tap + (count - 1) * time_stride() + 1;
      auto made = product(seen.slice(0, tap, end, time_stride()), static_cast<std::size_t>(tap));
      if (tap == 0)
        part.copy_(made);
      else
        part.add_(made);
    }
  });
  return out;
}

PointConv::PointConv(const Scope& s, std::int64_t in, std::int64_t out)
    : weight_(s.weight("weight", {out, in, 1, 1, 1})), bias_(s.weight("bias", {out})) {}

Tensor PointConv::tokens(const Tensor& x) const { return nn::linear(x, weight_, bias_); }

Tensor PointConv::operator()(const Tensor& x) const {
  return tokens(x.permute({0, 2, 3, 1})).permute({0, 3, 1, 2});
}

ResBlock::ResBlock(const Scope& s, std::int64_t in, std::int64_t out)
    : block_(s),
      norm1_(s / "norm1", in),
      conv1_(s / "conv1", in, out),
      norm2_(s / "norm2", out),
      conv2_(s / "conv2", out, out) {
  if (in != out) shortcut_.emplace(s / "nin_shortcut" / "conv", in, out);
}

Tensor ResBlock::forward(const Tensor& x) const {
  return block_.run1({x}, [this](const Tensors& in) {
    auto norm = norm1_.of(in[0]);
    auto h = conv1_(in[0], &norm);
    norm = norm2_.of(h);
    h = conv2_(h, &norm);
    if (!shortcut_) return h.add_(in[0]);
    in_pieces(h.size(0), frames_at_once(numbers_of(h)), [&](auto first, auto count) {
      h.narrow(0, first, count).add_((*shortcut_)(in[0].narrow(0, first, count)));
    });
    return h;
  });
}

PixelAttention::PixelAttention(const Scope& s, std::int64_t channels)
    : q_(s / "q", channels, channels),
      k_(s / "k", channels, channels),
      v_(s / "v", channels, channels),
      out_(s / "proj_out", channels, channels) {}

Tensor PixelAttention::operator()(const Tensor& x) const {
  auto pixels = x.permute({0, 2, 3, 1});
  auto tokens = pixels.reshape({1, -1, pixels.size(3)});
  auto q = q_.tokens(tokens), k = k_.tokens(tokens), v = v_.tokens(tokens);
  auto attended = at::empty_like(q);
  // Heads are wider than what fast kernels take: a few rows of scores at a time.
  auto at_once = frames_at_once(k.size(1));
  in_pieces(q.size(1), at_once, [&](std::int64_t first, std::int64_t count) {
    attended.narrow(1, first, count)
        .copy_(nn::attention(q.narrow(1, first, count), k, v, {.heads = 1}));
  });
  return out_.tokens(attended).view(pixels.sizes()).permute({0, 3, 1, 2});
}

ClipAttention::ClipAttention(const Scope& s, std::int64_t channels)
    : block_(s), norm_(s / "norm", channels), attention_(s, channels) {}

Tensor ClipAttention::forward(const Tensor& x) const {
  return block_.run1({x}, [this](const Tensors& in) {
    return attention_(norm_.of(in[0], /*silu=*/false).of(in[0])).add_(in[0]);
  });
}

}  // namespace distorch::models::hunyuan_vae
