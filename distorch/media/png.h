#pragma once
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "distorch/media/image.h"

namespace distorch::media {

/// A text that travels inside a picture; both in UTF-8.
struct Text {
  std::string keyword;  // 1..79 bytes
  std::string value;
  bool operator==(const Text&) const = default;
};

struct PngOptions {
  int compression = 4;      // zlib 0..9; ComfyUI saves with 4 and previews with 1
  std::vector<Text> texts;  // in this order, before the pixel data
};

/// A PNG of 8 bits a channel (gray, RGB, RGBA). ASCII texts become tEXt chunks, which is what
/// ComfyUI's page and Pillow read back (so write JSON with non-ASCII characters escaped); others
/// become iTXt. Error(Usage) for a bad keyword.
std::string encode_png(const Image& image, const PngOptions& options = {});

/// The same with 16 bits a channel; `values` as Image::pixels lie.
std::string encode_png16(std::span<const std::uint16_t> values, int width, int height, int channels,
                         const PngOptions& options = {});

/// encode_png() into a file that appears whole or not at all.
void write_png(const std::filesystem::path& path, const Image& image,
               const PngOptions& options = {});

/// Any bit depth, colour type and interlacing becomes 8-bit RGB, or RGBA where the file has an
/// alpha channel or a palette with transparency. 16 bits keep their upper byte, as in Pillow.
/// `where` names the file in errors. No EXIF turn here.
Image decode_png(std::string_view bytes, const std::string& where);

bool is_png(std::string_view bytes);

/// All tEXt, zTXt and iTXt chunks in file order, without decoding pixels. Chunks that lie (length,
/// checksum, compression, more than 64 MiB of text) are left out; a file cut short gives the texts
/// before the cut. Error(Format) only if this is no PNG at all.
std::vector<Text> png_texts(std::string_view bytes, const std::string& where);
std::vector<Text> read_png_texts(const std::filesystem::path& path);

/// The content of the eXIf chunk, if there is one.
std::optional<std::string> png_exif(std::string_view bytes);

}  // namespace distorch::media
