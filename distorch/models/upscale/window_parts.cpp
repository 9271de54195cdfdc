#include "distorch/models/upscale/window_parts.h"

#include <fmt/format.h>

#include <cmath>

#include "distorch/models/tensor_size.h"

namespace distorch::models::upscale {

using at::Tensor;
using nn::Conv2d;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr double kSlope = 0.2;        // of leaky ReLUs
constexpr double kEntrySlope = 0.01;  // of the one before the exit
constexpr double kHidden = -100.0;    // added to scores of pixels that are no neighbours

}  // namespace

Tensor to_windows(const Tensor& x, const Sides& window) {
  auto b = x.size(0), h = x.size(1) / window.height, w = x.size(2) / window.width;
  return x.reshape({b, h, window.height, w, window.width, x.size(3)})
      .permute({0, 1, 3, 2, 4, 5})
      .reshape({b * h * w, window.pixels(), x.size(3)});
}

Tensor from_windows(const Tensor& windows, const Sides& window, std::int64_t height,
                    std::int64_t width) {
  auto h = height / window.height, w = width / window.width;
  auto b = windows.size(0) / (h * w);
  return windows.reshape({b, h, w, window.height, window.width, windows.size(2)})
      .permute({0, 1, 3, 2, 4, 5})
      .reshape({b, height, width, windows.size(2)});
}

Tensor bias_rows(const Sides& window) {
  auto y = at::arange(window.height, at::kLong).repeat_interleave(window.width);
  auto x = at::arange(window.width, at::kLong).repeat({window.height});
  auto dy = y.unsqueeze(1) - y.unsqueeze(0) + window.height - 1,
       dx = x.unsqueeze(1) - x.unsqueeze(0) + window.width - 1;
  return (dy * (2 * window.width - 1) + dx).flatten();
}

Tensor border_mask(const Sides& window, const Sides& shift, std::int64_t height,
                   std::int64_t width) {
  auto zones = [](std::int64_t length, std::int64_t side, std::int64_t shifted) {
    auto zone = at::zeros({length});
    zone.narrow(0, length - side, side).fill_(1);
    zone.narrow(0, length - shifted, shifted).fill_(2);
    return zone;
  };
  auto rows = zones(height, window.height, shift.height),
       columns = zones(width, window.width, shift.width);
  auto zone = (rows.unsqueeze(1) * 3 + columns.unsqueeze(0)).view({1, height, width, 1});
  auto windows = to_windows(zone, window).squeeze(2);
  auto differs = windows.unsqueeze(1) != windows.unsqueeze(2);
  return at::zeros(differs.sizes()).masked_fill(differs, kHidden);
}

Tensor pixels_last(const Tensor& x) { return x.permute({0, 2, 3, 1}); }
Tensor channels_first(const Tensor& x) { return x.permute({0, 3, 1, 2}); }

Tensor mean_color(std::int64_t channels, at::Device device) {
  auto mean = channels == 3 ? at::tensor({0.4488f, 0.4371f, 0.4040f}).view({1, 3, 1, 1})
                            : at::zeros({1, 1, 1, 1});
  return mean.to(device);
}

ResidualLayers::ResidualLayers(const Scope& s, const Frame& c) {
  if (c.residual == Residual::None) return;
  if (c.residual == Residual::One) {
    layers_.emplace_back(s, c.width, c.width);
    return;
  }
  layers_.emplace_back(s / 0, c.width, c.width / 4);
  layers_.emplace_back(s / 2, c.width / 4, c.width / 4, nn::pointwise);
  layers_.emplace_back(s / 4, c.width / 4, c.width);
}

Tensor ResidualLayers::operator()(const Tensor& x) const {
  if (layers_.empty()) return x;
  auto y = layers_[0](x);
  for (std::size_t i = 1; i < layers_.size(); ++i) y = layers_[i](at::leaky_relu(y, kSlope));
  return y;
}

FrameEntry::FrameEntry(const Scope& s, const Frame& c, const std::string& norm)
    : block_(s), first_(s / "conv_first", c.in_channels, c.width), norm_(s / norm, c.width) {}

Tensors FrameEntry::forward(const Tensor& image) const {
  return block_.run({image}, [this](const Tensors& in) -> Tensors {
    auto first = first_(nn::to_layout(in[0], first_.dtype()));
    return {first, channels_first(norm_(pixels_last(first)))};
  });
}

FrameExit::FrameExit(const Scope& s, const Frame& c)
    : block_(s), frame_(c), norm_(s / "norm", c.width), body_(s / "conv_after_body", c) {
  switch (c.exit) {
    case PixelExit::Shuffle:
      before_.emplace(s / "conv_before_upsample" / 0, c.width, c.features);
      add_shuffles(s);
      last_.emplace(s / "conv_last", c.features, c.out_channels);
      break;
    case PixelExit::Direct:
      ups_.emplace_back(s / "upsample" / 0, c.width, c.scale * c.scale * c.out_channels);
      break;
    case PixelExit::Nearest:
      before_.emplace(s / "conv_before_upsample" / 0, c.width, c.features);
      for (std::int64_t scale = 2, i = 1; scale <= c.scale; scale *= 2, ++i)
        ups_.emplace_back(s / fmt::format("conv_up{}", i), c.features, c.features);
      sharp_.emplace(s / "conv_hr", c.features, c.features);
      last_.emplace(s / "conv_last", c.features, c.out_channels);
      break;
    case PixelExit::Repair: last_.emplace(s / "conv_last", c.width, c.out_channels); break;
  }
}

Tensor FrameExit::forward(const Tensor& features, const Tensor& first) const {
  return block_.run1({features, first}, [this](const Tensors& in) {
    auto x = body_(channels_first(norm_(pixels_last(in[0])))) + in[1];
    if (before_) x = at::leaky_relu((*before_)(x), kEntrySlope);
    for (const auto& up : ups_) {
      if (frame_.exit == PixelExit::Nearest)
        x = at::leaky_relu(up(nn::upsample_nearest(x, x.size(2) * 2, x.size(3) * 2)), kSlope);
      else
        x = at::pixel_shuffle(up(x), step());
    }
    if (sharp_) x = at::leaky_relu((*sharp_)(x), kSlope);
    return last_ ? (*last_)(x) : x;
  });
}

/// How much one step enlarges: 2 or, for a scale of 3, 3; all at once for Direct.
std::int64_t FrameExit::step() const {
  return frame_.exit == PixelExit::Direct || frame_.scale == 3 ? frame_.scale : 2;
}

void FrameExit::add_shuffles(const Scope& s) {
  std::int64_t done = 1;
  for (int i = 0; done < frame_.scale; i += 2, done *= step())
    ups_.emplace_back(s / "upsample" / i, frame_.features, step() * step() * frame_.features);
}

std::int64_t root(std::int64_t square) {
  return static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(square))));
}

Frame frame_of(const Checkpoint& file) {
  Frame c;
  c.width = size_of(file, "conv_first.weight", 0);
  c.in_channels = size_of(file, "conv_first.weight", 1);
  c.out_channels =
      file.has("conv_last.weight") ? size_of(file, "conv_last.weight", 0) : c.in_channels;
  c.residual = file.has("conv_after_body.weight")     ? Residual::One
               : file.has("conv_after_body.4.weight") ? Residual::Narrow
                                                      : Residual::None;
  c.scale = 1;
  if (file.has("conv_up1.weight")) {
    c.exit = PixelExit::Nearest;
    for (int i = 1; file.has(fmt::format("conv_up{}.weight", i)); ++i) c.scale *= 2;
  } else if (file.has("conv_before_upsample.0.weight")) {
    c.exit = PixelExit::Shuffle;
    for (int i = 0; file.has(fmt::format("upsample.{}.weight", i)); i += 2) {
      const auto name = fmt::format("upsample.{}.weight", i);
      c.scale *= root(size_of(file, name, 0) / size_of(file, name, 1));
    }
  } else if (file.has("upsample.0.weight")) {
    c.exit = PixelExit::Direct;
    c.scale = root(size_of(file, "upsample.0.weight", 0) / c.out_channels);
  } else {
    c.exit = PixelExit::Repair;
  }
  if (file.has("conv_before_upsample.0.weight"))
    c.features = size_of(file, "conv_before_upsample.0.weight", 0);
  return c;
}

}  // namespace distorch::models::upscale
