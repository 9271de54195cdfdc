#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "distorch/media/image.h"

namespace distorch::server {

/// More pixels than this are not decoded for a client: twice what the largest cameras make, and
/// where Pillow, too, speaks of a decompression bomb.
inline constexpr std::uint64_t kDecodedPixels = 178'956'970;

/// A picture from a client or of the user's folders, upright, as media::decode_image() gives it.
/// Few are decoded at the same time; others wait, so that memory stays bounded. Error(Format): no
/// picture, a broken one, or one whose header claims more than kDecodedPixels.
media::Image decoded_picture(std::string_view bytes, const std::string& where);

/// The same from a file. Error(Format) also for files above 1 GiB.
media::Image decoded_picture_file(const std::filesystem::path& file);

}  // namespace distorch::server
