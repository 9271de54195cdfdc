#include "distorch/models/qwen_image/tokens.h"

#include <algorithm>

#include "distorch/models/whole_patches.h"

namespace distorch::models::qwen_image {

using at::Tensor;

namespace {

std::int64_t in_tokens(std::int64_t cells) { return (cells + kPatch / 2) / kPatch; }

/// Where a picture's first token stands: on the time axis, and rows and columns from the middle.
struct Place {
  std::int64_t time = 0, row = 0, column = 0;
};

Tensor positions(const Grid& grid, const Place& place, at::Device device) {
  auto options = at::TensorOptions().device(device).dtype(at::kFloat);
  auto along = [&](std::int64_t start, std::int64_t count) {
    return at::arange(start, start + count, options);
  };
  auto shape = std::vector<std::int64_t>{grid.frames, grid.rows, grid.columns};
  auto time = along(grid.frames > 1 ? 0 : place.time, grid.frames).view({-1, 1, 1});
  auto row = along(place.row - grid.rows / 2, grid.rows).view({1, -1, 1});
  auto column = along(place.column - grid.columns / 2, grid.columns).view({1, 1, -1});
  return at::stack({time.expand(shape), row.expand(shape), column.expand(shape)}, -1)
      .reshape({1, grid.tokens(), 3});
}

/// The places of reference pictures one after the other.
class Places {
 public:
  explicit Places(ReferenceMethod method) : method_(method) {}

  Place next(at::IntArrayRef latent) {
    if (method_ == ReferenceMethod::NegativeIndex) return {--time_, 0, 0};
    if (method_ != ReferenceMethod::Offset) return {++time_, 0, 0};
    auto height = latent[latent.size() - 2], width = latent[latent.size() - 1];
    Place place{1, 0, 0};
    // Below what is there so far or right of it, whichever grows less; in cells.
    bool right = height + height_ > width + width_;
    (right ? place.column : place.row) = right ? width_ : height_;
    height_ = std::max(height_, height + place.row);
    width_ = std::max(width_, width + place.column);
    return {place.time, in_tokens(place.row), in_tokens(place.column)};
  }

 private:
  ReferenceMethod method_;
  std::int64_t time_ = 0, height_ = 0, width_ = 0;
};

}  // namespace

Grid grid_of(at::IntArrayRef latent) {
  return {latent[2], in_tokens(latent[3]), in_tokens(latent[4])};
}

Tensor to_tokens(const Tensor& latent) { return patches_as_tokens(latent, kPatch); }

Tensor to_latent(const Tensor& tokens, at::IntArrayRef latent) {
  auto grid = grid_of(latent);
  auto channels = tokens.size(2) / (kPatch * kPatch);
  return tokens
      .reshape({tokens.size(0), grid.frames, grid.rows, grid.columns, channels, kPatch, kPatch})
      .permute({0, 4, 1, 2, 5, 3, 6})
      .reshape({tokens.size(0), channels, grid.frames, grid.rows * kPatch, grid.columns * kPatch})
      .narrow(3, 0, latent[3])
      .narrow(4, 0, latent[4]);
}

Tensor image_positions(at::IntArrayRef latent,
                       const std::vector<std::vector<std::int64_t>>& references,
                       ReferenceMethod method, at::Device device) {
  std::vector<Tensor> all = {positions(grid_of(latent), {}, device)};
  Places places(method);
  for (const auto& reference : references)
    all.push_back(positions(grid_of(reference), places.next(reference), device));
  return at::cat(all, 1);
}

Tensor text_positions(at::IntArrayRef latent, std::int64_t tokens, at::Device device) {
  auto grid = grid_of(latent);
  auto start = std::max(grid.rows / 2, grid.columns / 2);
  return at::arange(start, start + tokens, at::TensorOptions().device(device).dtype(at::kFloat))
      .view({1, -1, 1})
      .expand({1, tokens, 3});
}

}  // namespace distorch::models::qwen_image
