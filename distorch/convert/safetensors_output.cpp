#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "distorch/base/align.h"
#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/convert/output.h"
#include "distorch/formats/gguf_types.h"
#include "distorch/formats/safetensors.h"

namespace distorch::convert {
namespace {

constexpr std::int64_t kPrefix = 8;  // the header's length

using Json = nlohmann::json;

std::string entry(const NewTensor& tensor, std::int64_t begin) {
  return fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                     Json(tensor.name).dump(), name_of(tensor.dtype), fmt::join(tensor.shape, ","),
                     begin, begin + tensor.size_bytes());
}

std::string head_of(const formats::TensorFile::Metadata& metadata) {
  return metadata.empty() ? "{" : "{\"__metadata__\":" + Json(metadata).dump();
}

/// The header comes last, when sizes are known; room for it is kept at the beginning and filled up
/// with spaces, as the format allows.
class Safetensors final : public Output {
 public:
  Safetensors(const std::filesystem::path& path, const std::vector<NewTensor>& most,
              const formats::TensorFile::Metadata& metadata)
      : file_(path), text_(head_of(metadata)) {
    constexpr std::int64_t widest = std::int64_t{1} << 52;
    auto length = static_cast<std::int64_t>(text_.size()) + 1;
    for (const auto& tensor : most)
      length += static_cast<std::int64_t>(entry(tensor, widest).size()) + 1;
    length_ = align_up(length, kPrefix);
    if (static_cast<std::size_t>(length_) > formats::safetensors_header_limit)
      throw Error(ErrorKind::Usage, path.string(),
                  fmt::format("would need a header of {} bytes, {} are allowed", length_,
                              formats::safetensors_header_limit));
  }

  std::int64_t place(const NewTensor& tensor) override {
    if (text_.size() > 1) text_ += ',';
    text_ += entry(tensor, bytes_);
    bytes_ += tensor.size_bytes();
    return kPrefix + length_ + bytes_ - tensor.size_bytes();
  }

  void write(std::int64_t offset, std::string_view bytes) override {
    file_.write_at(offset, bytes);
  }

  std::int64_t finish() override {
    text_ += '}';
    if (static_cast<std::int64_t>(text_.size()) > length_)
      throw Error(ErrorKind::Internal, file_.path().string(),
                  "the header is longer than the room that was kept for it");
    text_.resize(static_cast<std::size_t>(length_), ' ');
    std::string prefix;
    for (int i = 0; i < kPrefix; ++i) prefix.push_back(static_cast<char>(length_ >> 8 * i));
    file_.write_at(0, prefix + text_);
    file_.commit();
    return kPrefix + length_ + bytes_;
  }

 private:
  AtomicFile file_;
  std::string text_;
  std::int64_t length_ = 0, bytes_ = 0;
};

}  // namespace

std::int64_t NewTensor::size_bytes() const {
  std::int64_t numbers = 1;
  for (auto n : shape) numbers *= n;
  if (const auto* type = formats::block_type_named(packing))
    return numbers / type->elements * type->bytes;
  return numbers * formats::bits_of(dtype) / 8;
}

std::unique_ptr<Output> safetensors_output(const std::filesystem::path& path,
                                           const std::vector<NewTensor>& most,
                                           const formats::TensorFile::Metadata& metadata) {
  return std::make_unique<Safetensors>(path, most, metadata);
}

}  // namespace distorch::convert
