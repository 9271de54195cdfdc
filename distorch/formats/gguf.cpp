#include "distorch/formats/gguf.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <unordered_set>

#include "distorch/base/align.h"
#include "distorch/base/error.h"
#include "distorch/formats/gguf_cursor.h"

namespace distorch::formats {

namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr std::uint32_t kOldest = 2, kNewest = 3;
constexpr std::uint64_t kMostNameBytes = 65535;
constexpr std::uint64_t kUsualAlignment = 32, kMostAlignment = 1 << 20;
/// ggml has four; files for ComfyUI keep kernels of video models in five.
constexpr std::uint32_t kMostDimensions = 8;
// What the shortest value (a name, a type, a byte) and the shortest tensor description (a name, the
// number of dimensions, a type, an offset) take.
constexpr std::uint64_t kLeastValueBytes = 8 + 4 + 1, kLeastTensorBytes = 8 + 4 + 4 + 8;
const std::string kShapeKey = "comfy.gguf.orig_shape.";

struct Counts {
  std::uint64_t tensors = 0, values = 0;
};

Counts read_start(GgufCursor& cursor, GgufHeader& header) {
  char magic[4];
  for (auto& letter : magic) letter = cursor.number<char>("the format's mark");
  if (std::string_view(magic, sizeof magic) != kMagic) cursor.fail("does not begin with 'GGUF'", 0);
  header.version = cursor.number<std::uint32_t>("the version");
  constexpr std::uint32_t low_half = 0xFFFF;
  if ((header.version & low_half) == 0 && header.version != 0)
    cursor.fail("is a big-endian GGUF file, which is not supported; convert it to little endian",
                sizeof magic);
  if (header.version < kOldest || header.version > kNewest)
    cursor.fail(fmt::format("is GGUF of version {}; versions {} and {} are read", header.version,
                            kOldest, kNewest),
                sizeof magic);
  auto count = [&](const char* what, std::uint64_t least) {
    const auto at = cursor.position();
    const auto number = cursor.number<std::uint64_t>(fmt::format("the number of {}", what));
    if (number > cursor.remaining() / least)
      cursor.fail(fmt::format("says it has {} {}, the file has {} bytes left", number, what,
                              cursor.remaining()),
                  at);
    return number;
  };
  Counts counts;
  counts.tensors = count("tensors", kLeastTensorBytes);
  counts.values = count("values", kLeastValueBytes);
  return counts;
}

void read_values(GgufCursor& cursor, std::uint64_t count, GgufHeader& header) {
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto at = cursor.position();
    auto name = cursor.text(fmt::format("the name of value {}", i), kMostNameBytes);
    auto value = read_value(cursor, fmt::format("value '{}'", name));
    if (!header.values.emplace(name, std::move(value)).second)
      cursor.fail(fmt::format("value '{}' is there twice", name), at);
  }
}

std::uint64_t alignment_of(const GgufCursor& cursor, const GgufHeader& header) {
  auto at = header.values.find("general.alignment");
  if (at == header.values.end()) return kUsualAlignment;
  const auto* number = std::get_if<std::uint64_t>(&at->second);
  if (!number || !std::has_single_bit(*number) || *number > kMostAlignment)
    cursor.fail(
        fmt::format("value 'general.alignment' must be a power of two up to {}", kMostAlignment),
        0);
  return *number;
}

/// A tensor's description as it stands in the file.
struct Described {
  TensorInfo info;
  std::uint64_t offset = 0;  // in the tensor data
  std::size_t at = 0;        // byte of the description
};

void set_type(const GgufCursor& cursor, std::uint32_t id, Described& tensor) {
  auto& info = tensor.info;
  const auto* type = block_type(id);
  if (!type) {
    const auto* removed = removed_block_type(id);
    cursor.fail(
        removed ? fmt::format("'{}' is of type {}, which is no longer in use", info.name, removed)
                : fmt::format("'{}' is of type {}, which is not known", info.name, id),
        tensor.at);
  }
  std::uint64_t elements = 1;
  for (auto n : info.shape)
    if (__builtin_mul_overflow(elements, static_cast<std::uint64_t>(n), &elements) ||
        elements > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      cursor.fail(fmt::format("'{}' has shape [{}], which has too many elements", info.name,
                              fmt::join(info.shape, ", ")),
                  tensor.at);
  const auto row = info.shape.empty() ? 1 : info.shape.back();
  if (row % type->elements != 0)
    cursor.fail(fmt::format("'{}' is of type {} with rows of {} elements, which are no whole "
                            "blocks of {}",
                            info.name, type->name, row, type->elements),
                tensor.at);
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements / static_cast<std::uint64_t>(type->elements),
                             static_cast<std::uint64_t>(type->bytes), &bytes))
    cursor.fail(fmt::format("'{}' has shape [{}], which has too many bytes", info.name,
                            fmt::join(info.shape, ", ")),
                tensor.at);
  info.size_bytes = bytes;
  info.dtype = type->plain.value_or(DType::U8);
  if (!type->plain) info.packing = type->name;
}

Described read_tensor(GgufCursor& cursor, std::uint64_t index) {
  Described tensor{.at = cursor.position()};
  auto& info = tensor.info;
  info.name = cursor.text(fmt::format("the name of tensor {}", index), kMostNameBytes);
  const auto what = fmt::format("the description of '{}'", info.name);
  const auto dimensions = cursor.number<std::uint32_t>(what);
  if (dimensions > kMostDimensions)
    cursor.fail(fmt::format("'{}' has {} dimensions, at most {} are taken", info.name, dimensions,
                            kMostDimensions),
                tensor.at);
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    const auto n = cursor.number<std::uint64_t>(what);
    if (n > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      cursor.fail(fmt::format("'{}' has a dimension of {}", info.name, n), tensor.at);
    info.shape.insert(info.shape.begin(), static_cast<std::int64_t>(n));
  }
  set_type(cursor, cursor.number<std::uint32_t>(what), tensor);
  tensor.offset = cursor.number<std::uint64_t>(what);
  return tensor;
}

/// The shape that the tensor had before its rows were made whole blocks.
void set_original_shape(const GgufCursor& cursor, const ByteReader& read, const GgufHeader& header,
                        Described& tensor) {
  auto& info = tensor.info;
  const auto key = kShapeKey + info.name;
  auto at = header.values.find(key);
  if (at == header.values.end()) return;
  const auto* array = std::get_if<GgufArray>(&at->second);
  if (!array || array->element != GgufType::I32 || array->count > kMostDimensions)
    cursor.fail(fmt::format("value '{}' must be an array of at most {} 32-bit integers", key,
                            kMostDimensions),
                tensor.at);
  std::vector<std::int32_t> sizes(static_cast<std::size_t>(array->count));
  read(array->offset_bytes, std::as_writable_bytes(std::span(sizes)));
  std::vector<std::int64_t> shape(sizes.begin(), sizes.end());
  std::int64_t elements = 1;
  bool good = true;
  for (auto n : shape) good = good && n > 0 && !__builtin_mul_overflow(elements, n, &elements);
  if (!good || elements != info.elements())
    cursor.fail(fmt::format("value '{}' says [{}], but the tensor has shape [{}]", key,
                            fmt::join(shape, ", "), fmt::join(info.shape, ", ")),
                tensor.at);
  info.shape = std::move(shape);
}

void place(const GgufCursor& cursor, std::uint64_t alignment, std::uint64_t data_start,
           std::size_t file_size, Described& tensor) {
  const auto& name = tensor.info.name;
  if (tensor.offset % alignment != 0)
    cursor.fail(fmt::format("'{}' begins at byte {} of the tensor data, which is no multiple of {}",
                            name, tensor.offset, alignment),
                tensor.at);
  // A file of tensors without numbers may end before the padding behind its header.
  const auto start = std::min<std::uint64_t>(data_start, file_size), room = file_size - start;
  if (tensor.offset > room || tensor.info.size_bytes > room - tensor.offset)
    cursor.fail(fmt::format("'{}' has {} bytes from byte {} of the tensor data on, which has {}",
                            name, tensor.info.size_bytes, tensor.offset, room),
                tensor.at);
  tensor.info.offset_bytes = static_cast<std::size_t>(start + tensor.offset);
}

void check_overlaps(const GgufCursor& cursor, const std::vector<Described>& tensors) {
  for (std::size_t i = 1; i < tensors.size(); ++i) {
    const auto &before = tensors[i - 1].info, &info = tensors[i].info;
    if (info.offset_bytes < before.offset_bytes + before.size_bytes)
      cursor.fail(
          fmt::format("'{}' begins at byte {}, inside '{}' which ends at {}", info.name,
                      info.offset_bytes, before.name, before.offset_bytes + before.size_bytes),
          tensors[i].at);
  }
}

}  // namespace

GgufHeader parse_gguf(const ByteReader& read, std::size_t file_size, const std::string& where) {
  GgufHeader header;
  GgufCursor cursor(read, file_size, where);
  const auto counts = read_start(cursor, header);
  read_values(cursor, counts.values, header);
  const auto alignment = alignment_of(cursor, header);
  std::vector<Described> tensors;
  std::unordered_set<std::string> names;
  for (std::uint64_t i = 0; i < counts.tensors; ++i) {
    tensors.push_back(read_tensor(cursor, i));
    if (!names.insert(tensors.back().info.name).second)
      cursor.fail(fmt::format("'{}' is there twice", tensors.back().info.name), tensors.back().at);
  }
  const auto data_start = static_cast<std::uint64_t>(
      align_up(static_cast<std::int64_t>(cursor.position()), static_cast<std::int64_t>(alignment)));
  for (auto& tensor : tensors) {
    place(cursor, alignment, data_start, file_size, tensor);
    set_original_shape(cursor, read, header, tensor);
  }
  std::ranges::stable_sort(tensors, [](const auto& a, const auto& b) {
    return std::pair(a.info.offset_bytes, a.info.size_bytes) <
           std::pair(b.info.offset_bytes, b.info.size_bytes);
  });
  check_overlaps(cursor, tensors);
  for (auto& tensor : tensors) header.tensors.push_back(std::move(tensor.info));
  return header;
}

namespace {

ByteReader reader_of(const MappedFile& file) {
  return [&file](std::size_t offset, std::span<std::byte> to) { file.read(offset, to); };
}

/// Empty for arrays, which are no metadata of a TensorFile.
std::string text_of(const GgufValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* number = std::get_if<std::uint64_t>(&value)) return fmt::to_string(*number);
  if (const auto* number = std::get_if<std::int64_t>(&value)) return fmt::to_string(*number);
  if (const auto* number = std::get_if<double>(&value)) return fmt::to_string(*number);
  return {};
}

std::uint64_t number_of(const GgufHeader& header, const std::string& name) {
  auto at = header.values.find(name);
  const auto* number =
      at == header.values.end() ? nullptr : std::get_if<std::uint64_t>(&at->second);
  return number ? *number : 0;
}

/// The other files of a model in several are found by their names.
void check_split(const GgufHeader& header, const std::filesystem::path& path) {
  const auto count = number_of(header, "split.count");
  if (count < 2) return;
  const auto wanted = fmt::format("-{:05}-of-{:05}", number_of(header, "split.no") + 1, count);
  if (!path.stem().string().ends_with(wanted))
    throw Error(ErrorKind::Format, path.string(),
                fmt::format("is part {} of a model in {} files and must be called 'NAME{}.gguf', "
                            "as the others in its folder",
                            number_of(header, "split.no") + 1, count, wanted));
}

}  // namespace

GgufHeader gguf_header(const MappedFile& file) {
  return parse_gguf(reader_of(file), file.size(), file.path().string());
}

std::vector<std::string> gguf_strings(const MappedFile& file, const GgufArray& array) {
  const auto read = reader_of(file);
  const auto where = file.path().string();
  GgufCursor cursor(read, file.size(), where);
  cursor.skip(array.offset_bytes, "an array");
  if (array.element != GgufType::String)
    cursor.fail("an array of texts was expected", array.offset_bytes);
  std::vector<std::string> texts;
  for (std::uint64_t i = 0; i < array.count; ++i)
    texts.push_back(cursor.text("an array's text", array.size_bytes));
  return texts;
}

std::vector<double> gguf_numbers(const MappedFile& file, const GgufArray& array) {
  const auto read = reader_of(file);
  const auto where = file.path().string();
  GgufCursor cursor(read, file.size(), where);
  cursor.skip(array.offset_bytes, "an array");
  std::vector<double> numbers;
  auto take = [&]<class Number>(Number) {
    for (std::uint64_t i = 0; i < array.count; ++i)
      numbers.push_back(static_cast<double>(cursor.number<Number>("an array's number")));
  };
  switch (array.element) {
    case GgufType::U8:
    case GgufType::Bool: take(std::uint8_t{}); break;
    case GgufType::I8: take(std::int8_t{}); break;
    case GgufType::U16: take(std::uint16_t{}); break;
    case GgufType::I16: take(std::int16_t{}); break;
    case GgufType::U32: take(std::uint32_t{}); break;
    case GgufType::I32: take(std::int32_t{}); break;
    case GgufType::U64: take(std::uint64_t{}); break;
    case GgufType::I64: take(std::int64_t{}); break;
    case GgufType::F32: take(float{}); break;
    case GgufType::F64: take(double{}); break;
    default: cursor.fail("an array of numbers was expected", array.offset_bytes);
  }
  return numbers;
}

TensorFile read_gguf(const std::filesystem::path& path) {
  auto file = MappedFile::open(path);
  auto header = gguf_header(*file);
  check_split(header, path);
  TensorFile::Metadata metadata;
  for (const auto& [name, value] : header.values)
    if (!std::holds_alternative<GgufArray>(value)) metadata[name] = text_of(value);
  return TensorFile(std::move(file), "gguf", std::move(header.tensors), std::move(metadata));
}

Format gguf_format() {
  return {
      "gguf", {".gguf"}, [](std::string_view head) { return head.starts_with(kMagic); }, read_gguf};
}

}  // namespace distorch::formats
