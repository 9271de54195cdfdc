#pragma once
#include <map>
#include <memory>
#include <string>

#include "distorch/nodes/control.h"
#include "distorch/nodes/values.h"
#include "distorch/streaming/engine.h"

namespace distorch::nodes {

/// Replicas of an open network on other devices: the same file, mapped once, and the same weights,
/// each resting and streaming as a plan for its own device says. They go with the network.
struct Replicas {
  std::map<std::string, std::shared_ptr<void>> by_device;  // of the network's own type
  /// What calls cost, of those that were looked at for a choice of devices, by their keys.
  std::map<std::string, streaming::Profile> profiles;
};

/// Those of a network, none at first.
template <class Network>
Replicas& replicas_of(Loaded<Network>& network) {
  if (!network.replicas) network.replicas = std::make_shared<Replicas>();
  return *network.replicas;
}

/// The network on `device`: the one that is there, or a new one.
std::shared_ptr<LoadedDiffusion> replica_of(LoadedDiffusion& model, const std::string& device,
                                            streaming::Engine& engine);
std::shared_ptr<LoadedControl> replica_of(LoadedControl& net, const std::string& device,
                                          streaming::Engine& engine);

}  // namespace distorch::nodes
