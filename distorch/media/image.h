#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace distorch::media {

/// A picture of 8 bits a channel: rows from the top, pixels from the left, channels interleaved, no
/// padding.
struct Image {
  int width = 0;
  int height = 0;
  int channels = 0;                  // 1 gray, 3 RGB, 4 RGBA (alpha not multiplied in)
  std::vector<std::uint8_t> pixels;  // height * width * channels

  std::size_t row_bytes() const {
    return static_cast<std::size_t>(width) * static_cast<std::size_t>(channels);
  }
  bool operator==(const Image&) const = default;
};

/// More pixels than this are refused when reading, before memory is taken.
inline constexpr std::size_t pixel_limit = std::size_t{1} << 28;

/// An image of zeros. Error(Usage) for sizes < 1, channels other than 1, 3, 4, or more pixels than
/// the limit.
Image blank_image(int width, int height, int channels);

/// 0..1 floats [height, width, channels] to 8 bits as ComfyUI saves them: value * 255, clipped to
/// 0..255, truncated (not rounded); NaN becomes 0. `values` holds exactly height * width * channels
/// numbers, else Error(Shape).
Image from_floats(std::span<const float> values, int width, int height, int channels);

/// 8 bits to floats [height, width, channels]: value / 255.
std::vector<float> to_floats(const Image& image);

/// Gray becomes RGB, alpha is dropped without blending (as ComfyUI's loader does).
Image to_rgb(Image image);

/// Turns and mirrors a picture upright. `orientation` is the EXIF value 1..8; any other changes
/// nothing.
Image upright(Image image, int orientation);

/// Error(Format, where) if a file claims a size that is empty or above the limit.
void check_size(std::uint64_t width, std::uint64_t height, const std::string& where);

}  // namespace distorch::media
