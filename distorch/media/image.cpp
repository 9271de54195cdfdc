#include "distorch/media/image.h"

#include <fmt/format.h>

#include "distorch/base/error.h"

namespace distorch::media {

Image blank_image(int width, int height, int channels) {
  if (width < 1 || height < 1 || (channels != 1 && channels != 3 && channels != 4) ||
      static_cast<std::size_t>(width) * static_cast<std::size_t>(height) > pixel_limit)
    throw Error(ErrorKind::Usage, "image",
                fmt::format("cannot have {} x {} pixels of {} channels", width, height, channels));
  Image image{width, height, channels, {}};
  image.pixels.resize(image.row_bytes() * static_cast<std::size_t>(height));
  return image;
}

Image from_floats(std::span<const float> values, int width, int height, int channels) {
  auto image = blank_image(width, height, channels);
  if (values.size() != image.pixels.size())
    throw Error(ErrorKind::Shape, "image",
                fmt::format("{} x {} x {} takes {} values, {} were given", height, width, channels,
                            image.pixels.size(), values.size()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    float scaled = values[i] * 255.0f;
    // Written so that NaN fails both comparisons and becomes 0.
    image.pixels[i] = scaled >= 255.0f ? 255
                      : scaled > 0.0f  ? static_cast<std::uint8_t>(scaled)
                                       : 0;
  }
  return image;
}

std::vector<float> to_floats(const Image& image) {
  std::vector<float> values(image.pixels.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(image.pixels[i]) / 255.0f;
  return values;
}

Image to_rgb(Image image) {
  if (image.channels == 3) return image;
  auto rgb = blank_image(image.width, image.height, 3);
  const auto* from = image.pixels.data();
  for (auto* to = rgb.pixels.data(); to != rgb.pixels.data() + rgb.pixels.size();
       to += 3, from += image.channels) {
    to[0] = from[0];
    to[1] = image.channels == 1 ? from[0] : from[1];
    to[2] = image.channels == 1 ? from[0] : from[2];
  }
  return rgb;
}

Image upright(Image image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  bool transposed = orientation >= 5;  // rows become columns
  // Whether the upright picture is read from the right, or from the bottom, of the stored one.
  bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  auto result = blank_image(transposed ? image.height : image.width,
                            transposed ? image.width : image.height, image.channels);
  auto channels = static_cast<std::size_t>(image.channels);
  auto* to = result.pixels.data();
  for (int y = 0; y < result.height; ++y) {
    for (int x = 0; x < result.width; ++x, to += channels) {
      int column = transposed ? y : x, row = transposed ? x : y;
      if (from_right) column = image.width - 1 - column;
      if (from_bottom) row = image.height - 1 - row;
      const auto* from = image.pixels.data() + static_cast<std::size_t>(row) * image.row_bytes() +
                         static_cast<std::size_t>(column) * channels;
      for (std::size_t c = 0; c < channels; ++c) to[c] = from[c];
    }
  }
  return result;
}

void check_size(std::uint64_t width, std::uint64_t height, const std::string& where) {
  if (width == 0 || height == 0)
    throw Error(ErrorKind::Format, where, fmt::format("says it has {} x {} pixels", width, height));
  if (width > pixel_limit || height > pixel_limit || width * height > pixel_limit)
    throw Error(ErrorKind::Format, where,
                fmt::format("says it has {} x {} pixels, the limit is {} in all", width, height,
                            pixel_limit));
}

}  // namespace distorch::media
