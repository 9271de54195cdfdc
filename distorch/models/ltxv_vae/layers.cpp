#include "distorch/models/ltxv_vae/layers.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>

#include "distorch/nn/activation.h"
#include "distorch/nn/embedding.h"
#include "distorch/nn/patch.h"

namespace distorch::models::ltxv_vae {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr double kPixelEps = 1e-8, kNormEps = 1e-6;
constexpr std::int64_t kTaps = 3;          // frames that a convolution sees
constexpr std::int64_t kLevelWidth = 256;  // of the embedding of a noise level
constexpr auto kLayout = at::MemoryFormat::ChannelsLast;

/// Frames that are worked on at once, of so many numbers each: some hundred megabytes.
std::int64_t frames_at_once(std::int64_t numbers) {
  constexpr std::int64_t most = std::int64_t{1} << 28;
  return std::max<std::int64_t>(1, most / std::max<std::int64_t>(1, numbers));
}

std::int64_t numbers_of(const Tensor& x) { return x.size(1) * x.size(2) * x.size(3); }

/// Frames with one more row and column on every side, which are the second ones from the edge.
Tensor reflected(const Tensor& frames) {
  auto height = frames.size(2), width = frames.size(3);
  auto all = at::empty({frames.size(0), frames.size(1), height + 2, width + 2},
                       frames.options().memory_format(kLayout));
  all.narrow(2, 1, height).narrow(3, 1, width).copy_(frames);
  for (std::int64_t dim : {2, 3}) {
    const auto last = all.size(dim) - 1;
    // A side of one cell has no second one: its own is repeated.
    const std::int64_t second = last > 2 ? 2 : 1;
    all.select(dim, 0).copy_(all.select(dim, second));
    all.select(dim, last).copy_(all.select(dim, last - second));
  }
  return all;
}

/// frames [T, C, h, w] -> [T / time, C · time · space², h / space, w / space]: neighbouring cells as
/// channels, a channel's one behind the other.
Tensor folded(const Tensor& x, const Stage& s) {
  return x
      .reshape({x.size(0) / s.time, s.time, x.size(1), x.size(2) / s.space, s.space,
                x.size(3) / s.space, s.space})
      .permute({0, 2, 1, 4, 6, 3, 5})
      .flatten(1, 4);
}

/// The other way round.
Tensor unfolded(const Tensor& x, const Stage& s) {
  return x.reshape({x.size(0), -1, s.time, s.space, s.space, x.size(2), x.size(3)})
      .permute({0, 2, 1, 5, 3, 6, 4})
      .reshape({x.size(0) * s.time, -1, x.size(2) * s.space, x.size(3) * s.space});
}

std::int64_t folded_channels(const Stage& s, bool up) {
  const auto cells = s.time * s.space * s.space;
  if (s.kind == Stage::Kind::Strided) return s.out;
  return up ? s.out * cells : s.out / cells;
}

}  // namespace

Tensor Prepared::of(const Tensor& frames) const {
  auto x = frames.to(at::kFloat);
  auto y = x * at::rsqrt(x.square().mean(1, true) + kPixelEps);
  auto by_channel = [](const Tensor& one) { return one.to(at::kFloat).view({1, -1, 1, 1}); };
  if (scale.defined()) y = at::addcmul(by_channel(shift), y, by_channel(scale) + 1);
  return at::silu_(y).to(frames.scalar_type(), false, false, kLayout);
}

Conv::Conv(const Scope& s, std::int64_t in, std::int64_t out, Sight sight, std::int64_t time,
           std::int64_t space)
    : sight_(sight),
      time_(time),
      space_(space),
      weight_((s / "conv").weight("weight", {out, in, kTaps, 3, 3})),
      bias_((s / "conv").weight("bias", {out})) {}

/// What `count` frames of the result from `first` on see, in order.
Tensor Conv::seen(const Tensor& x, std::int64_t first, std::int64_t count,
                  const Prepared* before) const {
  auto frames = x.size(0);
  auto begin = first * time_ - (sight_.causal ? kTaps - 1 : kTaps / 2);
  auto end = begin + (count - 1) * time_ + kTaps;
  auto own = std::clamp<std::int64_t>(begin, 0, frames - 1);
  auto part = x.narrow(0, own, std::min(end, frames) - own);
  if (before) part = before->of(part);
  if (sight_.edges == Edges::Reflected) part = reflected(part);
  Tensors all;
  auto repeat = [&](std::int64_t index, std::int64_t times) {
    auto sizes = part.sizes().vec();
    sizes[0] = times;
    if (times > 0) all.push_back(part.narrow(0, index, 1).expand(sizes));
  };
  repeat(0, std::max<std::int64_t>(0, -begin));
  all.push_back(part);
  repeat(part.size(0) - 1, std::max<std::int64_t>(0, end - frames));
  return all.size() == 1 ? part : at::cat(all);
}

Tensor Conv::operator()(const Tensor& x, const Prepared* before) const {
  auto kernel = nn::patched(weight_);
  auto bias = nn::patched(bias_);
  std::array<Tensor, kTaps> taps;
  for (std::int64_t i = 0; i < kTaps; ++i)
    taps[static_cast<std::size_t>(i)] = kernel.select(2, i).contiguous(kLayout);
  const std::int64_t edge = sight_.edges == Edges::Zeros ? 1 : 0;
  const std::array<std::int64_t, 2> strides = {space_, space_}, padding = {edge, edge};
  auto product = [&](const Tensor& frames, std::size_t tap) {
    return at::conv2d(frames, taps[tap], tap == 0 ? std::optional<Tensor>(bias) : std::nullopt,
                      at::IntArrayRef(strides), at::IntArrayRef(padding));
  };
  auto frames = (x.size(0) - 1) / time_ + 1;
  auto side = [&](std::int64_t size) { return (size - 1) / space_ + 1; };
  auto out = at::empty({frames, kernel.size(0), side(x.size(2)), side(x.size(3))},
                       x.options().memory_format(kLayout));
  auto at_once = frames_at_once(std::max(numbers_of(x), numbers_of(out)));
  for (std::int64_t first = 0; first < frames; first += at_once) {
    auto count = std::min(at_once, frames - first);
    auto all = seen(x, first, count, before);
    auto part = out.narrow(0, first, count);
    for (std::int64_t tap = 0; tap < kTaps; ++tap) {
      auto end = tap + (count - 1) * time_ + 1;
      auto made = product(all.slice(0, tap, end, time_), static_cast<std::size_t>(tap));
      if (tap == 0)
        part.copy_(made);
      else
        part.add_(made);
    }
  }
  return out;
}

TimeEmbedder::TimeEmbedder(const Scope& s, std::int64_t width)
    : block_(s),
      first_(s / "timestep_embedder" / "linear_1", kLevelWidth, width),
      second_(s / "timestep_embedder" / "linear_2", width, width) {}

Tensor TimeEmbedder::forward(const Tensor& level) const {
  return block_.run1({level}, [this](const Tensors& in) {
    auto waves = nn::timestep_embedding(in[0], kLevelWidth).to(first_.dtype());
    return second_(nn::silu_over(first_(waves))).flatten();
  });
}

ResBlock::ResBlock(const Scope& s, std::int64_t in, std::int64_t out, Sight sight, Options options)
    : block_(s), conv1_(s / "conv1", in, out, sight), conv2_(s / "conv2", out, out, sight) {
  if (options.noise) {
    noise1_ = s.weight("per_channel_scale1", {in, 1, 1});
    noise2_ = s.weight("per_channel_scale2", {in, 1, 1});
  }
  if (options.timed) modulation_ = s.weight("scale_shift_table", {4, in});
  if (in == out) return;
  norm3_.emplace(s / "norm3" / "norm", in, kNormEps);
  shortcut_ = (s / "conv_shortcut").weight("weight", {out, in, 1, 1, 1});
  shortcut_bias_ = (s / "conv_shortcut").weight("bias", {out});
}

Tensor ResBlock::past(const Tensor& x) const {
  if (!norm3_) return x;
  return nn::linear((*norm3_)(x.permute({0, 2, 3, 1})), shortcut_, shortcut_bias_)
      .permute({0, 3, 1, 2});
}

Tensor ResBlock::run(const Tensor& x, const Tensor& time, const Tensor& noise) const {
  Prepared first, second;
  if (modulation_.declared()) {
    auto all =
        nn::patched(modulation_).to(x.scalar_type()) + time.to(x.scalar_type()).view({4, -1});
    first = {all[0], all[1]};
    second = {all[2], all[3]};
  }
  auto add_noise = [&](const Tensor& h, const weights::Weight& factors, std::int64_t which) {
    if (factors.declared())
      h.add_((noise[which].to(h.scalar_type()) * nn::patched(factors).to(h.scalar_type()))
                 .unsqueeze(0));
  };
  auto h = conv1_(x, &first);
  add_noise(h, noise1_, 0);
  h = conv2_(h, &second);
  add_noise(h, noise2_, 1);
  auto at_once = frames_at_once(numbers_of(h));
  for (std::int64_t from = 0; from < h.size(0); from += at_once) {
    auto count = std::min(at_once, h.size(0) - from);
    h.narrow(0, from, count).add_(past(x.narrow(0, from, count)));
  }
  return h;
}

Tensor ResBlock::forward(const Tensor& x, const Tensor& time, const Tensor& noise) const {
  return block_.run1({x, time, noise},
                     [this](const Tensors& in) { return run(in[0], in[1], in[2]); });
}

Resample::Resample(const Scope& s, const Stage& stage, Sight sight, bool up)
    : block_(s),
      stage_(stage),
      up_(up),
      conv_(stage.kind == Stage::Kind::Strided ? s : s / "conv", stage.in,
            folded_channels(stage, up), sight, stage.kind == Stage::Kind::Strided ? stage.time : 1,
            stage.kind == Stage::Kind::Strided ? stage.space : 1) {}

Tensor Resample::down(const Tensor& x) const {
  if (stage_.kind == Stage::Kind::Strided) return conv_(x);
  auto all = stage_.time > 1 ? at::cat({x.narrow(0, 0, 1), x}) : x;
  auto past = folded(all, stage_).unflatten(1, {stage_.out, -1}).mean(2);
  return folded(conv_(all), stage_).add_(past).contiguous(kLayout);
}

Tensor Resample::up(const Tensor& x) const {
  auto first = stage_.time - 1;
  auto result = [&](const Tensor& cells) {
    auto all = unfolded(cells, stage_);
    return all.narrow(0, first, all.size(0) - first);
  };
  auto h = result(conv_(x)).contiguous(kLayout);
  if (!stage_.residual) return h;
  auto past = result(x);
  return h.add_(past.repeat({1, stage_.out / past.size(1), 1, 1}));
}

Tensor Resample::forward(const Tensor& x) const {
  return block_.run1({x}, [this](const Tensors& in) { return up_ ? up(in[0]) : down(in[0]); });
}

}  // namespace distorch::models::ltxv_vae
