#pragma once
#include "distorch/formats/gguf_writer.h"
#include "distorch/quant/gguf_decode.h"
#include "distorch/quant/gguf_encode.h"
#include "distorch/quant/gguf_in_half.h"
#include "tests/nodes/tiny_app.h"

/// Tiny models as GGUF files, and as what their numbers stand for.
namespace distorch::test {

using TensorMap = std::map<std::string, at::Tensor>;

/// One tensor as a GGUF file has it: blocks, or F16 where it is no whole number of them, or F32.
struct TinyBlocks {
  const formats::BlockType* type;
  at::Tensor bytes;    // as they are written
  at::Tensor numbers;  // what they stand for, float32
};

inline TinyBlocks tiny_blocks(const at::Tensor& tensor, const formats::BlockType& wanted,
                              std::optional<at::ScalarType> through) {
  if (tensor.dim() < 2) return {formats::block_type_named("F32"), tensor, tensor};
  if (formats::gguf_shape(tensor.sizes().vec(), wanted).empty()) {
    auto half = tensor.to(at::kHalf);
    return {formats::block_type_named("F16"), half, half.to(at::kFloat)};
  }
  const auto id = static_cast<int>(wanted.id);
  auto bytes = quant::encode_blocks(tensor.flatten(), id);
  auto numbers = through && through != at::kHalf
                     ? quant::decode_blocks(bytes, id, *through).to(at::kFloat)
                     : quant::decode_in_half(bytes, id);
  return {&wanted, bytes, numbers.view(tensor.sizes())};
}

/// Writes `tensors` under the names that `spelled` gives; what they stand for, under their own,
/// rounded to `through` as they are decoded; by default, and for float16, every step is (gguf_in_half.h).
inline TensorMap write_tiny_gguf(
    const fs::path& path, const TensorMap& tensors, const char* type,
    const std::string& architecture,
    const std::function<std::string(std::string)>& spelled = [](std::string name) { return name; },
    std::optional<at::ScalarType> through = {}) {
  std::vector<formats::GgufTensor> list;
  std::vector<at::Tensor> bytes;
  TensorMap numbers;
  for (const auto& [name, tensor] : tensors) {
    auto blocks = tiny_blocks(tensor.contiguous(), *formats::block_type_named(type), through);
    list.push_back({.name = spelled(name),
                    .type = blocks.type,
                    .shape = tensor.sizes().vec(),
                    .bytes = {static_cast<const std::byte*>(blocks.bytes.const_data_ptr()),
                              blocks.bytes.nbytes()}});
    bytes.push_back(blocks.bytes);
    numbers[name] = blocks.numbers.contiguous();
  }
  fs::create_directories(path.parent_path());
  formats::write_gguf(path, list, {{"general.architecture", architecture}});
  return numbers;
}

/// The tensors of dumps below a prefix, without it.
inline TensorMap tiny_part(const std::vector<std::string>& dumps, const std::string& prefix) {
  TensorMap part;
  for (const auto& [name, value] : tiny_tensors(dumps))
    if (name.starts_with(prefix)) part[name.substr(prefix.size())] = value;
  return part;
}

}  // namespace distorch::test
