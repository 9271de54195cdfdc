#pragma once
#include <memory>

#include "distorch/nodes/values.h"
#include "distorch/streaming/engine.h"

namespace distorch::nodes {

/// Gives a network that has been made its weights, and has the engine place them from now on. `part`:
/// the tensors, under the names of the network's manifest. `many_steps`: as Engine::add takes it.
template <class Network>
void stream_weights(streaming::Engine& engine, Loaded<Network>& loaded,
                    const weights::Checkpoint& part, const streaming::StreamedOptions& options,
                    const streaming::PlacementRequest& placement, bool many_steps) {
  loaded.weights =
      std::make_shared<streaming::StreamedModel>(loaded.network->manifest(), part, options);
  engine.add(loaded.weights, placement, many_steps);
}

}  // namespace distorch::nodes
