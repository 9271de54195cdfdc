#include "distorch/nodes/pack_network.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/device/device.h"
#include "distorch/models/reference_cache.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

using at::Tensor;
using models::Inputs;

PackNetwork::PackNetwork(const Model& model, streaming::Engine& engine)
    : model_(model),
      engine_(engine),
      loaded_(*model.loaded),
      device_(device::to_torch(loaded_.weights->options().compute)) {}

void PackNetwork::prepare(const Inputs& call, int steps) {
  const auto& x = call["x"];
  const models::CallSizes sizes{x.size(0), x.sizes().slice(2).vec(), call["context"].size(1)};
  models::KnownInputs given;
  for (const auto& [name, tensor] : call.tensors()) given.shapes[name] = tensor.sizes().vec();
  streaming::RunNeeds needs;
  needs.key = fmt::format("wrapper {}x{} {}", sizes.batch, fmt::join(sizes.cells, "x"),
                          models::inputs_key(call));
  for (const auto& [name, shape] : given.shapes)
    needs.key += fmt::format(" {} {}", name, fmt::join(shape, "x"));
  needs.steps = steps;
  needs.loras = model_.loras;
  needs.profile = [&](const RigDevice& compute) {
    auto fresh = loaded_.make();
    return streaming::profile_model(
        *loaded_.weights, fresh->manifest(), compute, [&](at::Device device) {
          auto blank = models::blank_inputs(fresh->inputs(), sizes, device, {}, given);
          for (const auto& [name, number] : call.numbers()) blank.set_number(name, number);
          fresh->apply(blank);
        });
  };
  use_ = engine_.prepare(loaded_.weights, needs);
}

Tensor PackNetwork::run(const Inputs& call, const models::Patches& patches) {
  const auto& specs = loaded_.network->inputs();
  return loaded_.weights->step(
      models::in_order(specs, call),
      [&](const std::vector<Tensor>& tensors) {
        return loaded_.network->apply(models::from_order(specs, tensors, call), patches);
      },
      models::inputs_key(call) + patches.key());
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
