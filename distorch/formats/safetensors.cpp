#include "distorch/formats/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/formats/safetensors_header.h"

namespace distorch::formats {

namespace {

constexpr std::size_t prefix_bytes = 8;

[[noreturn]] void fail(const std::string& where, const std::string& sentence) {
  throw Error(ErrorKind::Format, where, sentence);
}

std::uint64_t little_endian_64(std::string_view bytes) {
  std::uint64_t value = 0;
  for (int i = 7; i >= 0; --i)
    value = value << 8 | static_cast<unsigned char>(bytes[static_cast<std::size_t>(i)]);
  return value;
}

/// Length of the header, checked against the file's size and the limit.
std::size_t header_length(std::string_view prefix, std::size_t file_size,
                          const std::string& where) {
  if (file_size < prefix_bytes)
    fail(where, fmt::format("has {} bytes, a safetensors file has at least 8", file_size));
  auto length = little_endian_64(prefix);
  if (length > safetensors_header_limit)
    fail(where, fmt::format("says its header has {} bytes, the limit is {}", length,
                            safetensors_header_limit));
  if (length > file_size - prefix_bytes)
    fail(where, fmt::format("says its header ends at byte {}, the file has {}",
                            length + prefix_bytes, file_size));
  return static_cast<std::size_t>(length);
}

/// Bytes that dtype and shape ask for. Zero-sized dimensions are allowed, overflow is not.
std::uint64_t bytes_of_shape(const HeaderEntry& entry, DType dtype, const std::string& where) {
  constexpr auto limit = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  std::uint64_t elements = 1;
  for (auto n : entry.shape) {
    if (n > limit || __builtin_mul_overflow(elements, n, &elements) || elements > limit)
      fail(where, fmt::format("'{}' has shape [{}], which has too many elements", entry.name,
                              fmt::join(entry.shape, ", ")));
  }
  std::uint64_t bits = 0;
  if (__builtin_mul_overflow(elements, static_cast<std::uint64_t>(bits_of(dtype)), &bits))
    fail(where, fmt::format("'{}' has shape [{}], which has too many bytes", entry.name,
                            fmt::join(entry.shape, ", ")));
  if (bits % 8 != 0)
    fail(where,
         fmt::format("'{}' has {} bits, which is no whole number of bytes", entry.name, bits));
  return bits / 8;
}

/// One entry compared with the size of the data section; offsets become absolute.
TensorInfo checked(const HeaderEntry& entry, std::size_t data_start, std::size_t data_size,
                   const std::string& where) {
  const char* lacks = !entry.has_dtype     ? "dtype"
                      : !entry.has_shape   ? "shape"
                      : !entry.has_offsets ? "data_offsets"
                                           : nullptr;
  if (lacks != nullptr) fail(where, fmt::format("'{}' has no '{}'", entry.name, lacks));
  if (entry.data_offsets.size() != 2)
    fail(where, fmt::format("'{}' must have two data_offsets", entry.name));
  auto dtype = dtype_named(entry.dtype);
  if (!dtype) fail(where, fmt::format("'{}' has the unknown dtype '{}'", entry.name, entry.dtype));
  auto begin = entry.data_offsets[0], end = entry.data_offsets[1];
  if (begin > end)
    fail(where,
         fmt::format("'{}' begins at byte {} and ends before that, at {}", entry.name, begin, end));
  if (end > data_size)
    fail(where, fmt::format("'{}' ends at byte {} of the tensor data, the file has {}", entry.name,
                            end, data_size));
  auto wanted = bytes_of_shape(entry, *dtype, where);
  if (wanted != end - begin)
    fail(where,
         fmt::format("'{}' is {} of shape [{}], which takes {} bytes, but has {}", entry.name,
                     entry.dtype, fmt::join(entry.shape, ", "), wanted, end - begin));
  TensorInfo info{.name = entry.name, .dtype = *dtype};
  info.shape.assign(entry.shape.begin(), entry.shape.end());
  info.offset_bytes = data_start + begin;
  info.size_bytes = end - begin;
  return info;
}

/// As the official reader: from the end of the header to the end of the file, without overlap and
/// without holes.
void check_layout(const std::vector<TensorInfo>& tensors, std::size_t data_start,
                  std::size_t file_size, const std::string& where) {
  auto at = data_start;
  const TensorInfo* before = nullptr;
  for (const auto& t : tensors) {
    if (t.offset_bytes < at)
      fail(where, fmt::format("'{}' begins at byte {}, inside '{}' which ends at {}", t.name,
                              t.offset_bytes, before->name, at));
    if (t.offset_bytes > at)
      fail(where, fmt::format("'{}' begins at byte {}, which leaves a hole after byte {}", t.name,
                              t.offset_bytes, at));
    at = t.offset_bytes + t.size_bytes;
    before = &t;
  }
  if (at != file_size)
    fail(where, fmt::format("the tensors end at byte {}, the file has {}", at, file_size));
}

bool looks_like_safetensors(std::string_view head) {
  return head.size() > prefix_bytes && little_endian_64(head) <= safetensors_header_limit &&
         head[prefix_bytes] == '{';
}

}  // namespace

SafetensorsHeader parse_safetensors(std::span<const std::byte> head, std::size_t file_size,
                                    const std::string& where) {
  std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  file_size = std::max(file_size, head.size());
  auto length = header_length(text, file_size, where);
  if (text.size() < prefix_bytes + length)
    throw Error(
        ErrorKind::Internal, where,
        fmt::format("{} bytes of the header are needed, {} were given", length, text.size()));
  auto json = text.substr(prefix_bytes, length);
  if (!json.starts_with('{')) fail(where, "has a header that does not start with '{'");
  auto read = read_header_json(json, where);
  SafetensorsHeader result;
  result.metadata = std::move(read.metadata);
  result.tensors.reserve(read.entries.size());
  auto data_start = prefix_bytes + length;
  for (const auto& entry : read.entries)
    result.tensors.push_back(checked(entry, data_start, file_size - data_start, where));
  std::ranges::stable_sort(result.tensors, [](const auto& a, const auto& b) {
    return std::pair(a.offset_bytes, a.size_bytes) < std::pair(b.offset_bytes, b.size_bytes);
  });
  check_layout(result.tensors, data_start, file_size, where);
  return result;
}

TensorFile read_safetensors(const std::filesystem::path& path) {
  auto file = MappedFile::open(path);
  std::string head(std::min(prefix_bytes, file->size()), '\0');
  file->read(0, std::as_writable_bytes(std::span(head)));
  auto length = header_length(head, file->size(), path.string());
  // A copy: the parser must not meet a page that vanishes under it.
  head.resize(prefix_bytes + length);
  file->read(0, std::as_writable_bytes(std::span(head)));
  auto header = parse_safetensors(std::as_bytes(std::span(head)), file->size(), path.string());
  return TensorFile(std::move(file), "safetensors", std::move(header.tensors),
                    std::move(header.metadata));
}

namespace {

std::uint64_t bytes_to_write(const TensorToWrite& t) {
  std::uint64_t bits = static_cast<std::uint64_t>(bits_of(t.dtype));
  for (auto n : t.shape) bits *= static_cast<std::uint64_t>(n);
  return bits / 8;
}

std::string header_text(const std::vector<TensorToWrite>& tensors,
                        const TensorFile::Metadata& metadata) {
  using Json = nlohmann::json;
  std::string text = "{";
  if (!metadata.empty()) text += "\"__metadata__\":" + Json(metadata).dump();
  std::uint64_t at = 0;
  for (const auto& t : tensors) {
    if (text.size() > 1) text += ',';
    text += fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                        Json(t.name).dump(), name_of(t.dtype), fmt::join(t.shape, ","), at,
                        at + bytes_to_write(t));
    at += bytes_to_write(t);
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

void check_size(const TensorToWrite& t, std::size_t given, const std::string& where) {
  if (bytes_to_write(t) != given)
    throw Error(ErrorKind::Internal, where,
                fmt::format("'{}' of shape [{}] takes {} bytes, {} were given", t.name,
                            fmt::join(t.shape, ", "), bytes_to_write(t), given));
}

void check_before_writing(const std::vector<TensorToWrite>& tensors, const std::string& where) {
  std::unordered_set<std::string_view> names;
  for (const auto& t : tensors) {
    if (!t.make && !t.hole) check_size(t, t.bytes.size(), where);
    if (!names.insert(t.name).second)
      throw Error(ErrorKind::Internal, where, fmt::format("'{}' was given twice", t.name));
  }
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const TensorFile::Metadata& metadata) {
  check_before_writing(tensors, path.string());
  std::ranges::sort(tensors, [](const auto& a, const auto& b) {
    return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
  });
  auto header = header_text(tensors, metadata);
  std::string prefix;
  for (int i = 0; i < 8; ++i) prefix.push_back(static_cast<char>(header.size() >> (8 * i)));
  AtomicFile file(path);
  file.write(prefix);
  file.write(header);
  for (const auto& t : tensors) {
    if (t.hole) {
      file.write_hole(static_cast<std::int64_t>(bytes_to_write(t)));
      continue;
    }
    auto bytes = t.make ? t.make() : t.bytes;
    if (t.make) check_size(t, bytes.size(), path.string());
    file.write({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  file.commit();
}

Format safetensors_format() {
  return {"safetensors", {".safetensors", ".sft"}, looks_like_safetensors, read_safetensors};
}

}  // namespace distorch::formats
