#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "distorch/formats/tensor_file.h"

namespace distorch::convert {

/// A tensor of a file that is written. `packing` as in formats::TensorInfo: a block type of GGUF,
/// for which `dtype` is U8 and `shape` that of the numbers.
struct NewTensor {
  std::string name;
  formats::DType dtype = formats::DType::F32;
  std::vector<std::int64_t> shape;
  std::string packing;

  std::int64_t size_bytes() const;
};

/// A weights file on its way to the disk: it appears whole under its name at the end, or not at all
/// (base/atomic_file.h, whose errors these are).
class Output {
 public:
  virtual ~Output() = default;
  /// Makes room for the tensor behind those before it; where it begins in the file.
  virtual std::int64_t place(const NewTensor& tensor) = 0;
  virtual void write(std::int64_t offset, std::string_view bytes) = 0;
  /// Writes what describes the tensors and gives the file its name. Its bytes.
  virtual std::int64_t finish() = 0;
};

/// `most`: all tensors that may follow, at the largest that they may be; they keep their order.
std::unique_ptr<Output> safetensors_output(const std::filesystem::path& path,
                                           const std::vector<NewTensor>& most,
                                           const formats::TensorFile::Metadata& metadata);
/// `tensors`: exactly those that follow. `metadata` gives "general.architecture" and such.
std::unique_ptr<Output> gguf_output(const std::filesystem::path& path,
                                    const std::vector<NewTensor>& tensors,
                                    const formats::TensorFile::Metadata& metadata);

}  // namespace distorch::convert
