#pragma once
#include <map>
#include <string>
#include <string_view>

namespace distorch::media {

/// What we use of an EXIF block.
struct Exif {
  int orientation = 1;  // 1..8; 1 is upright
  // ASCII values of the first directory by tag number (0x010f Make, 0x0110 Model, ...)
  std::map<int, std::string> texts;
};

/// Reads the first directory of a TIFF structure; whatever lies outside of `block` or makes no
/// sense is left out. A leading "Exif\0\0" is skipped. Never throws Error.
Exif parse_exif(std::string_view block);

/// A block with these texts in its first directory, big-endian, with "Exif\0\0" before it: what
/// Pillow writes.
std::string exif_block(const std::map<int, std::string>& texts);

}  // namespace distorch::media
