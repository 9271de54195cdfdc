#include "distorch/media/palette.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <map>
#include <unordered_map>

#include "distorch/base/error.h"

namespace distorch::media {

namespace {

constexpr std::size_t kColours = 256;

/// How much of a colour's error a neighbour gets.
struct Share {
  int x, y, weight;
};
struct Kernel {
  int divisor;
  std::vector<Share> shares;
};

const std::map<std::string, Kernel>& kernels() {
  static const std::map<std::string, Kernel> all = {
      {"none", {1, {}}},
      {"heckbert", {8, {{1, 0, 3}, {0, 1, 3}, {1, 1, 2}}}},
      {"floyd_steinberg", {16, {{1, 0, 7}, {-1, 1, 3}, {0, 1, 5}, {1, 1, 1}}}},
      {"sierra2",
       {16, {{1, 0, 4}, {2, 0, 3}, {-2, 1, 1}, {-1, 1, 2}, {0, 1, 3}, {1, 1, 2}, {2, 1, 1}}}},
      {"sierra2_4a", {4, {{1, 0, 2}, {-1, 1, 1}, {0, 1, 1}}}},
      {"sierra3",
       {32,
        {{1, 0, 5},
         {2, 0, 3},
         {-2, 1, 2},
         {-1, 1, 4},
         {0, 1, 5},
         {1, 1, 4},
         {2, 1, 2},
         {-1, 2, 2},
         {0, 2, 3},
         {1, 2, 2}}}},
      {"burkes",
       {32, {{1, 0, 8}, {2, 0, 4}, {-2, 1, 2}, {-1, 1, 4}, {0, 1, 8}, {1, 1, 4}, {2, 1, 2}}}},
      {"atkinson", {8, {{1, 0, 1}, {2, 0, 1}, {-1, 1, 1}, {0, 1, 1}, {1, 1, 1}, {0, 2, 1}}}},
  };
  return all;
}

/// Colours of a cube of 8 x 8 x 8 colours are counted together.
struct Counted {
  std::uint64_t count = 0;
  std::array<std::uint64_t, 3> sum{};

  double mean(int channel) const {
    return static_cast<double>(sum[static_cast<std::size_t>(channel)]) / static_cast<double>(count);
  }
};

using Box = std::vector<Counted>;

/// The channel in which a box's colours differ most, and by how much, weighed by the eye.
std::pair<int, double> longest(const Box& box) {
  constexpr double weights[] = {1.2, 1.5, 1.0};
  int channel = 0;
  double most = -1;
  for (int c = 0; c < 3; ++c) {
    auto [low, high] = std::minmax_element(
        box.begin(), box.end(),
        [c](const Counted& a, const Counted& b) { return a.mean(c) < b.mean(c); });
    auto length = (high->mean(c) - low->mean(c)) * weights[c];
    if (length > most) {
      most = length;
      channel = c;
    }
  }
  return {channel, most};
}

std::uint64_t count_of(const Box& box) {
  std::uint64_t count = 0;
  for (const auto& colour : box) count += colour.count;
  return count;
}

/// Halves a box so that both parts stand for as many pixels.
Box split(Box& box) {
  int channel = longest(box).first;
  std::sort(box.begin(), box.end(), [channel](const Counted& a, const Counted& b) {
    return a.mean(channel) < b.mean(channel);
  });
  auto half = count_of(box) / 2;
  std::uint64_t count = 0;
  std::size_t at = 0;
  while (at + 1 < box.size() && (at == 0 || count + box[at].count <= half))
    count += box[at++].count;
  Box upper(box.begin() + static_cast<std::ptrdiff_t>(at), box.end());
  box.resize(at);
  return upper;
}

PaletteColour mean_of(const Box& box) {
  PaletteColour colour{};
  auto count = count_of(box);
  for (std::size_t c = 0; c < 3; ++c) {
    std::uint64_t sum = 0;
    for (const auto& counted : box) sum += counted.sum[c];
    colour[c] = static_cast<std::uint8_t>((sum + count / 2) / count);
  }
  return colour;
}

std::vector<PaletteColour> median_cut(std::vector<Box> boxes) {
  while (boxes.size() < kColours) {
    std::size_t widest = 0;
    double most = 0;
    for (std::size_t i = 0; i < boxes.size(); ++i) {
      if (boxes[i].size() < 2) continue;
      auto weight = longest(boxes[i]).second * static_cast<double>(count_of(boxes[i]));
      if (weight > most) {
        most = weight;
        widest = i;
      }
    }
    if (most == 0) break;
    auto upper = split(boxes[widest]);
    boxes.push_back(std::move(upper));
  }
  std::vector<PaletteColour> palette;
  for (const auto& box : boxes) palette.push_back(mean_of(box));
  return palette;
}

std::uint32_t key_of(const std::uint8_t* pixel) {
  return static_cast<std::uint32_t>(pixel[0]) << 16 | static_cast<std::uint32_t>(pixel[1]) << 8 |
         pixel[2];
}

/// The nearest colours: of a colour of the palette itself, of others that of the middle of their cube
/// of 4 x 4 x 4 colours, looked for once.
class Nearest {
 public:
  explicit Nearest(const std::vector<PaletteColour>& palette)
      : palette_(palette), cubes_(std::size_t{1} << 18, unknown) {
    for (std::size_t i = palette.size(); i-- > 0;)
      exact_[key_of(palette[i].data())] = static_cast<std::uint8_t>(i);
  }

  std::uint8_t operator()(const std::uint8_t* pixel) {
    if (auto found = exact_.find(key_of(pixel)); found != exact_.end()) return found->second;
    auto& cube = cubes_[static_cast<std::size_t>((pixel[0] >> 2) << 12 | (pixel[1] >> 2) << 6 |
                                                 pixel[2] >> 2)];
    if (cube == unknown)
      cube = nearest({(pixel[0] & 0xfc) + 2, (pixel[1] & 0xfc) + 2, (pixel[2] & 0xfc) + 2});
    return static_cast<std::uint8_t>(cube);
  }

 private:
  static constexpr std::int16_t unknown = -1;

  std::int16_t nearest(const std::array<int, 3>& colour) const {
    int best = std::numeric_limits<int>::max();
    std::int16_t index = 0;
    for (std::size_t i = 0; i < palette_.size(); ++i) {
      int distance = 0;
      for (std::size_t c = 0; c < 3; ++c) {
        int difference = colour[c] - palette_[i][c];
        distance += difference * difference;
      }
      if (distance >= best) continue;
      best = distance;
      index = static_cast<std::int16_t>(i);
    }
    return index;
  }

  const std::vector<PaletteColour>& palette_;
  std::unordered_map<std::uint32_t, std::uint8_t> exact_;
  std::vector<std::int16_t> cubes_;
};

std::uint8_t clipped(int value) { return static_cast<std::uint8_t>(std::clamp(value, 0, 255)); }

/// Adds a pattern of 8 x 8 thresholds, at most half a step of a palette of even steps.
Image with_pattern(Image picture) {
  for (int y = 0; y < picture.height; ++y)
    for (int x = 0; x < picture.width; ++x) {
      // Bits of x ^ y and of x, interleaved from the lowest up.
      unsigned both = static_cast<unsigned>(x ^ y), value = 0;
      for (unsigned bit = 0; bit < 3; ++bit)
        value |= (both >> bit & 1u) << (5 - 2 * bit) | (static_cast<unsigned>(x) >> bit & 1u)
                                                           << (4 - 2 * bit);
      int shift = (static_cast<int>(value) - 32) / 4;
      auto* pixel = &picture.pixels[static_cast<std::size_t>(y) * picture.row_bytes() +
                                    static_cast<std::size_t>(x) * 3];
      for (int c = 0; c < 3; ++c) pixel[c] = clipped(pixel[c] + shift);
    }
  return picture;
}

}  // namespace

std::vector<PaletteColour> palette_of(std::span<const Image> pictures) {
  std::map<std::uint32_t, PaletteColour> exact;
  std::vector<Counted> cubes(std::size_t{1} << 15);
  for (const auto& picture : pictures)
    for (std::size_t i = 0; i + 2 < picture.pixels.size(); i += 3) {
      const auto* pixel = &picture.pixels[i];
      if (exact.size() <= kColours)
        exact.try_emplace(key_of(pixel), PaletteColour{pixel[0], pixel[1], pixel[2]});
      auto& cube = cubes[static_cast<std::size_t>((pixel[0] >> 3) << 10 | (pixel[1] >> 3) << 5 |
                                                  pixel[2] >> 3)];
      ++cube.count;
      for (std::size_t c = 0; c < 3; ++c) cube.sum[c] += pixel[c];
    }
  if (exact.size() <= kColours) {
    std::vector<PaletteColour> palette;
    for (const auto& [key, colour] : exact) palette.push_back(colour);
    return palette;
  }
  std::erase_if(cubes, [](const Counted& cube) { return cube.count == 0; });
  return median_cut({std::move(cubes)});
}

std::vector<std::string> dither_names() {
  std::vector<std::string> names = {"bayer"};
  for (const auto& [name, kernel] : kernels()) names.push_back(name);
  return names;
}

std::vector<std::uint8_t> indices_of(const Image& picture,
                                     const std::vector<PaletteColour>& palette,
                                     const std::string& dither) {
  bool pattern = dither == "bayer";
  auto kernel = kernels().find(pattern ? "none" : dither);
  if (kernel == kernels().end())
    throw Error(ErrorKind::Usage, "dither",
                fmt::format("'{}' is none of {}", dither, fmt::join(dither_names(), ", ")));
  auto spread = pattern ? with_pattern(picture) : picture;
  Nearest nearest(palette);
  std::vector<std::uint8_t> indices(static_cast<std::size_t>(picture.width) *
                                    static_cast<std::size_t>(picture.height));
  auto place = [&](int x, int y) {
    return static_cast<std::size_t>(y) * spread.row_bytes() + static_cast<std::size_t>(x) * 3;
  };
  for (int y = 0; y < spread.height; ++y)
    for (int x = 0; x < spread.width; ++x) {
      const auto* pixel = &spread.pixels[place(x, y)];
      auto index = nearest(pixel);
      indices[static_cast<std::size_t>(y) * static_cast<std::size_t>(spread.width) +
              static_cast<std::size_t>(x)] = index;
      for (const auto& share : kernel->second.shares) {
        int to_x = x + share.x, to_y = y + share.y;
        if (to_x < 0 || to_x >= spread.width || to_y >= spread.height) continue;
        auto* target = &spread.pixels[place(to_x, to_y)];
        for (std::size_t c = 0; c < 3; ++c) {
          int error = static_cast<int>(pixel[c]) - palette[index][c];
          target[c] = clipped(target[c] + error * share.weight / kernel->second.divisor);
        }
      }
    }
  return indices;
}

}  // namespace distorch::media
