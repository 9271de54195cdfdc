#include <fmt/format.h>

#include <cstring>
#include <map>

#include "distorch/base/align.h"
#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/convert/blocks.h"
#include "distorch/convert/output.h"

// GGUF version 3. Source: the format's description (github.com/ggml-org/ggml, docs/gguf.md); names
// of metadata as ComfyUI-GGUF and stable-diffusion.cpp read them.
namespace distorch::convert {
namespace {

constexpr std::int64_t kAlignment = 32;
constexpr std::size_t kMostDimensions = 4;
constexpr std::uint32_t kVersion = 3;
enum ValueType : std::uint32_t { kUint32 = 4, kInt32 = 5, kString = 8, kArray = 9 };

class Writer {
 public:
  template <class T>
  void number(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void string(const std::string& value) {
    number<std::uint64_t>(value.size());
    text_ += value;
  }
  std::string& text() { return text_; }

 private:
  std::string text_;
};

const BlockType& type_of(const NewTensor& tensor, const std::string& where) {
  static const std::map<formats::DType, std::string> names = {
      {formats::DType::F32, "F32"}, {formats::DType::F16, "F16"}, {formats::DType::BF16, "BF16"}};
  auto name = tensor.packing;
  if (name.empty() && names.count(tensor.dtype)) name = names.at(tensor.dtype);
  if (const auto* type = block_type_named(name)) return *type;
  throw Error(ErrorKind::Usage, where,
              fmt::format("'{}' has type {}, which GGUF cannot hold; leave it out or convert it",
                          tensor.name, name.empty() ? formats::name_of(tensor.dtype) : name));
}

std::int64_t bytes_of(const NewTensor& tensor, const BlockType& type) {
  std::int64_t numbers = 1;
  for (auto n : tensor.shape) numbers *= n;
  return numbers / type.numbers * type.bytes;
}

/// Sizes from the innermost dimension on, four at most: what is beyond is taken together.
std::vector<std::uint64_t> sizes_of(const NewTensor& tensor) {
  std::vector<std::uint64_t> sizes(tensor.shape.rbegin(), tensor.shape.rend());
  if (sizes.empty()) sizes.push_back(1);
  while (sizes.size() > kMostDimensions) {
    sizes[sizes.size() - 2] *= sizes.back();
    sizes.pop_back();
  }
  return sizes;
}

class Gguf final : public Output {
 public:
  Gguf(const std::filesystem::path& path, const std::vector<NewTensor>& tensors,
       const formats::TensorFile::Metadata& metadata)
      : file_(path) {
    auto head = head_of(tensors, metadata);
    start_ = align_up(static_cast<std::int64_t>(head.size()), kAlignment);
    head.resize(static_cast<std::size_t>(start_), '\0');
    file_.write(head);
  }

  std::int64_t place(const NewTensor& tensor) override {
    const auto begin = start_ + bytes_;
    const auto size = bytes_of(tensor, type_of(tensor, file_.path().string()));
    bytes_ += align_up(size, kAlignment);
    // The last one's padding too has to be there.
    if (size % kAlignment != 0)
      file_.write_at(begin + size, std::string(align_up(size, kAlignment) - size, '\0'));
    return begin;
  }

  void write(std::int64_t offset, std::string_view bytes) override {
    file_.write_at(offset, bytes);
  }

  std::int64_t finish() override {
    file_.commit();
    return start_ + bytes_;
  }

 private:
  /// What most bytes are.
  static const BlockType& main_type(const std::vector<NewTensor>& tensors,
                                    const std::string& where) {
    std::map<const BlockType*, std::int64_t> bytes;
    for (const auto& tensor : tensors) {
      const auto& type = type_of(tensor, where);
      bytes[&type] += bytes_of(tensor, type);
    }
    const auto* best = &block_types().front();
    for (const auto& [type, size] : bytes)
      if (size > bytes[best]) best = type;
    return *best;
  }

  std::string head_of(const std::vector<NewTensor>& tensors,
                      const formats::TensorFile::Metadata& metadata) const {
    const auto where = file_.path().string();
    Writer values;
    std::uint64_t count = 2;
    for (const auto& [key, text] : metadata) {
      values.string(key);
      values.number<std::uint32_t>(kString);
      values.string(text);
      ++count;
    }
    auto add = [&](const char* key, int value) {
      values.string(key);
      values.number<std::uint32_t>(kUint32);
      values.number<std::uint32_t>(static_cast<std::uint32_t>(value));
    };
    add("general.quantization_version", 2);
    add("general.file_type", main_type(tensors, where).file_type);
    Writer infos;
    std::int64_t offset = 0;
    for (const auto& tensor : tensors) {
      if (tensor.shape.size() > kMostDimensions) {
        add_shape(values, tensor);
        ++count;
      }
      const auto& type = type_of(tensor, where);
      const auto sizes = sizes_of(tensor);
      infos.string(tensor.name);
      infos.number<std::uint32_t>(static_cast<std::uint32_t>(sizes.size()));
      for (auto size : sizes) infos.number<std::uint64_t>(size);
      infos.number<std::uint32_t>(static_cast<std::uint32_t>(type.ggml_type));
      infos.number<std::uint64_t>(static_cast<std::uint64_t>(offset));
      offset += align_up(bytes_of(tensor, type), kAlignment);
    }
    Writer head;
    head.text() = "GGUF";
    head.number<std::uint32_t>(kVersion);
    head.number<std::uint64_t>(tensors.size());
    head.number<std::uint64_t>(count);
    return head.text() + values.text() + infos.text();
  }

  /// The shape of a tensor with more dimensions than the format has.
  static void add_shape(Writer& values, const NewTensor& tensor) {
    values.string("comfy.gguf.orig_shape." + tensor.name);
    values.number<std::uint32_t>(kArray);
    values.number<std::uint32_t>(kInt32);
    values.number<std::uint64_t>(tensor.shape.size());
    for (auto size : tensor.shape) values.number<std::int32_t>(static_cast<std::int32_t>(size));
  }

  AtomicFile file_;
  std::int64_t start_ = 0, bytes_ = 0;
};

}  // namespace

std::unique_ptr<Output> gguf_output(const std::filesystem::path& path,
                                    const std::vector<NewTensor>& tensors,
                                    const formats::TensorFile::Metadata& metadata) {
  return std::make_unique<Gguf>(path, tensors, metadata);
}

}  // namespace distorch::convert
