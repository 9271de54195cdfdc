#include "distorch/nodes/replicas.h"

#include <fmt/format.h>

namespace distorch::nodes {

namespace {

/// Fills what all networks have and tells the engine about the replica.
template <class Network>
void open_on(Loaded<Network>& replica, const Loaded<Network>& network, const std::string& device,
             streaming::Engine& engine) {
  replica.identity = fmt::format("{} on {}", network.identity, device);
  replica.placement = {.compute = device, .allocation = "", .eject = network.placement.eject};
  replica.make = network.make;
  replica.network = replica.make();
  replica.lora_names = network.lora_names;
  replica.file_guard = network.file_guard;
  auto options = network.weights->options();
  options.compute = device;
  replica.weights = std::make_shared<streaming::StreamedModel>(
      replica.network->manifest(), network.weights->checkpoint(), options);
  constexpr bool many_steps = true;
  engine.add(replica.weights, replica.placement, many_steps);
}

template <class Thing>
std::shared_ptr<Thing> replica_on(Thing& network, const std::string& device,
                                  streaming::Engine& engine,
                                  const std::function<void(Thing&)>& fill) {
  auto& known = replicas_of(network).by_device[device];
  if (!known) {
    auto replica = std::make_shared<Thing>();
    open_on(*replica, network, device, engine);
    fill(*replica);
    known = replica;
  }
  return std::static_pointer_cast<Thing>(known);
}

}  // namespace

std::shared_ptr<LoadedDiffusion> replica_of(LoadedDiffusion& model, const std::string& device,
                                            streaming::Engine& engine) {
  return replica_on<LoadedDiffusion>(model, device, engine, [&](LoadedDiffusion& replica) {
    replica.family = model.family;
    replica.sampling = model.sampling;
  });
}

std::shared_ptr<LoadedControl> replica_of(LoadedControl& net, const std::string& device,
                                          streaming::Engine& engine) {
  return replica_on<LoadedControl>(net, device, engine, [&](LoadedControl& replica) {
    replica.averaged = net.averaged;
    replica.from_unet = net.from_unet;
    replica.changes = net.changes;
  });
}

}  // namespace distorch::nodes
