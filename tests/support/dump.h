#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "tests/support/source_dir.h"

// Reads the parity dumps of tests/parity. Depends on nothing of distorch, so that a test of any
// folder may use it and a fault in our own file reader cannot hide.
namespace distorch::test {

inline std::string slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw std::runtime_error(path.string() + ": cannot be read");
  }
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

using Dump = std::map<std::string, at::Tensor>;

/// All tensors of a safetensors file, copied: F32, I64, I32 and U8.
inline Dump load_dump_file(const std::filesystem::path& path) {
  const std::map<std::string, at::ScalarType> types = {
      {"F32", at::kFloat}, {"I64", at::kLong}, {"I32", at::kInt}, {"U8", at::kByte}};
  const std::string bytes = slurp(path);
  std::uint64_t header_size = 0;
  if (bytes.size() < sizeof header_size) {
    throw std::runtime_error(path.string() + ": too short");
  }
  std::memcpy(&header_size, bytes.data(), sizeof header_size);
  const std::size_t begin = sizeof header_size + header_size;
  const auto header = nlohmann::json::parse(bytes.substr(sizeof header_size, header_size));
  Dump out;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      continue;
    }
    const auto shape = entry.at("shape").get<std::vector<std::int64_t>>();
    const auto offsets = entry.at("data_offsets").get<std::vector<std::size_t>>();
    at::Tensor tensor = at::empty(shape, types.at(entry.at("dtype").get<std::string>()));
    if (offsets[1] - offsets[0] != tensor.nbytes() || begin + offsets[1] > bytes.size()) {
      throw std::runtime_error(path.string() + ": " + name + " lies outside the file");
    }
    std::memcpy(tensor.data_ptr(), bytes.data() + begin + offsets[0], tensor.nbytes());
    out.emplace(name, tensor);
  }
  return out;
}

/// tests/parity/NAME.safetensors
inline Dump load_dump(const std::string& name) {
  return load_dump_file(parity_dir() / (name + ".safetensors"));
}

/// tests/parity/NAME.json
inline nlohmann::json load_manifest(const std::string& name) {
  return nlohmann::json::parse(slurp(parity_dir() / (name + ".json")));
}

/// Largest difference over the largest value of `wanted`; infinite where shapes or finiteness
/// differ.
inline double relative_error(const at::Tensor& got, const at::Tensor& wanted) {
  if (got.sizes() != wanted.sizes() || !at::isfinite(got).all().item().toBool()) {
    return std::numeric_limits<double>::infinity();
  }
  if (wanted.numel() == 0) {
    return 0;
  }
  const at::Tensor a = got.to(at::kCPU, at::kDouble);
  const at::Tensor b = wanted.to(at::kCPU, at::kDouble);
  const double scale = b.abs().max().item().toDouble();
  return (a - b).abs().max().item().toDouble() / (scale > 0 ? scale : 1.0);
}

}  // namespace distorch::test
