#pragma once
#include <string>
#include <string_view>

#include "distorch/media/image.h"

namespace distorch::media {

bool is_bmp(std::string_view bytes);

/// BMP of OS/2 and Windows: 1, 4 and 8 bits with palette (also run-length coded), 16, 24 and 32
/// bits. RGBA only where the header names a mask for alpha: the fourth byte of plain 32 bits is
/// padding. Source: the headers as Microsoft documents them (BITMAPINFOHEADER and its successors).
Image decode_bmp(std::string_view bytes, const std::string& where);

}  // namespace distorch::media
