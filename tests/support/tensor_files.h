#pragma once
#include <ATen/ATen.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/formats/catalog.h"
#include "distorch/formats/safetensors.h"
#include "distorch/weights/checkpoint.h"

// Weights files of a few tensors of any type, for tests that must not depend on models.
namespace distorch::test {

/// A tensor of raw bytes under a type that torch may not have.
struct RawTensor {
  formats::DType dtype = formats::DType::F32;
  std::vector<std::int64_t> shape;
  std::string bytes;
};

inline formats::DType dtype_of(at::ScalarType type) {
  using formats::DType;
  static const std::map<at::ScalarType, DType> names = {
      {at::kBool, DType::BOOL},
      {at::kByte, DType::U8},
      {at::kChar, DType::I8},
      {at::kShort, DType::I16},
      {at::kInt, DType::I32},
      {at::kLong, DType::I64},
      {at::kHalf, DType::F16},
      {at::kBFloat16, DType::BF16},
      {at::kFloat, DType::F32},
      {at::kDouble, DType::F64},
      {at::kFloat8_e4m3fn, DType::F8_E4M3},
      {at::kFloat8_e5m2, DType::F8_E5M2},
      {at::kFloat8_e8m0fnu, DType::F8_E8M0},
  };
  return names.at(type);
}

inline RawTensor raw(const at::Tensor& tensor) {
  auto whole = tensor.contiguous();
  return {dtype_of(tensor.scalar_type()),
          tensor.sizes().vec(),
          {static_cast<const char*>(whole.const_data_ptr()), whole.nbytes()}};
}

/// Bytes of a text, as markers are stored.
inline RawTensor raw_text(const std::string& text) {
  return {formats::DType::U8, {static_cast<std::int64_t>(text.size())}, text};
}

/// A folder that goes away with the object, and weights files in it.
class TensorFiles {
 public:
  TensorFiles() {
    static int count = 0;
    folder_ = std::filesystem::temp_directory_path() /
              ("distorch_files_" + std::to_string(::getpid()) + "_" + std::to_string(count++));
    std::filesystem::create_directories(folder_);
  }
  ~TensorFiles() { std::filesystem::remove_all(folder_); }
  TensorFiles(const TensorFiles&) = delete;

  std::filesystem::path path(const std::string& name) const { return folder_ / name; }

  std::shared_ptr<const formats::TensorFile> write(
      const std::string& name, const std::map<std::string, RawTensor>& tensors) const {
    std::vector<formats::TensorToWrite> list;
    for (const auto& [key, tensor] : tensors)
      list.push_back(
          {key,
           tensor.dtype,
           tensor.shape,
           {reinterpret_cast<const std::byte*>(tensor.bytes.data()), tensor.bytes.size()}});
    formats::write_safetensors(path(name), list);
    return std::make_shared<formats::TensorFile>(formats::open_tensor_file(path(name)));
  }

  weights::Checkpoint checkpoint(const std::map<std::string, RawTensor>& tensors,
                                 const std::string& name = "model.safetensors") const {
    return weights::Checkpoint(write(name, tensors));
  }
  weights::Checkpoint checkpoint(const std::map<std::string, at::Tensor>& tensors,
                                 const std::string& name = "model.safetensors") const {
    std::map<std::string, RawTensor> list;
    for (const auto& [key, tensor] : tensors) list[key] = raw(tensor);
    return checkpoint(list, name);
  }

 private:
  std::filesystem::path folder_;
};

/// What a call throws: "<kind>|<where's file name>|<sentence>"; "accepted" where it does not.
template <class Call>
std::string refusal(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return std::string(name_of(error.kind())) + "|" +
           std::filesystem::path(error.where()).filename().string() + "|" + error.sentence();
  }
  return "accepted";
}

}  // namespace distorch::test
