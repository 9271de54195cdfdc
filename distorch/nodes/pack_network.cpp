#include "distorch/nodes/pack_network.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/device/device.h"
#include "distorch/models/reference_cache.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

using at::Tensor;
using models::Inputs;

streaming::Engine::Wanted wanted_for(Loaded<models::Network>& loaded, const Inputs& call, int steps,
                                     std::vector<streaming::LoraUse> loras,
                                     std::function<void(const models::Network&, at::Device)> also) {
  const auto &x = call["x"], &text = call["context"];
  const models::CallSizes sizes{x.size(0), x.sizes().slice(2).vec(),
                                text.defined() ? text.size(1) : 0};
  models::KnownInputs given;
  for (const auto& [name, tensor] : call.tensors()) given.shapes[name] = tensor.sizes().vec();
  streaming::RunNeeds needs;
  needs.key = fmt::format("wrapper {}x{} {}", sizes.batch, fmt::join(sizes.cells, "x"),
                          models::inputs_key(call));
  for (const auto& [name, shape] : given.shapes)
    needs.key += fmt::format(" {} {}", name, fmt::join(shape, "x"));
  needs.steps = steps;
  needs.loras = std::move(loras);
  needs.profile = [&loaded, sizes, given, numbers = call.numbers(),
                   also = std::move(also)](const RigDevice& compute) {
    auto fresh = loaded.make();
    return streaming::profile_model(
        *loaded.weights, fresh->manifest(), compute, [&](at::Device device) {
          if (also) also(*fresh, device);
          auto blank = models::blank_inputs(fresh->inputs(), sizes, device, {}, given);
          for (const auto& [name, number] : numbers) blank.set_number(name, number);
          fresh->apply(blank);
        });
  };
  return {loaded.weights, std::move(needs)};
}

Tensor run_step(Loaded<models::Network>& loaded, const Inputs& call,
                const models::Patches& patches) {
  const auto& specs = loaded.network->inputs();
  return loaded.weights->step(
      models::in_order(specs, call),
      [&](const std::vector<Tensor>& tensors) {
        return loaded.network->apply(models::from_order(specs, tensors, call), patches);
      },
      models::inputs_key(call) + patches.key());
}

PackNetwork::PackNetwork(const Model& model, streaming::Engine& engine)
    : model_(model),
      engine_(engine),
      loaded_(*model.loaded),
      device_(device::to_torch(loaded_.weights->options().compute)) {}

void PackNetwork::prepare(const Inputs& call, int steps,
                          std::vector<streaming::Engine::Wanted> more) {
  more.insert(more.begin(), wanted_for(loaded_, call, steps, model_.loras));
  uses_.clear();
  uses_ = engine_.prepare(more);
}

Tensor PackNetwork::run(const Inputs& call, const models::Patches& patches) {
  return run_step(loaded_, call, patches);
}

KeptCall PackNetwork::run_kept(Inputs call, const models::Patches& patches, const char* keep,
                               std::int64_t width) {
  call.set_number(keep, 1);
  const auto& x = call["x"];
  const auto kept = models::split_kept(run(call, patches), x.sizes());
  return {kept.prediction,
          kept.cache.view(loaded_.weights->options().dtype).view({x.size(0), -1, width})};
}

Inputs latent_inputs(const Tensor& x, float timestep, std::int64_t passes) {
  auto sizes = x.sizes().vec();
  sizes[0] = passes;
  Inputs inputs;
  inputs.set("x", x.expand(sizes).contiguous());
  inputs.set("timestep", at::full({passes}, timestep, x.options()));
  return inputs;
}

}  // namespace distorch::nodes
