#pragma once
#include "distorch/models/catalog.h"
#include "tests/models/tiny.h"

namespace distorch::test {

/// The autoencoder that a file of these tensors holds.
struct LoadedVae {
  explicit LoadedVae(const std::map<std::string, at::Tensor>& tensors)
      : file(tensors), found(models::find_vae(*file)), vae(found.make()) {
    weights::check_complete(vae->manifest(), found.part, "autoencoder");
    source.emplace(vae->manifest(), found.part, at::kFloat);
  }
  TemporaryCheckpoint file;
  models::VaePart found;
  std::unique_ptr<models::VaeNetwork> vae;
  std::optional<TwiceSource> source;
};

}  // namespace distorch::test
