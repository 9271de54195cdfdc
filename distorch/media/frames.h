#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "distorch/media/image.h"

namespace distorch::media {

/// Takes the frames of a picture one after the other; false: no more are wanted.
using TakeFrame = std::function<bool(Image frame)>;

/// All frames of one picture together have at most this many pixels.
inline constexpr std::size_t frames_pixel_limit = std::size_t{1} << 30;

/// Counts what a picture's frames take, so that a small file cannot ask for all memory.
class FrameBudget {
 public:
  explicit FrameBudget(std::string where) : where_(std::move(where)) {}
  /// Before a frame is decoded. Error(Format) where its size is empty or above pixel_limit, or all
  /// frames so far have more than frames_pixel_limit.
  void add(std::uint64_t width, std::uint64_t height);

 private:
  std::string where_;
  std::size_t pixels_ = 0;
};

/// a * b / 255, rounded: how 8-bit values are blended everywhere here.
constexpr std::uint8_t scaled_by(unsigned a, unsigned b) {
  auto product = a * b + 128;
  return static_cast<std::uint8_t>((product + (product >> 8)) >> 8);
}

}  // namespace distorch::media
