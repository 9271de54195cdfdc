#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace distorch::media {

struct PictureSize {
  std::uint64_t width = 0;
  std::uint64_t height = 0;
  bool operator==(const PictureSize&) const = default;
};

/// The size that a picture's header claims, without decoding a pixel: PNG, JPEG, WebP, GIF, BMP.
/// Nothing for other formats and for headers that are broken or cut short.
std::optional<PictureSize> picture_size(std::string_view bytes);

}  // namespace distorch::media
