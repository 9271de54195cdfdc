#include "distorch/nodes/hyvideo_wrapper_network.h"

#include "distorch/models/hunyuan_video/call_options.h"
#include "distorch/models/hunyuan_video/transformer.h"

namespace distorch::nodes::hyvideo {

using at::Tensor;
using models::Inputs;
namespace hunyuan = models::hunyuan_video;

namespace {

/// The wrapper's base of rotary positions; native nodes have another one.
constexpr double kBase = 225;

/// The network's inputs that a pass fills.
constexpr PassParts<Pass, 4> kParts = {{
    {"context", &Pass::text},
    {"vector", &Pass::pooled},
    {"concat", &Pass::beside},
    {"reference", &Pass::reference},
}};

const hunyuan::Config& config_of(const LoadedDiffusion& loaded) {
  return dynamic_cast<const hunyuan::Transformer&>(*loaded.network).config();
}

models::Patches patches_of(const CallOptions& options) {
  models::Patches patches;
  patches.skipped = options.skipped;
  return patches;
}

void set_numbers(Inputs& inputs, const CallOptions& options) {
  inputs.set_number(hunyuan::kBase, kBase);
  if (options.given_first) inputs.set_number(hunyuan::kGivenUnguided, 1);
  if (options.riflex > 0) inputs.set_number(hunyuan::kRiflex, static_cast<double>(options.riflex));
  if (options.enhance != 0) {
    inputs.set_number(hunyuan::kEnhance, options.enhance);
    inputs.set_number(hunyuan::kEnhancedBlocks,
                      (options.enhance_doubles ? 1 : 0) + (options.enhance_singles ? 2 : 0));
  }
  if (options.weak_block >= 0) {
    inputs.set_number(hunyuan::kWeakBlock, static_cast<double>(options.weak_block + 1));
    inputs.set_number(hunyuan::kWeakWay, options.weak_apart ? hunyuan::kApart : hunyuan::kResidual);
  }
}

}  // namespace

HyNetwork::HyNetwork(const HyModel& model, streaming::Engine& engine)
    : network_(model.model, engine) {}

std::int64_t HyNetwork::channels() const { return config_of(network_.loaded()).out_channels; }
std::int64_t HyNetwork::beside() const { return config_of(network_.loaded()).beside(); }
std::int64_t HyNetwork::text_width() const { return config_of(network_.loaded()).text_width; }
std::int64_t HyNetwork::pooled_width() const { return config_of(network_.loaded()).vector_width; }

void HyNetwork::prepare(const Sizes& sizes) {
  auto latent = at::empty(sizes.latent, at::TensorOptions().device(at::kMeta).dtype(at::kFloat));
  auto call = inputs(latent, 0, shapes_of(sizes.passes, kParts), sizes.options);
  if (sizes.keeps_change) call.set_number(hunyuan::kKeepChange, 1);
  network_.prepare(call, sizes.steps);
}

Inputs HyNetwork::inputs(const Tensor& x, float timestep, const std::vector<Pass>& passes,
                         const CallOptions& options) const {
  const auto batch = static_cast<std::int64_t>(passes.size());
  auto inputs = latent_inputs(x, timestep, batch);
  set_parts(inputs, passes, kParts, x.device());
  if (config_of(network_.loaded()).guidance && options.guidance > 0)
    inputs.set("guidance", at::full({batch}, options.guidance, x.options()));
  if (options.given_first) inputs.set("given_frame", at::zeros({batch}, x.options()));
  set_numbers(inputs, options);
  return inputs;
}

Tensor HyNetwork::velocities(const Tensor& x, float timestep, const std::vector<Pass>& passes,
                             const CallOptions& options) {
  return network_.run(inputs(x, timestep, passes, options), patches_of(options));
}

KeptCall HyNetwork::kept_velocities(const Tensor& x, float timestep,
                                    const std::vector<Pass>& passes, const CallOptions& options) {
  return network_.run_kept(inputs(x, timestep, passes, options), patches_of(options),
                           hunyuan::kKeepChange, config_of(network_.loaded()).hidden);
}

Tensor HyNetwork::changed_velocities(const Tensor& x, float timestep,
                                     const std::vector<Pass>& passes, const CallOptions& options,
                                     const Tensor& change) {
  auto call = inputs(x, timestep, passes, options);
  call.set(hunyuan::kChange, change.to(device()));
  return network_.run(call, patches_of(options));
}

Tensor HyNetwork::entrance(const Tensor& x, float timestep, const std::vector<Pass>& passes,
                           const CallOptions& options) {
  auto call = inputs(x, timestep, passes, options);
  call.set_number(hunyuan::kEntrance, 1);
  return network_.run(call, patches_of(options));
}

}  // namespace distorch::nodes::hyvideo
