#include "distorch/media/webp.h"

#include <fmt/format.h>
#include <webp/decode.h>
#include <webp/demux.h>
#include <webp/encode.h>

#include <algorithm>
#include <memory>

#include "distorch/base/error.h"

namespace distorch::media {

namespace {

const std::uint8_t* data_of(std::string_view bytes) {
  return reinterpret_cast<const std::uint8_t*>(bytes.data());
}

/// The frames of an animation on its canvas.
void animation(std::string_view bytes, const WebPBitstreamFeatures& features,
               const std::string& where, const TakeFrame& take) {
  WebPAnimDecoderOptions options;
  WebPAnimDecoderOptionsInit(&options);
  options.color_mode = MODE_RGBA;
  WebPData data{data_of(bytes), bytes.size()};
  std::unique_ptr<WebPAnimDecoder, decltype(&WebPAnimDecoderDelete)> decoder(
      WebPAnimDecoderNew(&data, &options), WebPAnimDecoderDelete);
  FrameBudget budget(where);
  bool any = false;
  while (decoder && WebPAnimDecoderHasMoreFrames(decoder.get()) != 0) {
    budget.add(static_cast<std::uint64_t>(features.width),
               static_cast<std::uint64_t>(features.height));
    std::uint8_t* frame = nullptr;
    int time = 0;
    if (WebPAnimDecoderGetNext(decoder.get(), &frame, &time) == 0)
      throw Error(ErrorKind::Format, where, "is a WebP animation with a broken frame");
    auto image = blank_image(features.width, features.height, 4);
    std::copy_n(frame, image.pixels.size(), image.pixels.data());
    any = true;
    if (!take(features.has_alpha != 0 ? std::move(image) : to_rgb(std::move(image)))) return;
  }
  if (!any)
    throw Error(ErrorKind::Format, where, "is a WebP animation whose first frame is broken");
}

}  // namespace

bool is_webp(std::string_view bytes) {
  return bytes.size() >= 12 && bytes.starts_with("RIFF") && bytes.substr(8, 4) == "WEBP";
}

void decode_webp_frames(std::string_view bytes, const std::string& where, const TakeFrame& take) {
  WebPBitstreamFeatures features;
  if (auto status = WebPGetFeatures(data_of(bytes), bytes.size(), &features);
      status != VP8_STATUS_OK)
    throw Error(ErrorKind::Format, where,
                fmt::format("is a broken WebP (libwebp status {})", static_cast<int>(status)));
  check_size(static_cast<std::uint64_t>(features.width),
             static_cast<std::uint64_t>(features.height), where);
  if (features.has_animation != 0) return animation(bytes, features, where, take);
  auto image = blank_image(features.width, features.height, features.has_alpha != 0 ? 4 : 3);
  auto decode = image.channels == 4 ? WebPDecodeRGBAInto : WebPDecodeRGBInto;
  if (decode(data_of(bytes), bytes.size(), image.pixels.data(), image.pixels.size(),
             static_cast<int>(image.row_bytes())) == nullptr)
    throw Error(ErrorKind::Format, where, "is a broken WebP: its pixels cannot be decoded");
  take(std::move(image));
}

Image decode_webp(std::string_view bytes, const std::string& where) {
  Image first;
  decode_webp_frames(bytes, where, [&](Image frame) {
    first = std::move(frame);
    return false;
  });
  return first;
}

std::string encode_webp(const Image& image, float quality) {
  auto colour = image.channels == 1 ? to_rgb(image) : image;
  auto encode = colour.channels == 4 ? WebPEncodeRGBA : WebPEncodeRGB;
  std::uint8_t* output = nullptr;
  auto size =
      encode(colour.pixels.data(), colour.width, colour.height,
             static_cast<int>(colour.row_bytes()), std::clamp(quality, 0.0f, 100.0f), &output);
  std::unique_ptr<std::uint8_t, decltype(&WebPFree)> owner(output, [](void* p) { WebPFree(p); });
  if (size == 0)
    throw Error(ErrorKind::Usage, "WebP",
                fmt::format("{} x {} pixels cannot be written", image.width, image.height));
  return {reinterpret_cast<const char*>(output), size};
}

std::optional<std::string> webp_exif(std::string_view bytes) {
  if (!is_webp(bytes)) return std::nullopt;
  bytes.remove_prefix(12);
  while (bytes.size() >= 8) {
    std::size_t length = 0;
    for (std::size_t i = 8; i-- > 4;) length = length << 8 | static_cast<unsigned char>(bytes[i]);
    if (length > bytes.size() - 8) break;
    if (bytes.starts_with("EXIF")) return std::string(bytes.substr(8, length));
    bytes.remove_prefix(std::min(bytes.size(), 8 + length + length % 2));
  }
  return std::nullopt;
}

}  // namespace distorch::media
