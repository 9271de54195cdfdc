#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "distorch/base/rig.h"
#include "distorch/formats/safetensors.h"
#include "distorch/streaming/streamed_model.h"
#include "distorch/weights/checkpoint.h"
#include "distorch/weights/lora.h"

namespace toy {

using namespace distorch;

/// A stack of residual matrices, one block each: small, but every block needs its own weights.
class Model {
 public:
  Model(int blocks, std::int64_t width) : width_(width) {
    weights::Scope root(manifest_);
    for (int i = 0; i < blocks; ++i) {
      auto scope = (root / "blocks" / i).block();
      layers_.push_back({weights::Block(scope), scope.weight("weight", {width, width}),
                         scope.weight("bias", {width})});
    }
  }

  /// x [rows, width] -> the same; one pass over all blocks, or those from `first` to before `end`.
  at::Tensor forward(at::Tensor x, std::size_t first = 0, std::size_t end = -1) const {
    for (const auto& layer :
         std::span(layers_).subspan(first, std::min(end, layers_.size()) - first))
      x = layer.block.run1({x}, [&](const weights::Tensors& in) {
        auto y = at::linear(in[0], layer.weight.dense(), layer.bias.dense());
        for (const auto& lora : layer.weight.adapters()) {
          auto low = at::linear(in[0], lora.part(weights::Part::Down));
          y = y + at::linear(low, lora.part(weights::Part::Up)) * lora.strength;
        }
        return in[0] + at::tanh(y);
      });
    return x;
  }

  weights::Manifest& manifest() { return manifest_; }
  std::int64_t width() const { return width_; }

 private:
  struct Layer {
    weights::Block block;
    weights::Weight weight, bias;
  };
  std::int64_t width_;
  weights::Manifest manifest_;
  std::vector<Layer> layers_;
};

/// A folder that goes away, with a file of seeded random weights for a Model.
class Folder {
 public:
  Folder() {
    static int counter = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("distorch_streaming_" + std::to_string(::getpid()) + "_" + std::to_string(counter++));
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

  weights::Checkpoint write(Model& model, at::ScalarType dtype = at::kFloat,
                            const std::string& name = "toy.safetensors") {
    return write(model.manifest(), model.width(), dtype, name);
  }

  /// `width`: over how many values a result sums.
  weights::Checkpoint write(weights::Manifest& manifest, std::int64_t width, at::ScalarType dtype,
                            const std::string& name = "toy.safetensors") {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
    for (const auto& weight : manifest.weights()) {
      auto values = at::randn(weight.shape, generator) / std::sqrt(static_cast<double>(width));
      tensors.emplace_back(weight.name, values.to(dtype));
    }
    return write(tensors, name);
  }

  weights::Checkpoint write(const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                            const std::string& name) {
    using formats::DType;
    const std::map<at::ScalarType, DType> types = {{at::kFloat, DType::F32},
                                                   {at::kHalf, DType::F16},
                                                   {at::kBFloat16, DType::BF16},
                                                   {at::kByte, DType::U8},
                                                   {at::kChar, DType::I8},
                                                   {at::kFloat8_e4m3fn, DType::F8_E4M3},
                                                   {at::kFloat8_e5m2, DType::F8_E5M2},
                                                   {at::kFloat8_e8m0fnu, DType::F8_E8M0}};
    std::vector<at::Tensor> kept;
    std::vector<formats::TensorToWrite> list;
    for (const auto& [tensor_name, values] : tensors) {
      kept.push_back(values.contiguous());
      list.push_back(
          {tensor_name,
           types.at(values.scalar_type()),
           values.sizes().vec(),
           {static_cast<const std::byte*>(kept.back().const_data_ptr()), kept.back().nbytes()}});
    }
    formats::write_safetensors(path_ / name, list);
    return open(name);
  }

  /// A LoRA of this rank on every matrix of a Model, its factors seeded and 0.1 large.
  std::shared_ptr<const std::vector<weights::NamedAdapter>> write_lora(
      Model& model, std::int64_t rank, const std::string& name = "lora.safetensors") {
    std::vector<at::Tensor> kept;
    std::vector<formats::TensorToWrite> list;
    weights::LoraTargets names;
    auto generator = at::make_generator<at::CPUGeneratorImpl>(11);
    auto add = [&](const std::string& tensor, std::vector<std::int64_t> shape) {
      kept.push_back(at::randn(shape, generator) * 0.1);
      list.push_back(
          {tensor,
           formats::DType::F32,
           shape,
           {static_cast<const std::byte*>(kept.back().const_data_ptr()), kept.back().nbytes()}});
    };
    for (const auto& weight : model.manifest().weights()) {
      if (weight.shape.size() != 2) continue;
      add(weight.name + ".lora_A.weight", {rank, model.width()});
      add(weight.name + ".lora_B.weight", {model.width(), rank});
      names[weight.name] = weight.name;
    }
    formats::write_safetensors(path_ / name, list);
    return std::make_shared<const std::vector<weights::NamedAdapter>>(
        weights::match_lora(open(name), names, model.manifest()).adapters);
  }

 private:
  weights::Checkpoint open(const std::string& name) const {
    return weights::Checkpoint(
        std::make_shared<formats::TensorFile>(formats::open_tensor_file(path_ / name)));
  }

  std::filesystem::path path_;
};

/// `accelerators` devices of `memory_bytes` each, 10 TFLOP/s, behind 10 GB/s links.
inline Rig rig(int accelerators, std::int64_t memory_bytes) {
  Rig rig;
  rig.name = "test";
  RigDevice host;
  host.name = "cpu";
  host.memory_bytes = std::int64_t{1} << 34;
  host.tflops = {{"default", 0.1}};
  host.memory_bytes_per_s = 20e9;
  for (int i = 0; i < accelerators; ++i) {
    RigDevice device;
    device.name = "sim:" + std::to_string(i);
    device.memory_bytes = memory_bytes;
    device.tflops = {{"default", 10}};
    device.memory_bytes_per_s = 500e9;
    device.launch_s = 2e-6;
    rig.devices.push_back(device);
    LinkSpec link;
    link.from = "cpu";
    link.to = device.name;
    link.bytes_per_s = 10e9;
    link.latency_s = 5e-6;
    rig.links.push_back(link);
  }
  rig.devices.push_back(host);
  return rig;
}

}  // namespace toy
