#include "distorch/models/qwen_image/control_net.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/control/block_residuals.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/qwen_image/control_blocks.h"
#include "distorch/models/qwen_image/embedding.h"
#include "distorch/models/qwen_image/tokens.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::qwen_image {

using at::Tensor;
using weights::Scope;

namespace {

/// Blocks of the transformer that the published ControlNets were trained beside.
constexpr std::int64_t kMainBlocks = 60;

}  // namespace

struct ControlNet::Parts {
  Parts(const Scope& root, const Config& c, std::int64_t hint_channels)
      : in(root.block("in"), c, hint_channels * kPatch * kPatch) {
    for (std::int64_t i = 0; i < c.layers; ++i)
      blocks.add(root / "transformer_blocks" / i, root / "controlnet_blocks" / i, c);
  }
  Embedding in;
  ControlBlocks blocks;
};

ControlNet::ControlNet(const Config& config, std::int64_t hint_channels)
    : config_(config),
      hint_channels_(hint_channels),
      inputs_(control_inputs(config_, hint_channels)),
      parts_(std::make_unique<Parts>(Scope(manifest_), config_, hint_channels)) {
  places_ = control::block_places(kMainBlocks);
}

ControlNet::~ControlNet() = default;

std::int64_t ControlNet::repeats() const {
  return (kMainBlocks + config_.layers - 1) / config_.layers;
}

control::HintFormat ControlNet::hint() const {
  return {.channels = hint_channels_,
          .latent = true,
          .masked = hint_channels_ > config_.latent_channels};
}

Inputs ControlNet::encode(const Tensor& hint, std::optional<int>) const {
  if (hint.dim() != 5 || hint.size(1) != hint_channels_)
    throw Error(ErrorKind::Shape, "ControlNet",
                fmt::format("takes latents of {} channels with frames, got {}: it wants the VAE of "
                            "Qwen-Image",
                            hint_channels_, c10::str(hint.sizes())));
  auto channels = config_.latent_channels;
  auto latent = wan21_latent().into_network(hint.narrow(1, 0, channels));
  auto masked = hint_channels_ > channels;
  Inputs inputs;
  inputs.set("hint", masked
                         ? at::cat({latent, hint.narrow(1, channels, hint_channels_ - channels)}, 1)
                         : latent);
  return inputs;
}

Tensor ControlNet::apply(const Inputs& inputs) const {
  check_control_inputs(inputs_, inputs);
  const auto& x = inputs["x"];
  auto [streams, time] = parts_->in.forward(to_tokens(x), inputs["context"], inputs["timestep"],
                                            to_tokens(inputs["hint"]));
  return parts_->blocks.run(streams, time, x, config_);
}

Inputs ControlNet::residuals(const Tensor& packed, at::IntArrayRef) const {
  return control::spread_over_blocks(packed, places_, repeats());
}

bool is_control_net(const weights::Checkpoint& file) {
  return file.has("controlnet_blocks.0.weight") && file.has("controlnet_x_embedder.weight") &&
         file.has("transformer_blocks.0.img_mlp.net.0.proj.weight");
}

std::unique_ptr<control::ControlNetwork> make_control_net(const weights::Checkpoint& part) {
  auto hint = size_of(part, "controlnet_x_embedder.weight", 1) / (kPatch * kPatch);
  return std::make_unique<ControlNet>(config_of(part), hint);
}

}  // namespace distorch::models::qwen_image
