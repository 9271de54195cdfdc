#include "distorch/formats/catalog.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/text.h"
#include "distorch/formats/gguf.h"
#include "distorch/formats/pickle.h"
#include "distorch/formats/safetensors.h"

namespace distorch::formats {

const std::vector<Format>& all_formats() {
  static const std::vector<Format> list = {
      safetensors_format(),
      gguf_format(),
      pickle_format(),
  };
  return list;
}

namespace {

std::string lower_extension(const std::filesystem::path& path) {
  return lower(path.extension().string());
}

/// Downloads that went wrong come under the right name; say so instead of complaining about a
/// header.
void refuse_text(const std::filesystem::path& path, std::string_view head) {
  if (head.starts_with("version https://git-lfs"))
    throw Error(ErrorKind::Format, path.string(),
                "is a Git LFS pointer, not the file itself; fetch it with `git lfs pull` or "
                "download it again");
  auto start = head.find_first_not_of(" \t\r\n\xef\xbb\xbf");
  if (start != std::string_view::npos && head[start] == '<')
    throw Error(ErrorKind::Format, path.string(),
                "is a web page, not a weights file; the download failed");
}

}  // namespace

TensorFile open_tensor_file(const std::filesystem::path& path) {
  auto file = MappedFile::open(path);
  std::string head(std::min<std::size_t>(64, file->size()), '\0');
  file->read(0, std::as_writable_bytes(std::span(head)));
  refuse_text(path, head);
  for (const auto& format : all_formats())
    if (format.recognises(head)) return format.read(path);
  auto extension = lower_extension(path);
  for (const auto& format : all_formats())
    if (std::ranges::find(format.extensions, extension) != format.extensions.end())
      return format.read(path);
  std::vector<std::string_view> names;
  for (const auto& format : all_formats()) names.push_back(format.name);
  throw Error(ErrorKind::Format, path.string(),
              fmt::format("is of no known format ({})", fmt::join(names, ", ")));
}

}  // namespace distorch::formats
