#include "distorch/nodes/wan_wrapper_network.h"

#include <fmt/format.h>

#include "distorch/models/wan/call_options.h"
#include "distorch/models/wan/transformer.h"
#include "distorch/nodes/wan_wrapper_control.h"

namespace distorch::nodes::wan_wrapper {

using at::Tensor;
using models::Inputs;
namespace wan = models::wan;

namespace {

constexpr std::int64_t kTextRows = 512;

/// The network's inputs that a pass fills.
constexpr PassParts<Pass, 8> kParts = {{
    {"context", &Pass::text},
    {"vision", &Pass::vision},
    {"concat", &Pass::beside},
    {"reference", &Pass::reference},
    {"denoise_mask", &Pass::made_anew},
    {"vace", &Pass::vace},
    {"vace_strength", &Pass::vace_strength},
    {"speech", &Pass::speech},
}};

const wan::Config& config_of(const LoadedDiffusion& loaded) {
  return dynamic_cast<const wan::Transformer&>(*loaded.network).config();
}

models::Patches patches_of(const CallOptions& options) {
  models::Patches patches;
  for (auto layer : options.skipped) patches.skipped.insert(fmt::format("double_blocks.{}", layer));
  return patches;
}

void set_numbers(Inputs& inputs, const CallOptions& options, std::int64_t prompts) {
  if (options.enhance != 0) inputs.set_number(wan::kEnhance, options.enhance);
  if (options.riflex > 0) inputs.set_number(wan::kRiflex, static_cast<double>(options.riflex));
  if (options.speech_scale != 1) inputs.set_number(wan::kSpeechScale, options.speech_scale);
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
    : model_(model), network_(model.model, engine) {}

std::int64_t WanNetwork::channels() const { return config_of(network_.loaded()).out_channels; }
std::int64_t WanNetwork::beside() const {
  return config_of(network_.loaded()).in_channels - config_of(network_.loaded()).out_channels;
}
std::int64_t WanNetwork::vision_width() const { return config_of(network_.loaded()).vision_width; }
std::int64_t WanNetwork::text_width() const { return config_of(network_.loaded()).text_width; }
std::int64_t WanNetwork::speech_width() const { return config_of(network_.loaded()).speech_width; }
std::int64_t WanNetwork::width() const { return config_of(network_.loaded()).width; }
std::int64_t WanNetwork::vace_channels() const {
  return config_of(network_.loaded()).vace_channels;
}
bool WanNetwork::takes_reference() const {
  return config_of(network_.loaded()).reference_channels > 0;
}

void WanNetwork::prepare(const Sizes& sizes) {
  auto latent = at::empty(sizes.latent, at::TensorOptions().device(at::kMeta).dtype(at::kFloat));
  auto call = inputs(latent, 0, shapes_of(sizes.passes, kParts), sizes.options);
  if (sizes.keeps_change) call.set_number(wan::kKeepChange, 1);
  std::vector<streaming::Engine::Wanted> more;
  if (controls_) {
    controls_->add_shapes(call, sizes.latent);
    more = controls_->wanted(sizes.latent, sizes.passes.front(), sizes.steps);
  }
  network_.prepare(call, sizes.steps, std::move(more));
}

Inputs WanNetwork::inputs(const Tensor& x, float timestep, const std::vector<Pass>& passes,
                          const CallOptions& options) const {
  auto inputs = latent_inputs(x, timestep, static_cast<std::int64_t>(passes.size()));
  set_parts(inputs, passes, kParts, x.device());
  set_numbers(inputs, options, passes.front().prompts);
  return inputs;
}

Inputs WanNetwork::steered_inputs(const Tensor& x, float timestep, const std::vector<Pass>& passes,
                                  const CallOptions& options) {
  auto call = inputs(x, timestep, passes, options);
  if (controls_) controls_->add_residuals(call, x, timestep, passes.front(), *this);
  return call;
}

Tensor WanNetwork::velocities(const Tensor& x, float timestep, const std::vector<Pass>& passes,
                              const CallOptions& options) {
  return network_.run(steered_inputs(x, timestep, passes, options), patches_of(options));
}

KeptCall WanNetwork::kept_velocities(const Tensor& x, float timestep,
                                     const std::vector<Pass>& passes, const CallOptions& options) {
  return network_.run_kept(steered_inputs(x, timestep, passes, options), patches_of(options),
                           wan::kKeepChange, width());
}

Tensor WanNetwork::changed_velocities(const Tensor& x, float timestep,
                                      const std::vector<Pass>& passes, const CallOptions& options,
                                      const Tensor& change) {
  auto call = inputs(x, timestep, passes, options);
  call.set(wan::kChange, change.to(device()));
  return network_.run(call, patches_of(options));
}

WanNetwork::Entrance WanNetwork::times(const Tensor& x, float timestep, const Pass& pass) {
  auto call = inputs(x, timestep, {pass}, {});
  call.set_number(wan::kEntrance, wan::kTimes);
  auto both = network_.run(call, {});
  // Six parts for each number of the embedding.
  constexpr std::int64_t all = 7;
  const auto size = both.size(0) / all;
  return {both.narrow(0, 0, size), both.narrow(0, size, both.size(0) - size)};
}

Tensor WanNetwork::tokens(const Tensor& x, float timestep, const Pass& pass) {
  auto call = inputs(x, timestep, {pass}, {});
  call.set_number(wan::kEntrance, wan::kTokens);
  return network_.run(call, {});
}

void WanNetwork::set_step(std::size_t step) {
  auto loras = model_.model.loras;
  bool other = false;
  for (std::size_t i = 0; i < loras.size() && i < model_.strengths.size(); ++i) {
    const auto& list = model_.strengths[i];
    loras[i].strength = list[std::min(step, list.size() - 1)];
    other = other || list.size() > 1;
  }
  if (other) network_.loaded().weights->set_loras(loras);
}

}  // namespace distorch::nodes::wan_wrapper
