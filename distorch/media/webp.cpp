#include "distorch/media/webp.h"

#include <fmt/format.h>
#include <webp/decode.h>
#include <webp/demux.h>
#include <webp/encode.h>
#include <webp/mux.h>

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

[[noreturn]] void refuse(const Image& image) {
  throw Error(ErrorKind::Usage, "WebP",
              fmt::format("{} x {} pixels cannot be written", image.width, image.height));
}

WebPConfig config_of(const WebpAnimation& options) {
  WebPConfig config;
  WebPConfigInit(&config);
  config.lossless = options.lossless ? 1 : 0;
  config.quality = std::clamp(options.quality, 0.0f, 100.0f);
  config.method = std::clamp(options.method, 0, 6);
  return config;
}

/// An image as libwebp's encoder takes it.
class Picture {
 public:
  explicit Picture(const Image& image) {
    WebPPictureInit(&picture_);
    picture_.width = image.width;
    picture_.height = image.height;
    picture_.use_argb = 1;
    auto colour = image.channels == 1 ? to_rgb(image) : image;
    auto import = colour.channels == 4 ? WebPPictureImportRGBA : WebPPictureImportRGB;
    if (import(&picture_, colour.pixels.data(), static_cast<int>(colour.row_bytes())) == 0)
      refuse(image);
  }
  ~Picture() { WebPPictureFree(&picture_); }
  Picture(const Picture&) = delete;
  WebPPicture* get() { return &picture_; }

 private:
  WebPPicture picture_;
};

std::string still(const Image& image, const WebPConfig& config) {
  Picture picture(image);
  WebPMemoryWriter writer;
  WebPMemoryWriterInit(&writer);
  std::unique_ptr<WebPMemoryWriter, decltype(&WebPMemoryWriterClear)> owner(&writer,
                                                                            WebPMemoryWriterClear);
  picture.get()->writer = WebPMemoryWrite;
  picture.get()->custom_ptr = &writer;
  if (WebPEncode(&config, picture.get()) == 0) refuse(image);
  return {reinterpret_cast<const char*>(writer.mem), writer.size};
}

std::string moving(const std::vector<Image>& frames, const WebPConfig& config,
                   const WebpAnimation& wish) {
  WebPAnimEncoderOptions options;
  WebPAnimEncoderOptionsInit(&options);
  // How often whole frames come: Pillow's choice, which is that of libwebp's own tools.
  options.kmin = config.lossless != 0 ? 9 : 3;
  options.kmax = config.lossless != 0 ? 17 : 5;
  options.anim_params.bgcolor = 0;
  options.anim_params.loop_count = wish.loops;
  const auto& first = frames.front();
  std::unique_ptr<WebPAnimEncoder, decltype(&WebPAnimEncoderDelete)> encoder(
      WebPAnimEncoderNew(first.width, first.height, &options), WebPAnimEncoderDelete);
  if (!encoder) refuse(first);
  int time = 0;
  for (const auto& frame : frames) {
    Picture picture(frame);
    if (WebPAnimEncoderAdd(encoder.get(), picture.get(), time, &config) == 0) refuse(frame);
    time += wish.milliseconds;
  }
  WebPData data;
  WebPDataInit(&data);
  std::unique_ptr<WebPData, decltype(&WebPDataClear)> owner(&data, WebPDataClear);
  if (WebPAnimEncoderAdd(encoder.get(), nullptr, time, nullptr) == 0 ||
      WebPAnimEncoderAssemble(encoder.get(), &data) == 0)
    refuse(first);
  return {reinterpret_cast<const char*>(data.bytes), data.size};
}

std::string with_exif(const std::string& bytes, const std::string& exif) {
  WebPData whole{data_of(bytes), bytes.size()}, block{data_of(exif), exif.size()}, result;
  WebPDataInit(&result);
  std::unique_ptr<WebPMux, decltype(&WebPMuxDelete)> mux(WebPMuxCreate(&whole, 0), WebPMuxDelete);
  std::unique_ptr<WebPData, decltype(&WebPDataClear)> owner(&result, WebPDataClear);
  if (!mux || WebPMuxSetChunk(mux.get(), "EXIF", &block, 0) != WEBP_MUX_OK ||
      WebPMuxAssemble(mux.get(), &result) != WEBP_MUX_OK)
    throw Error(ErrorKind::Usage, "WebP", "the workflow's text cannot be written into the file");
  return {reinterpret_cast<const char*>(result.bytes), result.size};
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

std::string encode_webp_animation(const std::vector<Image>& frames, const WebpAnimation& options) {
  if (frames.empty()) throw Error(ErrorKind::Usage, "WebP", "an animation has at least one frame");
  auto config = config_of(options);
  auto bytes = frames.size() == 1 ? still(frames.front(), config) : moving(frames, config, options);
  return options.exif.empty() ? bytes : with_exif(bytes, options.exif);
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
