#include "distorch/server/preview_frame.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "distorch/graph/json_text.h"
#include "distorch/media/jpeg.h"
#include "distorch/media/png.h"

namespace distorch::server {

namespace {

/// Of one output pixel: the first input pixel that counts, and the weights from there on.
struct Taps {
  int first = 0;
  std::vector<double> weights;
};

std::vector<Taps> taps_of(int from, int to) {
  double scale = static_cast<double>(from) / to;
  double reach = std::max(scale, 1.0);
  std::vector<Taps> all(static_cast<std::size_t>(to));
  for (int i = 0; i < to; ++i) {
    double center = (i + 0.5) * scale;
    int first = std::max(static_cast<int>(center - reach + 0.5), 0);
    int end = std::min(static_cast<int>(center + reach + 0.5), from);
    auto& taps = all[static_cast<std::size_t>(i)];
    taps.first = first;
    double sum = 0;
    for (int j = first; j < end; ++j) {
      double weight = std::max(1 - std::abs((j + 0.5 - center) / reach), 0.0);
      taps.weights.push_back(weight);
      sum += weight;
    }
    for (auto& weight : taps.weights) weight /= sum;
  }
  return all;
}

/// Rows of `image` become `width` pixels long; the result lies on its side (columns become rows),
/// so that a second call does the other direction and turns it back.
media::Image squeezed_and_turned(const media::Image& image, int width) {
  auto turned = media::blank_image(image.height, width, image.channels);
  auto taps = taps_of(image.width, width);
  auto channels = static_cast<std::size_t>(image.channels);
  for (int y = 0; y < image.height; ++y) {
    const auto* row = image.pixels.data() + static_cast<std::size_t>(y) * image.row_bytes();
    for (int x = 0; x < width; ++x) {
      const auto& tap = taps[static_cast<std::size_t>(x)];
      auto* out = turned.pixels.data() + static_cast<std::size_t>(x) * turned.row_bytes() +
                  static_cast<std::size_t>(y) * channels;
      for (std::size_t c = 0; c < channels; ++c) {
        double sum = 0.5;
        for (std::size_t j = 0; j < tap.weights.size(); ++j)
          sum += tap.weights[j] * row[(static_cast<std::size_t>(tap.first) + j) * channels + c];
        out[c] = static_cast<std::uint8_t>(sum);
      }
    }
  }
  return turned;
}

constexpr int kPngCompression = 1;

void append_u32(std::string& bytes, std::uint32_t number) {
  for (int shift = 24; shift >= 0; shift -= 8)
    bytes += static_cast<char>(static_cast<unsigned char>(number >> shift));
}

}  // namespace

media::Image fitted(const media::Image& image, int side) {
  double scale = static_cast<double>(side) / std::max(image.width, image.height);
  auto scaled = [&](int length) {
    return std::clamp(static_cast<int>(std::lround(length * scale)), 1, side);
  };
  int width = scaled(image.width), height = scaled(image.height);
  if (width == image.width && height == image.height) return image;
  return squeezed_and_turned(squeezed_and_turned(image, width), height);
}

EncodedPreview encode_preview(const media::Image& image, int side) {
  auto small = fitted(image, side);
  constexpr int jpeg_quality = 95;
  if (small.channels == 4) return encode_whole(small);
  return {false, media::encode_jpeg(small, jpeg_quality)};
}

EncodedPreview encode_whole(const media::Image& image) {
  return {true, media::encode_png(image, {.compression = kPngCompression, .texts = {}})};
}

std::string text_payload(const std::string& node, const std::string& text) {
  std::string payload;
  append_u32(payload, static_cast<std::uint32_t>(node.size()));
  return payload + node + text;
}

std::string preview_payload(const EncodedPreview& preview) {
  std::string payload;
  append_u32(payload, preview.png ? 2 : 1);
  return payload + preview.bytes;
}

std::string preview_payload(const EncodedPreview& preview, const graph::Preview& event) {
  auto about = graph::to_json(event)["data"];
  about["image_type"] = preview.png ? "image/png" : "image/jpeg";
  auto text = graph::json_line(about);
  std::string payload;
  append_u32(payload, static_cast<std::uint32_t>(text.size()));
  return payload + text + preview.bytes;
}

}  // namespace distorch::server
