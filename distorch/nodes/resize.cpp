#include "distorch/nodes/resize.h"

#include <fmt/format.h>

#include <cmath>

#include "distorch/base/error.h"

namespace distorch::nodes {

using at::Tensor;

namespace {

/// Between b1 and b2 [N, C] along the great circle, lengths blended linearly; ratio [N, 1].
Tensor slerp(const Tensor& b1, const Tensor& b2, const Tensor& ratio) {
  auto length1 = b1.norm(2, {-1}, true), length2 = b2.norm(2, {-1}, true);
  auto unit1 = (b1 / length1).masked_fill(length1 == 0, 0.0),
       unit2 = (b2 / length2).masked_fill(length2 == 0, 0.0);
  auto dot = (unit1 * unit2).sum(1);
  auto angle = at::acos(dot);
  auto sine = at::sin(angle);
  auto r = ratio.squeeze(1);
  auto turned = (at::sin((1.0 - r) * angle) / sine).unsqueeze(1) * unit1 +
                (at::sin(r * angle) / sine).unsqueeze(1) * unit2;
  turned = turned * (length1 * (1.0 - ratio) + length2 * ratio);
  // Parallel vectors have no plane to turn in.
  turned = at::where((dot > 1 - 1e-5).unsqueeze(1), b1, turned);
  return at::where((dot < 1e-5 - 1).unsqueeze(1), b1 * (1.0 - ratio) + b2 * ratio, turned);
}

/// Neighbours of each new place along a line of `from` cells, and how far it lies between them.
struct Places {
  Tensor ratio, first, second;  // [to]
};

Places places(std::int64_t from, std::int64_t to) {
  auto stretch = [&](const Tensor& line) {
    return at::upsample_bilinear2d(line.view({1, 1, 1, -1}), {1, to}, false).view({-1});
  };
  auto line = at::arange(from, at::kFloat);
  auto first = stretch(line);
  auto next = line + 1;
  next[-1] -= 1;
  auto whole = first.floor();
  return {first - whole, first.to(at::kLong), stretch(next).to(at::kLong)};
}

/// One direction of bislerp: the last dimension of x [B, C, H, W] becomes `to`.
Tensor slerp_line(const Tensor& x, std::int64_t to) {
  auto p = places(x.size(3), to);
  auto channels = x.size(1);
  auto flat = [&](const Tensor& index) {
    return x.index_select(3, index.to(x.device())).movedim(1, -1).reshape({-1, channels});
  };
  auto ratio =
      p.ratio.to(x.device()).view({1, 1, -1}).expand({x.size(0), x.size(2), to}).reshape({-1, 1});
  return slerp(flat(p.first), flat(p.second), ratio)
      .view({x.size(0), x.size(2), to, channels})
      .movedim(-1, 1);
}

Tensor bislerp(const Tensor& samples, std::int64_t width, std::int64_t height) {
  auto wide = slerp_line(samples.to(at::kFloat), width);
  return slerp_line(wide.transpose(2, 3), height).transpose(2, 3).contiguous();
}

Tensor lanczos(const Tensor& samples, std::int64_t width, std::int64_t height) {
  std::vector<Tensor> images;
  for (const auto& image : samples.unbind(0))
    images.push_back(resize_lanczos(image.movedim(0, -1), width, height).movedim(-1, 0));
  return at::stack(images);
}

Tensor crop_to_aspect(const Tensor& samples, std::int64_t width, std::int64_t height) {
  auto old_width = samples.size(3), old_height = samples.size(2);
  double old_aspect = static_cast<double>(old_width) / static_cast<double>(old_height);
  double new_aspect = static_cast<double>(width) / static_cast<double>(height);
  std::int64_t x = 0, y = 0;
  if (old_aspect > new_aspect)
    x = round_half_even((static_cast<double>(old_width) -
                         static_cast<double>(old_width) * (new_aspect / old_aspect)) /
                        2);
  else if (old_aspect < new_aspect)
    y = round_half_even((static_cast<double>(old_height) -
                         static_cast<double>(old_height) * (old_aspect / new_aspect)) /
                        2);
  return samples.narrow(2, y, old_height - 2 * y).narrow(3, x, old_width - 2 * x);
}

}  // namespace

std::int64_t round_half_even(double value) {
  return static_cast<std::int64_t>(std::nearbyint(value));
}

Tensor resize(const Tensor& samples, const Resize& target) {
  auto width = target.width, height = target.height;
  if (width < 1 || height < 1)
    throw Error(ErrorKind::Usage, "resize",
                fmt::format("a picture of {}x{} cannot be made", width, height));
  if (samples.dim() > 4) {
    // Frames are resized one by one: [B, C, T, H, W] as [B T, C, H, W].
    auto frames = samples.movedim(2, 1);
    auto shape = frames.sizes().vec();
    shape[3] = height;
    shape[4] = width;
    return resize(frames.flatten(0, 1), target).view(shape).movedim(1, 2).contiguous();
  }
  auto x = target.crop_center ? crop_to_aspect(samples, width, height) : samples;
  if (x.numel() == 0)
    throw Error(ErrorKind::Shape, "resize",
                "cutting to the new aspect leaves nothing of the picture");
  if (target.method == "nearest") return at::upsample_nearest2d(x, {height, width});
  if (target.method == "nearest-exact") return at::_upsample_nearest_exact2d(x, {height, width});
  if (target.method == "bilinear") return at::upsample_bilinear2d(x, {height, width}, false);
  if (target.method == "area") return at::adaptive_avg_pool2d(x, {height, width});
  if (target.method == "bicubic") return at::upsample_bicubic2d(x, {height, width}, false);
  if (target.method == "bislerp") return bislerp(x, width, height);
  if (target.method == "lanczos") return lanczos(x, width, height);
  throw Error(ErrorKind::Usage, "resize",
              fmt::format("'{}' is no method of resizing", target.method));
}

}  // namespace distorch::nodes
