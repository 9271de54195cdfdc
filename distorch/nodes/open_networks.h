#pragma once
#include <fmt/format.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "distorch/nodes/model_cache.h"
#include "distorch/nodes/stream_weights.h"

namespace distorch::nodes {

/// The networks that a pack's loaders have open, each of the type that its key is made for.
using OpenNetworks = WeakCache<const void>;

/// A network of a file, to be opened.
struct NetworkFile {
  std::filesystem::path file;
  std::string what;                // the part in the user's words
  std::filesystem::path settings;  // another file that decides about it; empty: none
  std::string compute;             // a device that is there
  at::ScalarType dtype = at::kFloat;
  streaming::PlacementRequest placement;
  bool many_steps = false;  // as Engine::add takes it
};

/// Opens a network: `part` are its tensors, `make` gives one of its shape. One that is open already, of
/// the same files, device and type of numbers, is handed out again.
template <class Network>
std::shared_ptr<Loaded<Network>> open_once(streaming::Engine& engine, OpenNetworks& open,
                                           const NetworkFile& wanted,
                                           const weights::Checkpoint& part,
                                           std::function<std::unique_ptr<Network>()> make) {
  const auto& settings = wanted.settings;
  const auto key = fmt::format("{}|{}|{}|{}|{}|{}", ModelCache::identity(wanted.file),
                               settings.empty() ? "" : ModelCache::identity(settings), wanted.what,
                               wanted.compute, c10::toString(wanted.dtype), wanted.placement.eject);
  if (auto there = open.find(key))
    return std::static_pointer_cast<Loaded<Network>>(std::const_pointer_cast<void>(there));
  streaming::StreamedOptions options;
  options.name = fmt::format("{} ({})", wanted.file.stem().string(), wanted.what);
  options.compute = wanted.compute;
  options.dtype = wanted.dtype;
  auto loaded = std::make_shared<Loaded<Network>>();
  loaded->identity = key;
  loaded->placement = wanted.placement;
  loaded->make = std::move(make);
  loaded->network = loaded->make();
  stream_weights(engine, *loaded, part, options, wanted.placement, wanted.many_steps);
  open.keep(key, loaded);
  return loaded;
}

}  // namespace distorch::nodes
