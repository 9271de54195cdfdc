#include "distorch/media/avif.h"

#include <avif/avif.h>

#include <limits>
#include <memory>

#include "distorch/base/error.h"

namespace distorch::media {

namespace {

using Decoder = std::unique_ptr<avifDecoder, decltype(&avifDecoderDestroy)>;

const std::uint8_t* data_of(std::string_view bytes) {
  return reinterpret_cast<const std::uint8_t*>(bytes.data());
}

/// A decoder that has read the file's structure; `result` says how it went.
Decoder opened(std::string_view bytes, avifResult& result) {
  Decoder decoder(avifDecoderCreate(), avifDecoderDestroy);
  if (!decoder) {
    result = AVIF_RESULT_OUT_OF_MEMORY;
    return decoder;
  }
  decoder->imageSizeLimit =
      static_cast<std::uint32_t>(std::min<std::size_t>(pixel_limit, decoder->imageSizeLimit));
  // Old writers left this property out.
  decoder->strictFlags &= ~static_cast<avifStrictFlags>(AVIF_STRICT_PIXI_REQUIRED);
  result = avifDecoderSetIOMemory(decoder.get(), data_of(bytes), bytes.size());
  if (result == AVIF_RESULT_OK) result = avifDecoderParse(decoder.get());
  return decoder;
}

/// 0: top and bottom change places, 1: left and right. Its name changed with version 1.0.
template <class Mirror>
int axis_of(const Mirror& mirror) {
  if constexpr (requires { mirror.axis; })
    return mirror.axis;
  else
    return mirror.mode;
}

/// The EXIF number of the file's turn (counter-clockwise, in quarters) and the mirror after it.
int orientation_of(const avifImage& image) {
  int turn = (image.transformFlags & AVIF_TRANSFORM_IROT) != 0 ? image.irot.angle & 3 : 0;
  int mirror = (image.transformFlags & AVIF_TRANSFORM_IMIR) != 0 ? axis_of(image.imir) & 1 : 2;
  constexpr int orientations[4][3] = {{4, 2, 1}, {5, 7, 8}, {2, 4, 3}, {7, 5, 6}};
  return orientations[turn][mirror];
}

Image pixels_of(const avifDecoder& decoder, const std::string& where) {
  const auto& from = *decoder.image;
  auto image = blank_image(static_cast<int>(from.width), static_cast<int>(from.height),
                           decoder.alphaPresent ? 4 : 3);
  avifRGBImage to;
  avifRGBImageSetDefaults(&to, decoder.image);
  to.depth = 8;
  to.format = image.channels == 4 ? AVIF_RGB_FORMAT_RGBA : AVIF_RGB_FORMAT_RGB;
  to.pixels = image.pixels.data();
  to.rowBytes = static_cast<std::uint32_t>(image.row_bytes());
  if (auto result = avifImageYUVToRGB(decoder.image, &to); result != AVIF_RESULT_OK)
    throw Error(ErrorKind::Format, where,
                std::string("is a broken AVIF: ") + avifResultToString(result));
  return image;
}

}  // namespace

bool is_avif(std::string_view bytes) {
  if (bytes.size() < 16 || bytes.substr(4, 4) != "ftyp") return false;
  avifROData data{data_of(bytes), bytes.size()};
  return avifPeekCompatibleFileType(&data) != 0;
}

void decode_avif(std::string_view bytes, const std::string& where, const TakeFrame& take) {
  auto fault = [&](avifResult result) {
    return Error(ErrorKind::Format, where,
                 std::string("is a broken AVIF: ") + avifResultToString(result));
  };
  auto result = AVIF_RESULT_OK;
  auto decoder = opened(bytes, result);
  if (result != AVIF_RESULT_OK) throw fault(result);
  FrameBudget budget(where);
  for (int i = 0; i < decoder->imageCount; ++i) {
    budget.add(decoder->image->width, decoder->image->height);
    if (result = avifDecoderNextImage(decoder.get()); result != AVIF_RESULT_OK) throw fault(result);
    auto orientation = orientation_of(*decoder->image);
    if (!take(upright(pixels_of(*decoder, where), orientation))) return;
  }
}

std::optional<std::string> avif_exif(std::string_view bytes) {
  auto result = AVIF_RESULT_OK;
  auto decoder = opened(bytes, result);
  if (result != AVIF_RESULT_OK || decoder->image->exif.size == 0) return std::nullopt;
  const auto& exif = decoder->image->exif;
  return std::string(reinterpret_cast<const char*>(exif.data), exif.size);
}

}  // namespace distorch::media
