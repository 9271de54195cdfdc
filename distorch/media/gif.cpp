#include "distorch/media/gif.h"

#include <fmt/format.h>
#include <gif_lib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "distorch/base/error.h"

namespace distorch::media {

namespace {

using Colour = std::array<std::uint8_t, 4>;
using Palette = std::array<Colour, 256>;

int give_bytes(GifFileType* gif, GifByteType* to, int count) {
  auto& left = *static_cast<std::string_view*>(gif->UserData);
  auto size = std::min(left.size(), static_cast<std::size_t>(std::max(count, 0)));
  std::memcpy(to, left.data(), size);
  left.remove_prefix(size);
  return static_cast<int>(size);
}

struct Extent {
  std::size_t left = 0, top = 0, width = 0, height = 0;
};

/// A part of a canvas.
struct Piece {
  Extent extent;
  std::vector<std::uint8_t> pixels;  // RGBA
};

enum class Going : int { Unsaid = 0, Stays = 1, Cleared = 2, TakenBack = 3 };

/// Nothing where there is no palette or index and gray are the same: then indices are grays.
std::optional<Palette> palette_of(const ColorMapObject* map) {
  if (map == nullptr) return std::nullopt;
  Palette palette;
  palette.fill({0, 0, 0, 255});
  bool ramp = true;
  for (int i = 0; i < std::min(map->ColorCount, 256); ++i) {
    const auto& c = map->Colors[i];
    ramp = ramp && c.Red == i && c.Green == i && c.Blue == i;
    palette[static_cast<std::size_t>(i)] = {c.Red, c.Green, c.Blue, 255};
  }
  return ramp ? std::nullopt : std::optional(palette);
}

Palette grays() {
  Palette palette;
  for (std::size_t i = 0; i < palette.size(); ++i) {
    auto gray = static_cast<std::uint8_t>(i);
    palette[i] = {gray, gray, gray, 255};
  }
  return palette;
}

class Reader {
 public:
  Reader(std::string_view bytes, const std::string& where)
      : left_(bytes), where_(where), budget_(where) {
    int error = 0;
    gif_ = DGifOpen(&left_, give_bytes, &error);
    if (gif_ == nullptr) throw fault(error);
  }
  ~Reader() { DGifCloseFile(gif_, nullptr); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  void decode(const TakeFrame& take) {
    for (GifRecordType type = UNDEFINED_RECORD_TYPE; type != TERMINATE_RECORD_TYPE;) {
      // Many files lack the last byte.
      if (left_.empty() && frames_ > 0) return;
      if (DGifGetRecordType(gif_, &type) == GIF_ERROR) {
        if (frames_ > 0) return;
        throw fault(gif_->Error);
      }
      if (type == EXTENSION_RECORD_TYPE) extension();
      if (type == IMAGE_DESC_RECORD_TYPE && (!frame() || !take(picture()))) return;
    }
    if (frames_ == 0) throw Error(ErrorKind::Format, where_, "is a GIF without a picture");
  }

 private:
  Error fault(int code) const {
    const char* text = GifErrorString(code);
    return Error(ErrorKind::Format, where_,
                 std::string("is a broken GIF: ") + (text != nullptr ? text : "unknown error"));
  }

  void extension() {
    int kind = 0;
    GifByteType* block = nullptr;
    if (DGifGetExtension(gif_, &kind, &block) == GIF_ERROR) throw fault(gif_->Error);
    GraphicsControlBlock control;
    if (kind == GRAPHICS_EXT_FUNC_CODE && block != nullptr &&
        DGifExtensionToGCB(block[0], block + 1, &control) == GIF_OK) {
      if (control.TransparentColor != NO_TRANSPARENT_COLOR)
        transparent_ = static_cast<std::size_t>(control.TransparentColor);
      if (control.DisposalMode != 0) going_ = static_cast<Going>(control.DisposalMode);
    }
    while (block != nullptr)
      if (DGifGetExtensionNext(gif_, &block) == GIF_ERROR) throw fault(gif_->Error);
  }

  /// LZW's codes have three bits at least and mean 4096 pixels at most: a frame that so few bytes
  /// cannot hold takes no memory, and neither does an empty canvas of more pixels than small ones
  /// have.
  void check_bytes_left(const Extent& extent) const {
    constexpr std::size_t bits = 8, shortest_code = 3, longest_string = 4096;
    constexpr std::size_t small = std::size_t{1} << 24;  // pixels
    const auto most = left_.size() * bits / shortest_code * longest_string;
    const auto canvas = static_cast<std::size_t>(gif_->SWidth) * gif_->SHeight;
    if (extent.width * extent.height <= most && canvas <= std::max(most, small)) return;
    throw Error(ErrorKind::Format, where_,
                fmt::format("is a broken GIF: {} bytes cannot hold its {} x {} pixels",
                            left_.size(), extent.width, extent.height));
  }

  /// Reads one frame and draws it. False: it makes the canvas larger, so nothing more fits a batch.
  bool frame() {
    if (DGifGetImageDesc(gif_) == GIF_ERROR) throw fault(gif_->Error);
    const auto& desc = gif_->Image;
    Extent extent{static_cast<std::size_t>(desc.Left), static_cast<std::size_t>(desc.Top),
                  static_cast<std::size_t>(desc.Width), static_cast<std::size_t>(desc.Height)};
    auto width = std::max<std::size_t>(width_, extent.left + extent.width);
    auto height = std::max<std::size_t>(height_, extent.top + extent.height);
    bool first = frames_ == 0;
    if (first) {
      width = std::max(width, static_cast<std::size_t>(gif_->SWidth));
      height = std::max(height, static_cast<std::size_t>(gif_->SHeight));
    } else if (width != width_ || height != height_) {
      return false;
    }
    check_bytes_left(extent);
    budget_.add(width, height);
    width_ = width;
    height_ = height;
    auto own = palette_of(desc.ColorMap != nullptr ? desc.ColorMap : gif_->SColorMap);
    auto palette = own.value_or(grays());
    if (first) begin(palette, own.has_value());
    if (undo_) draw(*undo_);
    prepare_undo(extent, palette);
    auto piece = Piece{extent, std::vector<std::uint8_t>(extent.width * extent.height * 4)};
    read_pixels(piece, palette);
    draw(piece);
    ++frames_;
    transparent_.reset();
    return true;
  }

  /// The canvas before the first frame.
  void begin(const Palette& palette, bool coloured) {
    alpha_ = transparent_ && coloured;
    if (!coloured) cleared_gray_ = transparent_;
    auto fill = palette[transparent_.value_or(0)];
    if (alpha_) fill[3] = 0;
    canvas_.resize(width_ * height_ * 4);
    for (std::size_t i = 0; i < canvas_.size(); i += 4) std::copy_n(fill.data(), 4, &canvas_[i]);
  }

  /// What is drawn before the next frame.
  void prepare_undo(const Extent& extent, const Palette& palette) {
    undo_.reset();
    bool first = frames_ == 0;
    bool clear = going_ == Going::Cleared ||
                 (going_ == Going::TakenBack && first && transparent_.has_value());
    if (clear) {
      auto background =
          gif_->SColorMap != nullptr ? static_cast<std::size_t>(gif_->SBackGroundColor) % 256 : 0;
      auto index = cleared_gray_ ? *cleared_gray_ : transparent_.value_or(background);
      auto colour = palette[index];
      colour[3] = transparent_ ? 0 : 255;
      undo_ = Piece{extent, std::vector<std::uint8_t>(extent.width * extent.height * 4)};
      for (std::size_t i = 0; i < undo_->pixels.size(); i += 4)
        std::copy_n(colour.data(), 4, &undo_->pixels[i]);
    } else if (going_ == Going::TakenBack && !first) {
      undo_ = Piece{extent, {}};
      for (std::size_t y = 0; y < extent.height; ++y) {
        auto* row = canvas_.data() + ((extent.top + y) * width_ + extent.left) * 4;
        undo_->pixels.insert(undo_->pixels.end(), row, row + extent.width * 4);
      }
    }
  }

  /// Fills a piece with the frame's colours, over what the canvas has where the frame lets it
  /// through.
  void read_pixels(Piece& piece, const Palette& palette) {
    const auto& at = piece.extent;
    std::vector<GifPixelType> line(at.width);
    auto rows = row_order(at.height, gif_->Image.Interlace);
    for (auto y : rows) {
      if (!line.empty() &&
          DGifGetLine(gif_, line.data(), static_cast<int>(line.size())) == GIF_ERROR)
        throw fault(gif_->Error);
      const auto* under = canvas_.data() + ((at.top + y) * width_ + at.left) * 4;
      auto* to = piece.pixels.data() + y * at.width * 4;
      for (std::size_t x = 0; x < at.width; ++x, to += 4, under += 4) {
        bool through = transparent_ && line[x] == *transparent_;
        if (through && frames_ > 0) {
          std::copy_n(under, 4, to);
          continue;
        }
        std::copy_n(palette[line[x]].data(), 4, to);
        if (through) to[3] = 0;
      }
    }
  }

  static std::vector<std::size_t> row_order(std::size_t height, bool interlaced) {
    std::vector<std::size_t> rows;
    constexpr std::array<std::array<std::size_t, 2>, 4> passes = {{{0, 8}, {4, 8}, {2, 4}, {1, 2}}};
    if (!interlaced)
      for (std::size_t y = 0; y < height; ++y) rows.push_back(y);
    else
      for (auto [start, step] : passes)
        for (std::size_t y = start; y < height; y += step) rows.push_back(y);
    return rows;
  }

  void draw(const Piece& piece) {
    const auto& at = piece.extent;
    for (std::size_t y = 0; y < at.height; ++y)
      std::copy_n(piece.pixels.data() + y * at.width * 4, at.width * 4,
                  canvas_.data() + ((at.top + y) * width_ + at.left) * 4);
  }

  Image picture() const {
    Image image{static_cast<int>(width_), static_cast<int>(height_), 4, canvas_};
    return alpha_ ? image : to_rgb(std::move(image));
  }

  std::string_view left_;
  const std::string& where_;
  FrameBudget budget_;
  GifFileType* gif_ = nullptr;
  std::size_t width_ = 0, height_ = 0;
  std::vector<std::uint8_t> canvas_;  // RGBA
  bool alpha_ = false;
  // In a picture of grays cleared places become the first frame's transparent one.
  std::optional<std::size_t> cleared_gray_;
  std::size_t frames_ = 0;
  // Of the frame that comes.
  std::optional<std::size_t> transparent_;
  Going going_ = Going::Unsaid;
  std::optional<Piece> undo_;
};

}  // namespace

bool is_gif(std::string_view bytes) {
  return bytes.starts_with("GIF87a") || bytes.starts_with("GIF89a");
}

void decode_gif(std::string_view bytes, const std::string& where, const TakeFrame& take) {
  Reader(bytes, where).decode(take);
}

}  // namespace distorch::media
