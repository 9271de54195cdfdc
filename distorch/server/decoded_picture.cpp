#include "distorch/server/decoded_picture.h"

#include <fmt/format.h>

#include <semaphore>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/media/picture_size.h"
#include "distorch/media/read_image.h"

namespace distorch::server {

media::Image decoded_picture(std::string_view bytes, const std::string& where) {
  static std::counting_semaphore<2> places(2);
  struct Place {
    Place() { places.acquire(); }
    ~Place() { places.release(); }
  };
  if (auto size = media::picture_size(bytes))
    if (size->width * size->height > kDecodedPixels)
      throw Error(ErrorKind::Format, where,
                  fmt::format("claims {} x {} pixels, more than the {} that are decoded here",
                              size->width, size->height, kDecodedPixels));
  Place place;
  return media::decode_image(bytes, where);
}

media::Image decoded_picture_file(const std::filesystem::path& file) {
  return decoded_picture(read_file(file, std::size_t{1} << 30), file.filename().string());
}

}  // namespace distorch::server
