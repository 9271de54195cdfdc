#include "distorch/media/picture_size.h"

#include <webp/decode.h>

#include "distorch/media/bmp.h"
#include "distorch/media/gif.h"
#include "distorch/media/jpeg.h"
#include "distorch/media/png.h"
#include "distorch/media/webp.h"

namespace distorch::media {

namespace {

std::uint64_t byte_at(std::string_view bytes, std::size_t at) {
  return static_cast<unsigned char>(bytes[at]);
}

std::uint64_t big_endian(std::string_view bytes, std::size_t at, int count) {
  std::uint64_t value = 0;
  for (int i = 0; i < count; ++i) value = value << 8 | byte_at(bytes, at + i);
  return value;
}

std::uint64_t little_endian(std::string_view bytes, std::size_t at, int count) {
  std::uint64_t value = 0;
  for (int i = count; i-- > 0;) value = value << 8 | byte_at(bytes, at + i);
  return value;
}

/// Walks the segments up to the first frame header (SOF0 to SOF15, less the tables among them).
std::optional<PictureSize> jpeg_size(std::string_view bytes) {
  std::size_t at = 2;
  while (at + 4 <= bytes.size()) {
    if (byte_at(bytes, at) != 0xff) return {};
    auto marker = byte_at(bytes, at + 1);
    if (marker == 0xff) {
      ++at;
      continue;
    }
    if (marker == 0xda || marker == 0xd9) return {};
    bool alone = marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8);
    if (alone) {
      at += 2;
      continue;
    }
    auto length = big_endian(bytes, at + 2, 2);
    if (length < 2) return {};
    bool frame =
        marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
    if (frame) {
      if (length < 7 || at + 9 > bytes.size()) return {};
      return PictureSize{big_endian(bytes, at + 7, 2), big_endian(bytes, at + 5, 2)};
    }
    at += 2 + length;
  }
  return {};
}

std::optional<PictureSize> webp_size(std::string_view bytes) {
  int width = 0, height = 0;
  auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
  if (!WebPGetInfo(data, bytes.size(), &width, &height)) return {};
  return PictureSize{static_cast<std::uint64_t>(width), static_cast<std::uint64_t>(height)};
}

/// Its rows may run upwards: then the height is negative.
std::optional<PictureSize> bmp_size(std::string_view bytes) {
  if (bytes.size() < 26) return {};
  if (little_endian(bytes, 14, 4) == 12)
    return PictureSize{little_endian(bytes, 18, 2), little_endian(bytes, 20, 2)};
  auto signed_size = [&](std::size_t at) {
    auto value = static_cast<std::int32_t>(little_endian(bytes, at, 4));
    return static_cast<std::uint64_t>(value < 0 ? -static_cast<std::int64_t>(value) : value);
  };
  return PictureSize{signed_size(18), signed_size(22)};
}

}  // namespace

std::optional<PictureSize> picture_size(std::string_view bytes) {
  if (is_png(bytes)) {
    if (bytes.size() < 24 || bytes.substr(12, 4) != "IHDR") return {};
    return PictureSize{big_endian(bytes, 16, 4), big_endian(bytes, 20, 4)};
  }
  if (is_jpeg(bytes)) return jpeg_size(bytes);
  if (is_webp(bytes)) return webp_size(bytes);
  if (is_gif(bytes)) {
    if (bytes.size() < 10) return {};
    return PictureSize{little_endian(bytes, 6, 2), little_endian(bytes, 8, 2)};
  }
  if (is_bmp(bytes)) return bmp_size(bytes);
  return {};
}

}  // namespace distorch::media
