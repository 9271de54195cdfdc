#pragma once
#include <doctest/doctest.h>

#include <unistd.h>

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "distorch/formats/catalog.h"
#include "distorch/formats/safetensors.h"
#include "distorch/weights/checkpoint.h"
#include "tests/support/plain_source.h"
#include "tests/support/source_dir.h"

/// The tiny models of tests/parity: names and shapes from the dump's JSON, values from the seeded
/// rule in its README.
namespace distorch::test {

// The default generator starts at random; tests should not.
// Not at::manual_seed: that looks for accelerators before their libraries are loaded.
inline const bool seeded =
    (at::Generator(at::detail::getDefaultCPUGenerator()).set_current_seed(20), true);

/// Largest difference over the largest value expected: what parity tests compare with 1e-4.
inline double difference(const at::Tensor& got, const at::Tensor& wanted) {
  REQUIRE(got.sizes() == wanted.sizes());
  return ((got - wanted).abs().max() / wanted.abs().max()).item<double>();
}

inline weights::Checkpoint open_checkpoint(const std::filesystem::path& path) {
  return weights::Checkpoint(
      std::make_shared<formats::TensorFile>(formats::open_tensor_file(path)));
}

/// Tensors that the reference computed.
class Dump {
 public:
  explicit Dump(const std::string& name)
      : file_(open_checkpoint(parity_dir() / (name + ".safetensors"))) {}
  bool has(const std::string& name) const { return file_.has(name); }
  at::Tensor operator[](const std::string& name) const {
    REQUIRE_MESSAGE(file_.has(name), name);
    return weights::mapped_tensor(*file_.find(name)).clone();
  }

 private:
  weights::Checkpoint file_;
};

inline std::uint32_t crc32(const std::string& text) {
  std::uint32_t crc = ~0u;
  for (unsigned char byte : text) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0u);
  }
  return ~crc;
}

/// The value of a tiny model's tensor, from its full name and shape.
inline at::Tensor tiny_weight(const std::string& name, const std::vector<std::int64_t>& shape) {
  auto value = at::randn(shape, at::detail::createCPUGenerator(crc32(name)));
  if (shape.size() < 2) return value.mul_(0.1).add_(name.ends_with("weight") ? 1.0 : 0.0);
  std::int64_t fan_in = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) fan_in *= shape[i];
  return value.mul_(1.0 / std::sqrt(static_cast<double>(fan_in)));
}

/// A safetensors file of these tensors, opened; it goes away with the object.
class TemporaryCheckpoint {
 public:
  explicit TemporaryCheckpoint(const std::map<std::string, at::Tensor>& tensors) {
    static int count = 0;
    path_ =
        std::filesystem::temp_directory_path() / ("distorch_models_" + std::to_string(::getpid()) +
                                                  "_" + std::to_string(count++) + ".safetensors");
    std::vector<formats::TensorToWrite> list;
    for (const auto& [name, tensor] : tensors)
      list.push_back({name,
                      formats::DType::F32,
                      tensor.sizes().vec(),
                      {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}});
    formats::write_safetensors(path_, list);
    file_ = open_checkpoint(path_);
  }
  ~TemporaryCheckpoint() { std::filesystem::remove(path_); }
  TemporaryCheckpoint(const TemporaryCheckpoint&) = delete;

  const weights::Checkpoint& operator*() const { return file_; }
  const weights::Checkpoint* operator->() const { return &file_; }

 private:
  std::filesystem::path path_;
  weights::Checkpoint file_;
};

inline std::map<std::string, at::Tensor> tiny_tensors(const std::vector<std::string>& dumps) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& dump : dumps) {
    auto json = nlohmann::json::parse(std::ifstream(parity_dir() / (dump + ".json")));
    for (const auto& [name, shape] : json.at("tensors").items())
      tensors[name] = tiny_weight(name, shape.get<std::vector<std::int64_t>>());
    for (const auto& [name, values] : json.at("first_values").items()) {
      auto wanted = at::tensor(values.get<std::vector<double>>(), at::kFloat);
      REQUIRE_MESSAGE(
          at::allclose(tensors.at(name).flatten().narrow(0, 0, wanted.size(0)), wanted, 1e-5, 1e-7),
          name);
    }
  }
  return tensors;
}

/// A checkpoint that has shapes only, as if a header had been read: for models too large for a
/// test's memory.
inline weights::Checkpoint shapes_only(const weights::Manifest& manifest,
                                       const std::string& prefix = "") {
  weights::Checkpoint checkpoint;
  for (const auto& weight : manifest.weights())
    checkpoint.add(prefix + weight.name, {.dtype = formats::DType::F16, .shape = weight.shape});
  return checkpoint;
}

inline std::int64_t parameters(const weights::Manifest& manifest) {
  std::int64_t sum = 0;
  for (const auto& weight : manifest.weights()) {
    std::int64_t product = 1;
    for (auto size : weight.shape) product *= size;
    sum += product;
  }
  return sum;
}

/// Runs every block twice and fails unless both results have the same bits and the inputs are
/// untouched: what blocks promise, so that they can be repeated after an out-of-memory error.
class TwiceSource : public PlainSource {
 public:
  using PlainSource::PlainSource;
  weights::Tensors run(int block, const weights::Tensors& inputs,
                       const weights::Body& body) override {
    weights::Tensors before;
    for (const auto& input : inputs) before.push_back(input.defined() ? input.clone() : input);
    auto first = body(inputs);
    auto copies = first;
    for (auto& tensor : copies) tensor = tensor.clone();
    auto second = body(inputs);
    REQUIRE(first.size() == second.size());
    for (std::size_t i = 0; i < second.size(); ++i) CHECK(at::equal(copies[i], second[i]));
    for (std::size_t i = 0; i < inputs.size(); ++i)
      if (inputs[i].defined()) CHECK(at::equal(before[i], inputs[i]));
    if (++runs[block] == 1) order.push_back(block);
    return second;
  }
  /// Whether blocks ran in the order in which they were declared, which is what plans count on.
  bool in_order() const { return std::is_sorted(order.begin(), order.end()); }
  std::map<int, int> runs;
  std::vector<int> order;
};

}  // namespace distorch::test
