#pragma once
#include "tests/models/tiny.h"

namespace distorch::test {

/// A safetensors file of these tensors whose metadata have this text as "config", opened; it goes
/// away with the object. "": without metadata.
class CheckpointWithConfig {
 public:
  CheckpointWithConfig(const std::map<std::string, at::Tensor>& tensors,
                       const std::string& config) {
    static int count = 0;
    path_ =
        std::filesystem::temp_directory_path() / ("distorch_config_" + std::to_string(::getpid()) +
                                                  "_" + std::to_string(count++) + ".safetensors");
    std::vector<formats::TensorToWrite> list;
    for (const auto& [name, tensor] : tensors)
      list.push_back({name,
                      formats::DType::F32,
                      tensor.sizes().vec(),
                      {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}});
    formats::TensorFile::Metadata metadata;
    if (!config.empty()) metadata["config"] = config;
    formats::write_safetensors(path_, list, metadata);
    file_ = open_checkpoint(path_);
  }
  ~CheckpointWithConfig() { std::filesystem::remove(path_); }
  CheckpointWithConfig(const CheckpointWithConfig&) = delete;

  const weights::Checkpoint& operator*() const { return file_; }

 private:
  std::filesystem::path path_;
  weights::Checkpoint file_;
};

/// The "config" that a dump's models say of themselves; "" where they say nothing.
inline std::string config_of_dump(const std::string& name) {
  return nlohmann::json::parse(std::ifstream(parity_dir() / (name + ".json")))
      .value("config", std::string());
}

}  // namespace distorch::test
