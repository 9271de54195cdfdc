#include "distorch/formats/gguf_writer.h"

#include <fmt/format.h>

#include <functional>
#include <numeric>
#include <type_traits>

#include "distorch/base/align.h"
#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/formats/gguf.h"

namespace distorch::formats {

namespace {

constexpr std::int64_t kAlignment = 32;
constexpr std::int64_t kReshapedRow = 256;
constexpr std::uint32_t kVersion = 3;

std::int64_t elements_of(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::int64_t bytes_of(const GgufTensor& tensor) {
  return elements_of(tensor.shape) / tensor.type->elements * tensor.type->bytes;
}

template <class Number>
void put(std::string& out, Number number) {
  out.append(reinterpret_cast<const char*>(&number), sizeof number);
}

void put(std::string& out, const std::string& text) {
  put(out, static_cast<std::uint64_t>(text.size()));
  out += text;
}

template <class Value>
constexpr GgufType type_of() {
  if constexpr (std::is_same_v<Value, std::string>) return GgufType::String;
  if constexpr (std::is_same_v<Value, std::uint32_t>) return GgufType::U32;
  if constexpr (std::is_same_v<Value, std::int32_t>) return GgufType::I32;
  if constexpr (std::is_same_v<Value, float>) return GgufType::F32;
  return GgufType::Bool;
}

template <class Value>
void put_value(std::string& out, const Value& value) {
  put(out, type_of<Value>());
  put(out, value);
}

template <class Value>
void put_value(std::string& out, const std::vector<Value>& values) {
  put(out, GgufType::Array);
  put(out, type_of<Value>());
  put(out, static_cast<std::uint64_t>(values.size()));
  for (const auto& value : values) put(out, value);
}

void put_setting(std::string& out, const std::string& name, const GgufSetting& setting) {
  put(out, name);
  std::visit([&](const auto& value) { put_value(out, value); }, setting);
}

/// The shape that the file says.
std::vector<std::int64_t> written_shape(const GgufTensor& tensor) {
  auto shape = gguf_shape(tensor.shape, *tensor.type);
  if (shape.empty() && !tensor.shape.empty())
    throw Error(ErrorKind::Internal, tensor.name,
                fmt::format("is no whole number of {} blocks", tensor.type->name));
  return shape;
}

}  // namespace

std::vector<std::int64_t> gguf_shape(const std::vector<std::int64_t>& shape,
                                     const BlockType& type) {
  if (shape.empty() || shape.back() % type.elements == 0) return shape;
  const auto elements = elements_of(shape);
  if (elements % kReshapedRow != 0) return {};
  return {elements / kReshapedRow, kReshapedRow};
}

std::string gguf_head(const std::vector<GgufTensor>& tensors, const GgufSettings& settings) {
  std::string values, descriptions;
  auto count = settings.size();
  for (const auto& [name, setting] : settings) put_setting(values, name, setting);
  std::int64_t offset = 0;
  for (const auto& tensor : tensors) {
    const auto shape = written_shape(tensor);
    if (shape != tensor.shape) {
      ++count;
      put_setting(values, "comfy.gguf.orig_shape." + tensor.name,
                  std::vector<std::int32_t>(tensor.shape.begin(), tensor.shape.end()));
    }
    put(descriptions, tensor.name);
    put(descriptions, static_cast<std::uint32_t>(shape.size()));
    for (auto n = shape.rbegin(); n != shape.rend(); ++n)
      put(descriptions, static_cast<std::uint64_t>(*n));
    put(descriptions, tensor.type->id);
    put(descriptions, static_cast<std::uint64_t>(offset));
    offset = align_up(offset + bytes_of(tensor), kAlignment);
  }
  std::string head = "GGUF";
  put(head, kVersion);
  put(head, static_cast<std::uint64_t>(tensors.size()));
  put(head, static_cast<std::uint64_t>(count));
  head += values + descriptions;
  head.resize(
      static_cast<std::size_t>(align_up(static_cast<std::int64_t>(head.size()), kAlignment)));
  return head;
}

void write_gguf(const std::filesystem::path& path, const std::vector<GgufTensor>& tensors,
                const GgufSettings& settings) {
  const auto head = gguf_head(tensors, settings);
  AtomicFile file(path);
  file.write(head);
  for (const auto& tensor : tensors) {
    if (tensor.hole) {
      file.write_hole(align_up(bytes_of(tensor), kAlignment));
      continue;
    }
    const auto bytes = tensor.make ? tensor.make() : tensor.bytes;
    const auto size = static_cast<std::int64_t>(bytes.size());
    if (size != bytes_of(tensor))
      throw Error(
          ErrorKind::Internal, path.string(),
          fmt::format("'{}' takes {} bytes, {} were given", tensor.name, bytes_of(tensor), size));
    file.write({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    file.write(std::string(static_cast<std::size_t>(align_up(size, kAlignment) - size), '\0'));
  }
  file.commit();
}

}  // namespace distorch::formats
