#include "distorch/formats/tensor_file.h"

namespace distorch::formats {

std::int64_t TensorInfo::elements() const {
  std::int64_t count = 1;
  for (auto n : shape) count *= n;  // the reader made sure that this does not overflow
  return count;
}

TensorFile::TensorFile(std::shared_ptr<const MappedFile> mapping, std::string format,
                       std::vector<TensorInfo> tensors, Metadata metadata)
    : mapping_(std::move(mapping)),
      format_(std::move(format)),
      tensors_(std::move(tensors)),
      metadata_(std::move(metadata)) {
  index_.reserve(tensors_.size());
  for (std::size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
}

const TensorInfo* TensorFile::find(std::string_view name) const {
  auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

std::span<const std::byte> TensorFile::bytes(const TensorInfo& tensor) const {
  return mapping_->bytes(tensor.range());
}

std::size_t TensorFile::tensor_bytes() const {
  std::size_t total = 0;
  for (const auto& t : tensors_) total += t.size_bytes;
  return total;
}

}  // namespace distorch::formats
