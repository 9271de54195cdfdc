#include "distorch/media/bmp.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>

#include "distorch/base/error.h"

namespace distorch::media {

namespace {

using Colour = std::array<std::uint8_t, 3>;

constexpr std::uint32_t plain = 0, rle8 = 1, rle4 = 2, bit_fields = 3, alpha_bit_fields = 6;
constexpr std::size_t file_header = 14;

struct Header {
  std::size_t size = 0;  // of the information header
  std::uint64_t width = 0, height = 0;
  bool from_top = false;
  unsigned bits = 0;
  std::uint32_t compression = plain;
  std::size_t colours = 0;               // in the palette
  std::size_t colour_bytes = 4;          // each
  std::array<std::uint32_t, 4> masks{};  // red, green, blue, alpha; 0: none
  std::size_t palette_at = 0, pixels_at = 0;
};

class Reader {
 public:
  Reader(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  Image decode() {
    read_header();
    check_size(h_.width, h_.height, where_);
    return h_.bits <= 8 ? indexed() : direct();
  }

 private:
  Error fault(const std::string& what) const {
    return Error(ErrorKind::Format, where_, "is a broken BMP: " + what);
  }

  std::uint32_t number(std::size_t at, unsigned size) const {
    if (at > bytes_.size() || bytes_.size() - at < size) throw fault("it ends too early");
    std::uint32_t value = 0;
    for (unsigned i = size; i-- > 0;)
      value = value << 8 | static_cast<unsigned char>(bytes_[at + i]);
    return value;
  }

  void read_header() {
    h_.pixels_at = number(10, 4);
    h_.size = number(file_header, 4);
    if (h_.size == 12) {
      h_.width = number(18, 2);
      h_.height = number(20, 2);
      h_.bits = number(24, 2);
      h_.colour_bytes = 3;
    } else if (h_.size >= 40 && h_.size <= 124) {
      auto height = static_cast<std::int32_t>(number(22, 4));
      h_.width = number(18, 4);
      h_.height = static_cast<std::uint64_t>(std::abs(std::int64_t{height}));
      h_.from_top = height < 0;
      h_.bits = number(28, 2);
      h_.compression = number(30, 4);
      h_.colours = number(46, 4);
    } else {
      throw fault(fmt::format("its header has {} bytes", h_.size));
    }
    h_.palette_at = file_header + h_.size;
    read_masks();
    if (h_.bits > 8) return;
    if (h_.bits != 1 && h_.bits != 4 && h_.bits != 8)
      throw fault(fmt::format("{} bits a pixel", h_.bits));
    if (h_.colours == 0) h_.colours = std::size_t{1} << h_.bits;
    if (h_.colours > 256) throw fault(fmt::format("a palette of {} colours", h_.colours));
    // Some writers let the pixels begin where the palette does.
    if (h_.pixels_at == h_.palette_at) h_.pixels_at += h_.colours * h_.colour_bytes;
  }

  void read_masks() {
    switch (h_.bits) {
      case 16: h_.masks = {0x7c00, 0x3e0, 0x1f, 0}; break;
      case 24:
      case 32: h_.masks = {0xff0000, 0xff00, 0xff, 0}; break;
    }
    bool named = h_.compression == bit_fields || h_.compression == alpha_bit_fields;
    if (!named) {
      bool runs =
          (h_.compression == rle8 && h_.bits == 8) || (h_.compression == rle4 && h_.bits == 4);
      if (h_.compression != plain && !runs)
        throw fault(fmt::format("compression {} of {} bits", h_.compression, h_.bits));
      if (h_.bits > 8 && h_.masks[0] == 0) throw fault(fmt::format("{} bits a pixel", h_.bits));
      return;
    }
    if (h_.bits != 16 && h_.bits != 32 && h_.bits != 24)
      throw fault(fmt::format("masks for {} bits a pixel", h_.bits));
    bool with_alpha = h_.size >= 56 || h_.compression == alpha_bit_fields;
    std::array<std::uint32_t, 4> masks{};
    for (std::size_t i = 0; i < (with_alpha ? 4u : 3u); ++i) masks[i] = number(54 + 4 * i, 4);
    // All of them zero is written by some programs that mean the usual order, with alpha.
    if (masks == std::array<std::uint32_t, 4>{}) masks = {0xff0000, 0xff00, 0xff, 0xff000000};
    h_.masks = masks;
    auto end = 54 + (with_alpha ? 16u : 12u);
    if (h_.size == 40 && h_.pixels_at < end) h_.pixels_at = end;
  }

  std::size_t stride() const { return (h_.width * h_.bits + 31) / 32 * 4; }

  /// Row `y` from the top as it lies in the file.
  std::string_view row(std::uint64_t y) const {
    auto line = h_.from_top ? y : h_.height - 1 - y;
    auto at = h_.pixels_at + line * stride();
    auto size = (h_.width * h_.bits + 7) / 8;
    if (at > bytes_.size() || bytes_.size() - at < size)
      throw fault("it ends in the middle of the picture");
    return bytes_.substr(at, size);
  }

  std::vector<Colour> palette() const {
    std::vector<Colour> colours(256, Colour{});
    for (std::size_t i = 0; i < h_.colours; ++i) {
      auto at = h_.palette_at + i * h_.colour_bytes;
      colours[i] = {static_cast<std::uint8_t>(number(at + 2, 1)),
                    static_cast<std::uint8_t>(number(at + 1, 1)),
                    static_cast<std::uint8_t>(number(at, 1))};
    }
    return colours;
  }

  Image indexed() const {
    auto colours = palette();
    bool runs = h_.compression != plain;
    if (!runs) row(h_.from_top ? h_.height - 1 : 0);  // the last one is there
    auto indices = runs ? run_lengths() : std::vector<std::uint8_t>();
    auto image = blank_image(static_cast<int>(h_.width), static_cast<int>(h_.height), 3);
    auto* to = image.pixels.data();
    for (std::uint64_t y = 0; y < h_.height; ++y) {
      auto line = runs ? std::string_view() : row(y);
      for (std::uint64_t x = 0; x < h_.width; ++x, to += 3) {
        std::size_t index = 0;
        if (runs) {
          index = indices[(h_.from_top ? y : h_.height - 1 - y) * h_.width + x];
        } else {
          auto byte = static_cast<unsigned char>(line[x * h_.bits / 8]);
          auto shift = 8 - h_.bits - x * h_.bits % 8;
          index = byte >> shift & ((1u << h_.bits) - 1);
        }
        std::copy_n(colours[index].data(), 3, to);
      }
    }
    return image;
  }

  /// Indices in the order of the file, rows without padding; what no run reaches is 0.
  std::vector<std::uint8_t> run_lengths() const {
    if (h_.pixels_at > bytes_.size()) throw fault("it ends too early");
    std::vector<std::uint8_t> out(h_.width * h_.height);
    std::uint64_t x = 0, y = 0;
    auto put = [&](unsigned index) {
      if (x < h_.width && y < h_.height) out[y * h_.width + x] = static_cast<std::uint8_t>(index);
      ++x;
    };
    bool halves = h_.compression == rle4;
    auto half = [&](unsigned byte, unsigned i) {
      return !halves ? byte : i % 2 == 0 ? byte >> 4 : byte & 15;
    };
    for (auto at = h_.pixels_at; y < h_.height;) {
      auto count = number(at, 1), value = number(at + 1, 1);
      at += 2;
      if (count > 0) {
        for (unsigned i = 0; i < count; ++i) put(half(value, i));
      } else if (value == 0) {
        x = 0;
        ++y;
      } else if (value == 1) {
        break;
      } else if (value == 2) {
        x += number(at, 1);
        y += number(at + 1, 1);
        at += 2;
      } else {
        for (unsigned i = 0; i < value; ++i) put(half(number(at + (halves ? i / 2 : i), 1), i));
        auto size = halves ? (value + 1) / 2 : value;
        at += size + size % 2;
      }
    }
    return out;
  }

  /// A channel of a pixel as 8 bits, the nearest.
  static std::uint8_t channel(std::uint32_t pixel, std::uint32_t mask) {
    if (mask == 0) return 0;
    auto shift = static_cast<unsigned>(std::countr_zero(mask));
    std::uint64_t most = mask >> shift;
    return static_cast<std::uint8_t>((((pixel & mask) >> shift) * std::uint64_t{255}) / most);
  }

  Image direct() const {
    row(h_.from_top ? h_.height - 1 : 0);
    int channels = h_.masks[3] != 0 ? 4 : 3;
    auto image = blank_image(static_cast<int>(h_.width), static_cast<int>(h_.height), channels);
    auto* to = image.pixels.data();
    auto size = h_.bits / 8;
    for (std::uint64_t y = 0; y < h_.height; ++y) {
      auto line = row(y);
      for (std::uint64_t x = 0; x < h_.width; ++x) {
        std::uint32_t pixel = 0;
        for (unsigned i = size; i-- > 0;)
          pixel = pixel << 8 | static_cast<unsigned char>(line[x * size + i]);
        for (int c = 0; c < channels; ++c)
          *to++ = channel(pixel, h_.masks[static_cast<std::size_t>(c)]);
      }
    }
    return image;
  }

  std::string_view bytes_;
  const std::string& where_;
  Header h_;
};

}  // namespace

bool is_bmp(std::string_view bytes) {
  return bytes.size() >= 26 && bytes.starts_with("BM") && bytes[15] == 0 && bytes[16] == 0;
}

Image decode_bmp(std::string_view bytes, const std::string& where) {
  return Reader(bytes, where).decode();
}

}  // namespace distorch::media
