#include "distorch/models/pulid_faces/geometry.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace distorch::models::pulid_faces {

using at::Tensor;

std::vector<FoundFace> without_overlaps(std::vector<FoundFace> faces, float most, float edge) {
  std::stable_sort(faces.begin(), faces.end(),
                   [](const FoundFace& a, const FoundFace& b) { return a.score > b.score; });
  auto area = [edge](const FoundFace& f) {
    return (f.right - f.left + edge) * (f.bottom - f.top + edge);
  };
  std::vector<FoundFace> kept;
  for (const auto& face : faces) {
    const bool hidden = std::any_of(kept.begin(), kept.end(), [&](const FoundFace& better) {
      const float width = std::max(0.f, std::min(face.right, better.right) -
                                            std::max(face.left, better.left) + edge),
                  height = std::max(0.f, std::min(face.bottom, better.bottom) -
                                             std::max(face.top, better.top) + edge);
      const float common = width * height;
      return common / (area(face) + area(better) - common) > most;
    });
    if (!hidden) kept.push_back(face);
  }
  return kept;
}

Similarity similarity(const std::vector<Point>& from, const std::vector<Point>& to) {
  const auto count = static_cast<double>(from.size());
  Point p, q;  // the means
  for (std::size_t i = 0; i < from.size(); ++i) {
    p = {p.x + from[i].x / count, p.y + from[i].y / count};
    q = {q.x + to[i].x / count, q.y + to[i].y / count};
  }
  double along = 0, across = 0, spread = 0;
  for (std::size_t i = 0; i < from.size(); ++i) {
    const Point f{from[i].x - p.x, from[i].y - p.y}, t{to[i].x - q.x, to[i].y - q.y};
    along += f.x * t.x + f.y * t.y;
    across += f.x * t.y - f.y * t.x;
    spread += f.x * f.x + f.y * f.y;
  }
  Similarity s;
  if (spread > 0) {
    s.a = along / spread;
    s.b = across / spread;
  }
  s.c = q.x - s.a * p.x + s.b * p.y;
  s.d = q.y - s.b * p.x - s.a * p.y;
  return s;
}

Similarity robust_similarity(const Landmarks& from, const Landmarks& to) {
  constexpr std::size_t count = 5, middle = count / 2, sampled = 2;
  auto errors = [&](const Similarity& s) {
    std::array<double, count> squares{};
    for (std::size_t i = 0; i < count; ++i) {
      const auto p = s(from[i]);
      squares[i] = (p.x - to[i].x) * (p.x - to[i].x) + (p.y - to[i].y) * (p.y - to[i].y);
    }
    return squares;
  };
  double least = std::numeric_limits<double>::infinity();
  Similarity best;
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t j = i + 1; j < count; ++j) {
      const auto s = similarity({from[i], from[j]}, {to[i], to[j]});
      auto sorted = errors(s);
      std::sort(sorted.begin(), sorted.end());
      if (sorted[middle] < least) {
        least = sorted[middle];
        best = s;
      }
    }
  // What lies within so many deviations, as OpenCV's LMeDS takes it.
  const double near = std::max(
      2.5 * 1.4826 * (1 + 5.0 / static_cast<double>(count - sampled)) * std::sqrt(least), 0.001);
  std::vector<Point> near_from, near_to;
  const auto squares = errors(best);
  for (std::size_t i = 0; i < count; ++i)
    if (squares[i] <= near * near) {
      near_from.push_back(from[i]);
      near_to.push_back(to[i]);
    }
  return similarity(near_from, near_to);
}

Tensor moved(const Tensor& picture, const Similarity& by, std::int64_t size,
             std::array<float, 3> border) {
  const auto source = picture.contiguous();
  const auto height = source.size(0), width = source.size(1);
  auto result = at::empty({size, size, 3}, at::TensorOptions(at::kByte));
  const auto* in = source.const_data_ptr<std::uint8_t>();
  auto* out = result.mutable_data_ptr<std::uint8_t>();
  const double scale = by.a * by.a + by.b * by.b;
  if (!(scale > 0)) return result.copy_(at::tensor(at::ArrayRef<float>(border)).round());
  const double a = by.a / scale, b = -by.b / scale;  // back from the result to the picture
  const double c = -a * by.c + b * by.d, d = -b * by.c - a * by.d;
  for (std::int64_t y = 0; y < size; ++y)
    for (std::int64_t x = 0; x < size; ++x, out += 3) {
      const auto fx = static_cast<double>(x), fy = static_cast<double>(y);
      const auto u = static_cast<float>(a * fx - b * fy + c),
                 v = static_cast<float>(b * fx + a * fy + d);
      constexpr float far = 1e9f;
      if (!(std::abs(u) < far && std::abs(v) < far)) {
        for (int k = 0; k < 3; ++k)
          out[k] = static_cast<std::uint8_t>(border[static_cast<std::size_t>(k)]);
        continue;
      }
      const auto left = static_cast<std::int64_t>(std::floor(u)),
                 top = static_cast<std::int64_t>(std::floor(v));
      const float right_share = u - static_cast<float>(left),
                  lower_share = v - static_cast<float>(top);
      auto at = [&](std::int64_t row, std::int64_t column, int channel) {
        return row < 0 || column < 0 || row >= height || column >= width
                   ? border[static_cast<std::size_t>(channel)]
                   : static_cast<float>(in[(row * width + column) * 3 + channel]);
      };
      for (int k = 0; k < 3; ++k) {
        const float upper =
                        at(top, left, k) + (at(top, left + 1, k) - at(top, left, k)) * right_share,
                    lower = at(top + 1, left, k) +
                            (at(top + 1, left + 1, k) - at(top + 1, left, k)) * right_share;
        out[k] = static_cast<std::uint8_t>(
            std::clamp(std::nearbyint(upper + (lower - upper) * lower_share), 0.f, 255.f));
      }
    }
  return result;
}

namespace {

/// Where a pixel of the result lies between two of the picture, and how much of each it takes, in
/// parts of 2048.
struct Tap {
  std::int64_t first = 0, second = 0;
  std::int32_t first_share = 0, second_share = 0;
};

std::vector<Tap> taps(std::int64_t from, std::int64_t to) {
  const double step = static_cast<double>(from) / static_cast<double>(to);
  std::vector<Tap> list(static_cast<std::size_t>(to));
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto place = static_cast<float>((static_cast<double>(i) + 0.5) * step - 0.5);
    auto first = static_cast<std::int64_t>(std::floor(place));
    float share = place - static_cast<float>(first);
    if (first < 0 || first >= from - 1) {
      first = std::clamp<std::int64_t>(first, 0, from - 1);
      share = 0;
    }
    list[i] = {first, std::min(first + 1, from - 1),
               static_cast<std::int32_t>(std::nearbyint((1 - share) * 2048)),
               static_cast<std::int32_t>(std::nearbyint(share * 2048))};
  }
  return list;
}

}  // namespace

// In whole numbers, as OpenCV does it: networks see its pixels to the last bit, nearly everywhere.
Tensor resized_bytes(const Tensor& picture, std::int64_t height, std::int64_t width) {
  if (picture.size(0) == height && picture.size(1) == width) return picture;
  const auto source = picture.contiguous();
  const auto* in = source.const_data_ptr<std::uint8_t>();
  const auto rows = taps(picture.size(0), height), columns = taps(picture.size(1), width);
  const auto line = picture.size(1) * 3;
  auto result = at::empty({height, width, 3}, at::TensorOptions(at::kByte));
  auto* out = result.mutable_data_ptr<std::uint8_t>();
  for (const auto& row : rows)
    for (const auto& column : columns)
      for (std::int64_t k = 0; k < 3; ++k) {
        auto across = [&](std::int64_t y) {
          const auto* pixels = in + y * line + k;
          return pixels[column.first * 3] * column.first_share +
                 pixels[column.second * 3] * column.second_share;
        };
        const auto upper = (row.first_share * (across(row.first) >> 4)) >> 16,
                   lower = (row.second_share * (across(row.second) >> 4)) >> 16;
        *out++ = static_cast<std::uint8_t>(std::clamp((upper + lower + 2) >> 2, 0, 255));
      }
  return result;
}

}  // namespace distorch::models::pulid_faces
