#include "distorch/media/tiff.h"

#include <fmt/format.h>
#include <tiffio.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>

#include "distorch/base/error.h"

namespace distorch::media {

namespace {

constexpr tmsize_t largest_allocation = tmsize_t{1} << 31;  // bytes; what libtiff may ask at once

/// What libtiff reads from, and what it had to say.
struct Source {
  std::string_view bytes;
  std::size_t at = 0;
  std::string message;
};

Source& source_of(thandle_t handle) { return *static_cast<Source*>(handle); }

tmsize_t give_bytes(thandle_t handle, void* to, tmsize_t count) {
  auto& source = source_of(handle);
  if (source.at >= source.bytes.size() || count <= 0) return 0;
  auto size = std::min(source.bytes.size() - source.at, static_cast<std::size_t>(count));
  std::memcpy(to, source.bytes.data() + source.at, size);
  source.at += size;
  return static_cast<tmsize_t>(size);
}

tmsize_t take_nothing(thandle_t, void*, tmsize_t) { return 0; }

toff_t go_to(thandle_t handle, toff_t offset, int from) {
  auto& source = source_of(handle);
  if (from == SEEK_CUR) offset += source.at;
  if (from == SEEK_END) offset += source.bytes.size();
  source.at = static_cast<std::size_t>(offset);
  return offset;
}

int close_nothing(thandle_t) { return 0; }

toff_t size_of(thandle_t handle) { return source_of(handle).bytes.size(); }

int keep_message(TIFF*, void* user, const char*, const char* format, std::va_list values) {
  char text[512];
  std::vsnprintf(text, sizeof text, format, values);
  auto& message = static_cast<Source*>(user)->message;
  if (message.empty()) message = text;
  return 1;
}

int no_warning(TIFF*, void*, const char*, const char*, std::va_list) { return 1; }

using Handle = std::unique_ptr<TIFF, decltype(&TIFFClose)>;

Handle opened(Source& source) {
  std::unique_ptr<TIFFOpenOptions, decltype(&TIFFOpenOptionsFree)> options(TIFFOpenOptionsAlloc(),
                                                                           TIFFOpenOptionsFree);
  TIFFOpenOptionsSetMaxSingleMemAlloc(options.get(), largest_allocation);
  TIFFOpenOptionsSetErrorHandlerExtR(options.get(), keep_message, &source);
  TIFFOpenOptionsSetWarningHandlerExtR(options.get(), no_warning, nullptr);
  // m: not mapped; everything goes through the functions above.
  return {TIFFClientOpenExt("picture", "rm", &source, give_bytes, take_nothing, go_to,
                            close_nothing, size_of, nullptr, nullptr, options.get()),
          TIFFClose};
}

enum class Alpha { None, Plain, Premultiplied };

struct Page {
  std::uint32_t width = 0, height = 0;
  std::uint16_t bits = 1, samples = 1, photometric = 0, planar = PLANARCONFIG_CONTIG;
  std::uint16_t format = SAMPLEFORMAT_UINT, compression = COMPRESSION_NONE, orientation = 1;
  std::uint16_t colours = 1;  // samples that are colour
  Alpha alpha = Alpha::None;
};

class Reader {
 public:
  Reader(TIFF* tiff, const Source& source, const std::string& where)
      : tiff_(tiff), source_(source), where_(where), budget_(where) {}

  Image page() {
    read_header();
    budget_.add(p_.width, p_.height);
    auto image = p_.photometric == PHOTOMETRIC_YCBCR ? by_libtiff() : from_samples(samples());
    return upright(std::move(image), p_.orientation);
  }

 private:
  Error fault() const {
    return Error(ErrorKind::Format, where_, "is a broken TIFF: " + source_.message);
  }

  std::uint16_t tag(std::uint32_t name, std::uint16_t otherwise) const {
    std::uint16_t value = otherwise;
    return TIFFGetFieldDefaulted(tiff_, name, &value) == 1 ? value : otherwise;
  }

  void read_header() {
    p_ = {};
    TIFFGetField(tiff_, TIFFTAG_IMAGEWIDTH, &p_.width);
    TIFFGetField(tiff_, TIFFTAG_IMAGELENGTH, &p_.height);
    p_.bits = tag(TIFFTAG_BITSPERSAMPLE, 1);
    p_.samples = tag(TIFFTAG_SAMPLESPERPIXEL, 1);
    p_.photometric = tag(TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MINISWHITE);
    p_.planar = tag(TIFFTAG_PLANARCONFIG, PLANARCONFIG_CONTIG);
    p_.format = tag(TIFFTAG_SAMPLEFORMAT, SAMPLEFORMAT_UINT);
    p_.compression = tag(TIFFTAG_COMPRESSION, COMPRESSION_NONE);
    p_.orientation = tag(TIFFTAG_ORIENTATION, 1);
    if (p_.photometric == PHOTOMETRIC_YCBCR && p_.compression == COMPRESSION_JPEG &&
        p_.planar == PLANARCONFIG_CONTIG) {
      TIFFSetField(tiff_, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
      p_.photometric = PHOTOMETRIC_RGB;
    }
    switch (p_.photometric) {
      case PHOTOMETRIC_MINISWHITE:
      case PHOTOMETRIC_MINISBLACK:
      case PHOTOMETRIC_PALETTE: p_.colours = 1; break;
      case PHOTOMETRIC_RGB:
      case PHOTOMETRIC_YCBCR: p_.colours = 3; break;
      case PHOTOMETRIC_SEPARATED: p_.colours = 4; break;
      default: refuse(fmt::format("colours of kind {}", p_.photometric));
    }
    bool whole = p_.bits == 8 || (p_.bits == 16 && p_.photometric != PHOTOMETRIC_PALETTE);
    bool small =
        p_.colours == 1 && p_.samples == 1 && (p_.bits == 1 || p_.bits == 2 || p_.bits == 4);
    if (!whole && !small) refuse(fmt::format("samples of {} bits", p_.bits));
    if (p_.format != SAMPLEFORMAT_UINT && p_.format != SAMPLEFORMAT_VOID)
      refuse("samples that are signed or floating point");
    if (p_.samples < p_.colours || p_.samples > 16)
      refuse(fmt::format("{} samples a pixel", p_.samples));
    p_.alpha = alpha_of();
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorKind::Format, where_,
                fmt::format("is a TIFF with {}, which are not read here", what));
  }

  Alpha alpha_of() const {
    if (p_.samples == p_.colours || p_.photometric == PHOTOMETRIC_SEPARATED) return Alpha::None;
    std::uint16_t count = 0;
    const std::uint16_t* kinds = nullptr;
    bool said = TIFFGetField(tiff_, TIFFTAG_EXTRASAMPLES, &count, &kinds) == 1 && count > 0;
    // Four samples of RGB without a word are meant as RGBA.
    if (!said) return p_.colours == 3 && p_.samples == 4 ? Alpha::Plain : Alpha::None;
    if (kinds[0] == EXTRASAMPLE_ASSOCALPHA) return Alpha::Premultiplied;
    return kinds[0] == EXTRASAMPLE_UNSPECIFIED ? Alpha::None : Alpha::Plain;
  }

  /// Samples of all channels as they count, one byte each: [height, width, samples]; small ones are
  /// not yet stretched.
  std::vector<std::uint8_t> samples() {
    auto planes = p_.planar == PLANARCONFIG_SEPARATE ? p_.samples : std::uint16_t{1};
    auto bits = std::uint64_t{p_.width} * p_.height * p_.samples * p_.bits;
    if (p_.compression == COMPRESSION_NONE && bits / 8 > source_.bytes.size())
      throw Error(ErrorKind::Format, where_,
                  fmt::format("says it has {} x {} pixels, which {} bytes cannot hold", p_.width,
                              p_.height, source_.bytes.size()));
    if (bits / p_.bits > 4 * pixel_limit) refuse(fmt::format("{} samples a pixel", p_.samples));
    std::vector<std::uint8_t> out(std::size_t{p_.width} * p_.height * p_.samples);
    bool tiled = TIFFIsTiled(tiff_) != 0;
    std::uint32_t width = p_.width, height = p_.height;
    if (tiled) {
      TIFFGetField(tiff_, TIFFTAG_TILEWIDTH, &width);
      TIFFGetField(tiff_, TIFFTAG_TILELENGTH, &height);
    } else {
      TIFFGetFieldDefaulted(tiff_, TIFFTAG_ROWSPERSTRIP, &height);
      height = std::min(height, p_.height);
    }
    if (width == 0 || height == 0) refuse("parts without pixels");
    auto row_bytes = tiled ? TIFFTileRowSize(tiff_) : TIFFScanlineSize(tiff_);
    auto size = tiled ? TIFFTileSize(tiff_) : TIFFStripSize(tiff_);
    auto per_pixel = static_cast<std::size_t>(planes > 1 ? 1 : p_.samples);
    auto wanted = (std::size_t{width} * per_pixel * p_.bits + 7) / 8;
    if (size <= 0 || size > largest_allocation || static_cast<std::size_t>(row_bytes) < wanted)
      throw fault();
    std::vector<std::uint8_t> part(static_cast<std::size_t>(size));
    for (std::uint16_t plane = 0; plane < planes; ++plane)
      for (std::uint32_t top = 0; top < p_.height; top += height)
        for (std::uint32_t left = 0; left < p_.width; left += width) {
          auto rows = std::min(height, p_.height - top), columns = std::min(width, p_.width - left);
          auto least = static_cast<std::size_t>(row_bytes) * (rows - 1) + wanted;
          auto got = tiled ? TIFFReadEncodedTile(tiff_, TIFFComputeTile(tiff_, left, top, 0, plane),
                                                 part.data(), size)
                           : TIFFReadEncodedStrip(tiff_, TIFFComputeStrip(tiff_, top, plane),
                                                  part.data(), size);
          if (got < 0 || static_cast<std::size_t>(got) < least) throw fault();
          for (std::uint32_t y = 0; y < rows; ++y)
            unpack(part.data() + static_cast<std::size_t>(row_bytes) * y, columns * per_pixel,
                   out.data() + (std::size_t{top + y} * p_.width + left) * p_.samples + plane,
                   planes > 1 ? p_.samples : 1);
        }
    return out;
  }

  void unpack(const std::uint8_t* from, std::size_t count, std::uint8_t* to,
              std::size_t step) const {
    for (std::size_t i = 0; i < count; ++i, to += step) {
      if (p_.bits == 8) {
        *to = from[i];
      } else if (p_.bits == 16) {
        std::uint16_t value = 0;
        std::memcpy(&value, from + 2 * i, 2);
        *to = static_cast<std::uint8_t>(value >> 8);
      } else {
        auto shift = 8 - p_.bits - i * p_.bits % 8;
        *to = static_cast<std::uint8_t>(from[i * p_.bits / 8] >> shift & ((1u << p_.bits) - 1));
      }
    }
  }

  Image from_samples(const std::vector<std::uint8_t>& samples) {
    auto image = blank_image(static_cast<int>(p_.width), static_cast<int>(p_.height),
                             p_.alpha == Alpha::None ? 3 : 4);
    std::uint16_t *red = nullptr, *green = nullptr, *blue = nullptr;
    if (p_.photometric == PHOTOMETRIC_PALETTE &&
        TIFFGetField(tiff_, TIFFTAG_COLORMAP, &red, &green, &blue) != 1)
      refuse("a palette that is missing");
    unsigned most = p_.bits < 8 ? (1u << p_.bits) - 1 : 255;
    const auto* from = samples.data();
    auto channels = static_cast<std::size_t>(image.channels);
    for (auto* to = image.pixels.data(); to != image.pixels.data() + image.pixels.size();
         to += channels, from += p_.samples) {
      switch (p_.photometric) {
        case PHOTOMETRIC_PALETTE:
          to[0] = static_cast<std::uint8_t>(red[from[0]] >> 8);
          to[1] = static_cast<std::uint8_t>(green[from[0]] >> 8);
          to[2] = static_cast<std::uint8_t>(blue[from[0]] >> 8);
          break;
        case PHOTOMETRIC_RGB: std::copy_n(from, 3, to); break;
        case PHOTOMETRIC_SEPARATED: {
          unsigned light = 255u - from[3];
          for (int c = 0; c < 3; ++c)
            to[c] = static_cast<std::uint8_t>(light - scaled_by(from[c], light));
          break;
        }
        default: {
          auto gray = from[0] * 255u / most;
          if (p_.photometric == PHOTOMETRIC_MINISWHITE) gray = 255 - gray;
          std::fill_n(to, 3, static_cast<std::uint8_t>(gray));
        }
      }
      if (channels == 4) put_alpha(to, from[p_.colours]);
    }
    return image;
  }

  void put_alpha(std::uint8_t* to, unsigned alpha) const {
    to[3] = static_cast<std::uint8_t>(alpha);
    if (p_.alpha != Alpha::Premultiplied || alpha == 0 || alpha == 255) return;
    for (int c = 0; c < 3; ++c)
      to[c] = static_cast<std::uint8_t>(std::min(255u, to[c] * 255u / alpha));
  }

  /// Colour spaces that libtiff itself brings to RGB.
  Image by_libtiff() {
    std::vector<std::uint32_t> raster(std::size_t{p_.width} * p_.height);
    if (TIFFReadRGBAImageOriented(tiff_, p_.width, p_.height, raster.data(), p_.orientation, 1) ==
        0)
      throw fault();
    auto image = blank_image(static_cast<int>(p_.width), static_cast<int>(p_.height), 3);
    auto* to = image.pixels.data();
    for (auto pixel : raster) {
      *to++ = static_cast<std::uint8_t>(TIFFGetR(pixel));
      *to++ = static_cast<std::uint8_t>(TIFFGetG(pixel));
      *to++ = static_cast<std::uint8_t>(TIFFGetB(pixel));
    }
    return image;
  }

  TIFF* tiff_;
  const Source& source_;
  const std::string& where_;
  FrameBudget budget_;
  Page p_;
};

}  // namespace

bool is_tiff(std::string_view bytes) {
  using namespace std::string_view_literals;
  return bytes.starts_with("II*\0"sv) || bytes.starts_with("MM\0*"sv) ||
         bytes.starts_with("II+\0"sv) || bytes.starts_with("MM\0+"sv);
}

void decode_tiff(std::string_view bytes, const std::string& where, const TakeFrame& take) {
  Source source{bytes, 0, {}};
  auto tiff = opened(source);
  auto fault = [&] {
    return Error(ErrorKind::Format, where, "is a broken TIFF: " + source.message);
  };
  if (!tiff) throw fault();
  Reader reader(tiff.get(), source, where);
  while (take(reader.page()) && TIFFLastDirectory(tiff.get()) == 0)
    if (TIFFReadDirectory(tiff.get()) != 1) throw fault();
}

}  // namespace distorch::media
