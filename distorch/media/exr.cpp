#include "distorch/media/exr.h"

#include <fmt/format.h>

#include <cstring>

#include "distorch/base/error.h"

namespace distorch::media {

namespace {

template <class T>
void put(std::string& to, const T& value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  to.append(bytes, sizeof(T));
}

void put_name(std::string& to, const std::string& name) { to.append(name).push_back('\0'); }

void attribute(std::string& to, const std::string& name, const std::string& type,
               const std::string& value) {
  put_name(to, name);
  put_name(to, type);
  put(to, static_cast<std::int32_t>(value.size()));
  to += value;
}

template <class... T>
std::string bytes_of(const T&... values) {
  std::string result;
  (put(result, values), ...);
  return result;
}

/// Names of the channels in the order of the file (by alphabet), each with its place in a pixel.
std::vector<std::pair<std::string, int>> channel_order(int channels) {
  if (channels == 1) return {{"Y", 0}};
  if (channels == 3) return {{"B", 2}, {"G", 1}, {"R", 0}};
  if (channels == 4) return {{"A", 3}, {"B", 2}, {"G", 1}, {"R", 0}};
  throw Error(ErrorKind::Shape, "EXR",
              fmt::format("a picture of {} channels cannot be written, 1, 3 or 4 can", channels));
}

std::string channel_list(const std::vector<std::pair<std::string, int>>& order) {
  constexpr std::int32_t float_pixels = 2, sampling = 1;
  std::string list;
  for (const auto& [name, place] : order) {
    put_name(list, name);
    // Behind the type: linear or not (of no use), and three bytes that are reserved.
    list += bytes_of(float_pixels, std::int32_t{0}, sampling, sampling);
  }
  list.push_back('\0');
  return list;
}

}  // namespace

std::string encode_exr(std::span<const float> values, int width, int height, int channels,
                       const ExrOptions& options) {
  auto order = channel_order(channels);
  auto wide = static_cast<std::size_t>(width), count = static_cast<std::size_t>(channels);
  if (values.size() != wide * static_cast<std::size_t>(height) * count)
    throw Error(ErrorKind::Internal, "EXR", "the values are not those of the picture");
  std::string file = bytes_of(std::uint32_t{20000630}, std::uint32_t{2});
  attribute(file, "channels", "chlist", channel_list(order));
  attribute(file, "compression", "compression", std::string(1, '\0'));
  auto window = bytes_of(std::int32_t{0}, std::int32_t{0}, width - 1, height - 1);
  attribute(file, "dataWindow", "box2i", window);
  attribute(file, "displayWindow", "box2i", window);
  attribute(file, "lineOrder", "lineOrder", std::string(1, '\0'));
  attribute(file, "pixelAspectRatio", "float", bytes_of(1.0f));
  attribute(file, "screenWindowCenter", "v2f", bytes_of(0.0f, 0.0f));
  attribute(file, "screenWindowWidth", "float", bytes_of(1.0f));
  attribute(file, "chromaticities", "chromaticities", bytes_of(options.chromaticities));
  for (const auto& text : options.texts) attribute(file, text.keyword, "string", text.value);
  file.push_back('\0');
  auto line_bytes = wide * count * sizeof(float);
  auto first = file.size() + static_cast<std::size_t>(height) * sizeof(std::uint64_t);
  for (int y = 0; y < height; ++y)
    put(file, static_cast<std::uint64_t>(first + static_cast<std::size_t>(y) * (line_bytes + 8)));
  for (int y = 0; y < height; ++y) {
    put(file, static_cast<std::int32_t>(y));
    put(file, static_cast<std::int32_t>(line_bytes));
    for (const auto& [name, place] : order)
      for (std::size_t x = 0; x < wide; ++x)
        put(file, values[(static_cast<std::size_t>(y) * wide + x) * count +
                         static_cast<std::size_t>(place)]);
  }
  return file;
}

}  // namespace distorch::media
