#include "distorch/media/gif_writer.h"

#include <fmt/format.h>
#include <gif_lib.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/media/palette.h"

namespace distorch::media {

namespace {

int take_bytes(GifFileType* gif, const GifByteType* from, int count) {
  static_cast<std::string*>(gif->UserData)
      ->append(reinterpret_cast<const char*>(from), static_cast<std::size_t>(std::max(count, 0)));
  return count;
}

/// A palette as libgif takes it: a power of two of colours.
class ColourMap {
 public:
  explicit ColourMap(const std::vector<PaletteColour>& palette) {
    int size = 2;
    while (static_cast<std::size_t>(size) < palette.size()) size *= 2;
    std::vector<GifColorType> colours(static_cast<std::size_t>(size));
    for (std::size_t i = 0; i < palette.size(); ++i)
      colours[i] = {palette[i][0], palette[i][1], palette[i][2]};
    map_.reset(GifMakeMapObject(size, colours.data()));
    if (!map_) throw std::bad_alloc();
  }
  ColorMapObject* get() const { return map_.get(); }

 private:
  struct Free {
    void operator()(ColorMapObject* map) const { GifFreeMapObject(map); }
  };
  std::unique_ptr<ColorMapObject, Free> map_;
};

class Writer {
 public:
  Writer(std::string& bytes, const GifOptions& options) : options_(options) {
    int error = 0;
    gif_ = EGifOpen(&bytes, take_bytes, &error);
    if (!gif_) refuse(error);
    EGifSetGifVersion(gif_, true);
  }
  ~Writer() {
    if (gif_) EGifCloseFile(gif_, nullptr);
  }
  Writer(const Writer&) = delete;

  void write(const std::vector<Image>& frames) {
    std::vector<PaletteColour> shared;
    if (options_.one_palette) shared = palette_of(frames);
    auto map = options_.one_palette ? std::make_unique<ColourMap>(shared) : nullptr;
    check(EGifPutScreenDesc(gif_, frames[0].width, frames[0].height, 8, 0,
                            map ? map->get() : nullptr));
    put_loops();
    for (std::size_t i = 0; i < frames.size(); ++i) {
      auto palette = options_.one_palette ? shared : palette_of({&frames[i], 1});
      put_frame(frames[i], palette, hundredths(i + 1) - hundredths(i));
    }
    int error = 0;
    auto closed = EGifCloseFile(std::exchange(gif_, nullptr), &error);
    if (closed == GIF_ERROR) refuse(error);
  }

 private:
  [[noreturn]] static void refuse(int error) {
    const char* text = GifErrorString(error);
    throw Error(ErrorKind::Usage, "GIF",
                fmt::format("cannot be written: {}", text ? text : "unknown error"));
  }
  void check(int done) {
    if (done == GIF_ERROR) refuse(gif_->Error);
  }

  /// When a frame begins.
  long hundredths(std::size_t frame) const {
    return std::lround(static_cast<double>(frame) * 100 / options_.rate.value());
  }

  void put_loops() {
    const unsigned char loops[] = {1, static_cast<unsigned char>(options_.loops & 0xff),
                                   static_cast<unsigned char>(options_.loops >> 8 & 0xff)};
    check(EGifPutExtensionLeader(gif_, APPLICATION_EXT_FUNC_CODE));
    check(EGifPutExtensionBlock(gif_, 11, "NETSCAPE2.0"));
    check(EGifPutExtensionBlock(gif_, sizeof loops, loops));
    check(EGifPutExtensionTrailer(gif_));
  }

  void put_frame(const Image& frame, const std::vector<PaletteColour>& palette, long delay) {
    GraphicsControlBlock control{DISPOSE_DO_NOT, false,
                                 static_cast<int>(std::clamp(delay, 1l, 65535l)),
                                 NO_TRANSPARENT_COLOR};
    GifByteType packed[4];
    auto size = EGifGCBToExtension(&control, packed);
    check(EGifPutExtension(gif_, GRAPHICS_EXT_FUNC_CODE, static_cast<int>(size), packed));
    auto map = options_.one_palette ? nullptr : std::make_unique<ColourMap>(palette);
    check(
        EGifPutImageDesc(gif_, 0, 0, frame.width, frame.height, false, map ? map->get() : nullptr));
    auto indices = indices_of(frame, palette, options_.dither);
    for (int y = 0; y < frame.height; ++y)
      check(EGifPutLine(gif_, indices.data() + static_cast<std::ptrdiff_t>(y) * frame.width,
                        frame.width));
  }

  const GifOptions& options_;
  GifFileType* gif_ = nullptr;
};

}  // namespace

std::string encode_gif(const std::vector<Image>& frames, const GifOptions& options) {
  if (frames.empty()) throw Error(ErrorKind::Usage, "GIF", "an animation has at least one frame");
  std::vector<Image> colours;
  for (const auto& frame : frames) {
    if (frame.width != frames[0].width || frame.height != frames[0].height || frame.width > 65535 ||
        frame.height > 65535)
      throw Error(ErrorKind::Usage, "GIF",
                  fmt::format("frames of {} x {} and {} x {} pixels cannot be one animation",
                              frames[0].width, frames[0].height, frame.width, frame.height));
    colours.push_back(to_rgb(frame));
  }
  std::string bytes;
  Writer(bytes, options).write(colours);
  return bytes;
}

}  // namespace distorch::media
