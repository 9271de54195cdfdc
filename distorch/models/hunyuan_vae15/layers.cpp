#include "distorch/models/hunyuan_vae15/layers.h"

#include <ATen/ATen.h>

namespace distorch::models::hunyuan_vae15 {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr auto kLayout = at::MemoryFormat::ChannelsLast;

}  // namespace

Past remembered(const Tensor& x, const Past& past) {
  auto frames = x.size(0);
  if (frames >= 2) return x.narrow(0, frames - 2, 2).clone();
  return at::cat({past.defined() ? past.narrow(0, past.size(0) - 1, 1) : x, x});
}

ResBlock::ResBlock(const Scope& s, std::int64_t channels)
    : block_(s),
      norm1_(s / "norm1", channels, ChannelNorm::Of::Frames),
      conv1_(s / "conv1", channels, channels),
      norm2_(s / "norm2", channels, ChannelNorm::Of::Frames),
      conv2_(s / "conv2", channels, channels) {}

Tensor ResBlock::forward(const Tensor& x, const Pass& pass, Memory& memory) const {
  auto results = block_.run({x, memory.first, memory.second}, [&](const Tensors& in) -> Tensors {
    auto h = norm1_.silu(in[0]);
    auto first = pass.keep ? remembered(h, in[1]) : Tensor();
    h = norm2_.silu(conv1_(h, nullptr, in[1]));
    auto second = pass.keep ? remembered(h, in[2]) : Tensor();
    h = conv2_(h, nullptr, in[2]).add_(in[0]);
    return pass.keep ? Tensors{h, first, second} : Tensors{h};
  });
  if (pass.keep) memory = {results[1], results[2]};
  return results[0];
}

Tensor Attention::forward(const Tensor& x) const {
  return block_.run1({x},
                     [this](const Tensors& in) { return attention_(norm_(in[0])).add_(in[0]); });
}

Tensor pixels_to_channels(const Tensor& frames, std::int64_t times) {
  auto channels = frames.size(1), height = frames.size(2) / 2, width = frames.size(3) / 2;
  return frames.reshape({frames.size(0) / times, times, channels, height, 2, width, 2})
      .permute({0, 1, 4, 6, 2, 3, 5})
      .reshape({frames.size(0) / times, times * 4 * channels, height, width});
}

Tensor channels_to_pixels(const Tensor& frames, std::int64_t times) {
  auto channels = frames.size(1) / (4 * times), height = frames.size(2), width = frames.size(3);
  return frames.reshape({frames.size(0), times, 2, 2, channels, height, width})
      .permute({0, 1, 4, 5, 2, 6, 3})
      .reshape({frames.size(0) * times, channels, 2 * height, 2 * width});
}

Tensor mean_of_channels(const Tensor& frames, std::int64_t each) {
  return frames.unflatten(1, {frames.size(1) / each, each}).mean(2);
}

/// The clip's first frame has no partner in time: it stands for both.
Tensor Shrink::smaller(const Tensor& x, const Tensor& convolved, bool begins) const {
  auto times = step_.time && !begins ? 2 : 1;
  auto h = pixels_to_channels(convolved, times), past_it = pixels_to_channels(x, times);
  if (step_.time && begins) h = at::cat({h, h}, 1);
  return (h + mean_of_channels(past_it, past_it.size(1) / step_.out)).contiguous(kLayout);
}

Tensor Shrink::forward(const Tensor& x, const Pass& pass, Memory& memory) const {
  auto results = block_.run({x, memory.first}, [&](const Tensors& in) -> Tensors {
    auto y = smaller(in[0], conv_(in[0], nullptr, in[1]), pass.begins);
    return pass.keep ? Tensors{y, remembered(in[0], in[1])} : Tensors{y};
  });
  if (pass.keep) memory.first = results[1];
  return results[0];
}

/// Of the two frames that the convolution makes of the clip's first the earlier one is taken.
Tensor Grow::larger(const Tensor& x, const Tensor& convolved, bool begins) const {
  auto times = step_.time && !begins ? 2 : 1;
  auto h = channels_to_pixels(convolved, times);
  if (step_.time && begins) h = h.narrow(1, 0, step_.out);
  auto past_it = x.repeat_interleave(4 * times * step_.out / step_.in, 1);
  return (h + channels_to_pixels(past_it, times)).contiguous(kLayout);
}

Tensor Grow::forward(const Tensor& x, const Pass& pass, Memory& memory) const {
  auto results = block_.run({x, memory.first}, [&](const Tensors& in) -> Tensors {
    auto y = larger(in[0], conv_(in[0], nullptr, in[1]), pass.begins);
    return pass.keep ? Tensors{y, remembered(in[0], in[1])} : Tensors{y};
  });
  if (pass.keep) memory.first = results[1];
  return results[0];
}

}  // namespace distorch::models::hunyuan_vae15
