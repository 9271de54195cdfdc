#include "distorch/nodes/edges.h"

#include <cmath>
#include <numbers>
#include <vector>

namespace distorch::nodes {

using at::Tensor;

namespace {

Tensor to_gray(const Tensor& image) {
  if (image.size(3) < 3) return image.select(3, 0).unsqueeze(1);
  return (0.299 * image.select(3, 0) + 0.587 * image.select(3, 1) + 0.114 * image.select(3, 2))
      .unsqueeze(1);
}

/// Five pixels each way, sigma 1; x [B, 1, H, W].
Tensor blurred(const Tensor& x) {
  auto line = at::exp(-at::pow(at::arange(5, at::kFloat) - 2.0, 2) / 2.0);
  line = line / line.sum();
  auto wide = at::conv2d(at::reflection_pad2d(x, {2, 2, 0, 0}), line.view({1, 1, 1, 5}));
  return at::conv2d(at::reflection_pad2d(wide, {0, 0, 2, 2}), line.view({1, 1, 5, 1}));
}

/// [B, 2, H, W]: to the right, then downwards.
Tensor slopes(const Tensor& x) {
  auto right = at::tensor({-1.f, 0.f, 1.f, -2.f, 0.f, 2.f, -1.f, 0.f, 1.f}).view({3, 3});
  auto kernel = at::stack({right, right.t()}).unsqueeze(1);
  return at::conv2d(at::replication_pad2d(x, {1, 1, 1, 1}), kernel);
}

/// One picture's magnitudes with a border of one pixel that has no slope.
struct Ridge {
  const float* magnitude;  // [H + 2, W + 2]
  std::int64_t width;

  float at(std::int64_t y, std::int64_t x) const {
    return magnitude[(y + 1) * (width + 2) + x + 1];
  }
};

/// Is the pixel higher than its two neighbours along the slope? Of two equal ones beside or above
/// each other the left or upper one is.
bool is_ridge(const Ridge& ridge, std::int64_t y, std::int64_t x, float right, float down) {
  // Neighbours from the right one on, clockwise.
  static constexpr int steps[8][2] = {{0, 1},  {1, 1},   {1, 0},  {1, -1},
                                      {0, -1}, {-1, -1}, {-1, 0}, {-1, 1}};
  auto angle = std::nearbyint(std::atan2(down, right) * (4.0f / std::numbers::pi_v<float>));
  auto ahead = (static_cast<int>(angle) + 8) % 8;
  auto own = ridge.at(y, x);
  for (int direction : {ahead, (ahead + 4) % 8}) {
    auto other = ridge.at(y + steps[direction][0], x + steps[direction][1]);
    bool tie_is_fine = direction == 0 || direction == 2;
    if (own < other || (own == other && !tie_is_fine)) return false;
  }
  return own > ridge.magnitude[0];
}

/// From strong pixels (2) through weak ones (1) that touch them; edges get 1, the rest 0.
void follow(std::vector<std::uint8_t>& levels, std::int64_t height, std::int64_t width,
            float* edges) {
  std::vector<std::int64_t> open;
  auto take = [&](std::int64_t place) {
    levels[static_cast<std::size_t>(place)] = 0;
    edges[place] = 1.0f;
    open.push_back(place);
  };
  for (std::int64_t start = 0; start < height * width; ++start) {
    if (levels[static_cast<std::size_t>(start)] != 2) continue;
    take(start);
    while (!open.empty()) {
      auto place = open.back();
      open.pop_back();
      auto y = place / width, x = place % width;
      for (auto ny = std::max<std::int64_t>(0, y - 1); ny <= std::min(height - 1, y + 1); ++ny)
        for (auto nx = std::max<std::int64_t>(0, x - 1); nx <= std::min(width - 1, x + 1); ++nx)
          if (levels[static_cast<std::size_t>(ny * width + nx)] != 0) take(ny * width + nx);
    }
  }
}

}  // namespace

Tensor canny_edges(const Tensor& image, double low, double high) {
  auto gradient = slopes(blurred(to_gray(image))).contiguous();
  auto padded = at::constant_pad_nd(gradient, {1, 1, 1, 1});
  auto magnitude = at::sqrt(padded.select(1, 0) * padded.select(1, 0) +
                            padded.select(1, 1) * padded.select(1, 1) + 1e-6)
                       .contiguous();
  auto height = image.size(1), width = image.size(2);
  auto edges = at::zeros({image.size(0), height, width}, at::kFloat);
  for (std::int64_t b = 0; b < image.size(0); ++b) {
    auto right = gradient[b][0], down = gradient[b][1], own = magnitude[b];
    const auto* gx = right.const_data_ptr<float>();
    const auto* gy = down.const_data_ptr<float>();
    Ridge ridge{own.const_data_ptr<float>(), width};
    std::vector<std::uint8_t> levels(static_cast<std::size_t>(height * width));
    for (std::int64_t y = 0; y < height; ++y)
      for (std::int64_t x = 0; x < width; ++x) {
        auto place = y * width + x;
        auto value = ridge.at(y, x);
        if (value <= static_cast<float>(low) || !is_ridge(ridge, y, x, gx[place], gy[place]))
          continue;
        levels[static_cast<std::size_t>(place)] = value > static_cast<float>(high) ? 2 : 1;
      }
    follow(levels, height, width, edges[b].mutable_data_ptr<float>());
  }
  return edges;
}

}  // namespace distorch::nodes
