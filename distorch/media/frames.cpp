#include "distorch/media/frames.h"

#include <fmt/format.h>

#include "distorch/base/error.h"

namespace distorch::media {

void FrameBudget::add(std::uint64_t width, std::uint64_t height) {
  check_size(width, height, where_);
  pixels_ += static_cast<std::size_t>(width * height);
  if (pixels_ > frames_pixel_limit)
    throw Error(ErrorKind::Format, where_,
                fmt::format("has frames of more than {} pixels in all", frames_pixel_limit));
}

}  // namespace distorch::media
