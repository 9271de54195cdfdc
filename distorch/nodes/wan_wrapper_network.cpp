#include "distorch/nodes/wan_wrapper_network.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <utility>

#include "distorch/device/device.h"
#include "distorch/models/reference_cache.h"
#include "distorch/models/wan/call_options.h"
#include "distorch/models/wan/transformer.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes::wan_wrapper {

using at::Tensor;
using models::Inputs;
namespace wan = models::wan;

namespace {

constexpr std::int64_t kTextRows = 512;

/// The network's inputs that a pass fills.
constexpr std::array<std::pair<const char*, Tensor Pass::*>, 7> kParts = {{
    {"context", &Pass::text},
    {"vision", &Pass::vision},
    {"concat", &Pass::beside},
    {"reference", &Pass::reference},
    {"denoise_mask", &Pass::made_anew},
    {"vace", &Pass::vace},
    {"vace_strength", &Pass::vace_strength},
}};

const wan::Config& config_of(const LoadedDiffusion& loaded) {
  return dynamic_cast<const wan::Transformer&>(*loaded.network).config();
}

/// What the passes have under one name, one behind the other.
Tensor joined(const std::vector<Pass>& passes, Tensor Pass::*part, at::Device device) {
  std::vector<Tensor> parts;
  for (const auto& pass : passes)
    if (const auto& one = pass.*part; one.defined()) parts.push_back(one.to(device, at::kFloat));
  return parts.empty() ? Tensor() : at::cat(parts);
}

models::Patches patches_of(const CallOptions& options) {
  models::Patches patches;
  for (auto layer : options.skipped) patches.skipped.insert(fmt::format("double_blocks.{}", layer));
  return patches;
}

void set_numbers(Inputs& inputs, const CallOptions& options, std::int64_t prompts) {
  if (options.enhance != 0) inputs.set_number(wan::kEnhance, options.enhance);
  if (options.riflex > 0) inputs.set_number(wan::kRiflex, static_cast<double>(options.riflex));
  if (prompts > 1) inputs.set_number(wan::kPrompts, static_cast<double>(prompts));
}

}  // namespace

Tensor padded_text(const Tensor& states) {
  auto rows = states.narrow(0, 0, std::min(states.size(0), kTextRows)).to(at::kFloat);
  auto text = at::zeros({1, kTextRows, states.size(1)}, rows.options());
  text.select(0, 0).narrow(0, 0, rows.size(0)).copy_(rows);
  return text;
}

WanNetwork::WanNetwork(const WanModel& model, streaming::Engine& engine)
    : model_(model),
      engine_(engine),
      loaded_(*model.model.loaded),
      device_(device::to_torch(loaded_.weights->options().compute)) {}

std::int64_t WanNetwork::channels() const { return config_of(loaded_).out_channels; }
std::int64_t WanNetwork::beside() const {
  return config_of(loaded_).in_channels - config_of(loaded_).out_channels;
}
std::int64_t WanNetwork::vision_width() const { return config_of(loaded_).vision_width; }
std::int64_t WanNetwork::text_width() const { return config_of(loaded_).text_width; }
std::int64_t WanNetwork::width() const { return config_of(loaded_).width; }
std::int64_t WanNetwork::vace_channels() const { return config_of(loaded_).vace_channels; }
bool WanNetwork::takes_reference() const { return config_of(loaded_).reference_channels > 0; }

void WanNetwork::prepare(const Sizes& sizes) {
  models::CallSizes call{static_cast<std::int64_t>(sizes.passes.size()),
                         {sizes.latent.begin() + 2, sizes.latent.end()},
                         sizes.passes.front().text.size(1)};
  // Shapes are enough for a dry run.
  std::vector<Pass> shapes = sizes.passes;
  for (auto& pass : shapes)
    for (const auto& [name, part] : kParts)
      if ((pass.*part).defined()) pass.*part = (pass.*part).to(at::kMeta);
  auto latent = at::empty(sizes.latent, at::TensorOptions().device(at::kMeta).dtype(at::kFloat));
  auto known = inputs(latent, 0, shapes, sizes.options);
  if (sizes.keeps_change) known.set_number(wan::kKeepChange, 1);
  models::KnownInputs given;
  for (const auto& [name, tensor] : known.tensors()) given.shapes[name] = tensor.sizes().vec();
  streaming::RunNeeds needs;
  needs.key = fmt::format("wrapper {}x{} {}", call.batch, fmt::join(call.cells, "x"),
                          models::inputs_key(known));
  for (const auto& [name, shape] : given.shapes)
    needs.key += fmt::format(" {} {}", name, fmt::join(shape, "x"));
  needs.steps = sizes.steps;
  needs.loras = model_.model.loras;
  needs.profile = [&](const RigDevice& compute) {
    auto fresh = loaded_.make();
    return streaming::profile_model(
        *loaded_.weights, fresh->manifest(), compute, [&](at::Device device) {
          auto blank = models::blank_inputs(fresh->inputs(), call, device, {}, given);
          for (const auto& [name, number] : known.numbers()) blank.set_number(name, number);
          fresh->apply(blank);
        });
  };
  use_ = engine_.prepare(loaded_.weights, needs);
}

Inputs WanNetwork::inputs(const Tensor& x, float timestep, const std::vector<Pass>& passes,
                          const CallOptions& options) const {
  const auto batch = static_cast<std::int64_t>(passes.size());
  const auto device = x.device();
  auto sizes = x.sizes().vec();
  sizes[0] = batch;
  Inputs inputs;
  inputs.set("x", x.expand(sizes).contiguous());
  inputs.set("timestep", at::full({batch}, timestep, x.options()));
  for (const auto& [name, part] : kParts)
    if (auto value = joined(passes, part, device); value.defined()) inputs.set(name, value);
  set_numbers(inputs, options, passes.front().prompts);
  return inputs;
}

Tensor WanNetwork::run(const Inputs& inputs, const CallOptions& options) {
  const auto& specs = loaded_.network->inputs();
  const auto patches = patches_of(options);
  return loaded_.weights->step(
      models::in_order(specs, inputs),
      [&](const std::vector<Tensor>& tensors) {
        return loaded_.network->apply(models::from_order(specs, tensors, inputs), patches);
      },
      models::inputs_key(inputs) + patches.key());
}

Tensor WanNetwork::velocities(const Tensor& x, float timestep, const std::vector<Pass>& passes,
                              const CallOptions& options) {
  return run(inputs(x, timestep, passes, options), options);
}

KeptCall WanNetwork::kept_velocities(const Tensor& x, float timestep,
                                     const std::vector<Pass>& passes, const CallOptions& options) {
  auto call = inputs(x, timestep, passes, options);
  call.set_number(wan::kKeepChange, 1);
  const auto kept = models::split_kept(run(call, options), call["x"].sizes());
  const auto batch = static_cast<std::int64_t>(passes.size());
  return {kept.prediction,
          kept.cache.view(loaded_.weights->options().dtype).view({batch, -1, width()})};
}

Tensor WanNetwork::changed_velocities(const Tensor& x, float timestep,
                                      const std::vector<Pass>& passes, const CallOptions& options,
                                      const Tensor& change) {
  auto call = inputs(x, timestep, passes, options);
  call.set(wan::kChange, change.to(device_));
  return run(call, options);
}

WanNetwork::Entrance WanNetwork::times(const Tensor& x, float timestep, const Pass& pass) {
  auto call = inputs(x, timestep, {pass}, {});
  call.set_number(wan::kEntrance, wan::kTimes);
  auto both = run(call, {});
  // Six parts for each number of the embedding.
  constexpr std::int64_t all = 7;
  const auto size = both.size(0) / all;
  return {both.narrow(0, 0, size), both.narrow(0, size, both.size(0) - size)};
}

Tensor WanNetwork::tokens(const Tensor& x, float timestep, const Pass& pass) {
  auto call = inputs(x, timestep, {pass}, {});
  call.set_number(wan::kEntrance, wan::kTokens);
  return run(call, {});
}

void WanNetwork::set_step(std::size_t step) {
  auto loras = model_.model.loras;
  bool other = false;
  for (std::size_t i = 0; i < loras.size() && i < model_.strengths.size(); ++i) {
    const auto& list = model_.strengths[i];
    loras[i].strength = list[std::min(step, list.size() - 1)];
    other = other || list.size() > 1;
  }
  if (other) loaded_.weights->set_loras(loras);
}

}  // namespace distorch::nodes::wan_wrapper
