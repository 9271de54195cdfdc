#pragma once
#include "distorch/models/catalog.h"
#include "distorch/models/wan/transformer.h"
#include "tests/models/tiny.h"

namespace distorch::test {

/// One of Wan's transformers made of a file's tensors.
struct LoadedWan {
  explicit LoadedWan(const std::string& dump) : LoadedWan(tiny_tensors({dump})) {}
  explicit LoadedWan(const std::map<std::string, at::Tensor>& tensors)
      : file(tensors),
        part(models::wan::with_original_names(*file)),
        net(models::wan::config_of(part)) {
    weights::check_complete(net.manifest(), part, "diffusion model");
    source.emplace(net.manifest(), part, at::kFloat);
  }
  TemporaryCheckpoint file;
  weights::Checkpoint part;
  models::wan::Transformer net;
  std::optional<TwiceSource> source;
};

/// The tiny model's tensors under the names of diffusers.
inline std::map<std::string, at::Tensor> under_diffusers_names(const std::string& dump) {
  auto json = nlohmann::json::parse(std::ifstream(parity_dir() / (dump + ".json")));
  auto ours = tiny_tensors({dump});
  std::map<std::string, at::Tensor> theirs;
  for (const auto& [name, original] : json.at("diffusers").items())
    theirs[name] =
        ours.at(original.get<std::string>())
            .reshape(json.at("diffusers_shapes").at(name).get<std::vector<std::int64_t>>());
  return theirs;
}

}  // namespace distorch::test
