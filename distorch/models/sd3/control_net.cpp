#include "distorch/models/sd3/control_net.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/control/block_residuals.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/sd3/block.h"
#include "distorch/models/sd3/embed.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::sd3 {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

InputSpecs specs_of(const MmditConfig& c, std::int64_t hint_channels) {
  return control::inputs_of(
      c.in_channels, "noise level",
      {.name = "context",
       .meaning = "text conditioning",
       .shape = {Extent::batch(), Extent::tokens(), Extent::number(c.text_width)}},
      hint_channels);
}

}  // namespace

struct ControlNet::Parts {
  Parts(const Scope& root, const MmditConfig& c, std::int64_t hint_channels)
      : embed(root.block("embed"), c), hint(root.block("hint"), c, hint_channels) {
    for (std::int64_t i = 0; i < c.blocks; ++i) {
      blocks.emplace_back((root / "joint_blocks" / i).block(), c, c.dual.count(i) != 0, false);
      residuals.emplace_back((root / "controlnet_blocks" / i).block(), c.width);
    }
  }
  Embedders embed;
  HintTokens hint;
  std::vector<JointBlock> blocks;
  std::vector<control::BlockResidual> residuals;
};

ControlNet::ControlNet(const MmditConfig& config, std::int64_t hint_channels)
    : config_(config),
      hint_channels_(hint_channels),
      inputs_(specs_of(config_, hint_channels)),
      parts_(std::make_unique<Parts>(Scope(manifest_), config_, hint_channels)) {
  // The model's last block gets none.
  places_ = control::block_places(config_.blocks * repeats() - 1);
}

ControlNet::~ControlNet() = default;

control::HintFormat ControlNet::hint() const {
  return {
      .channels = hint_channels_, .latent = true, .masked = hint_channels_ > config_.in_channels};
}

Inputs ControlNet::encode(const Tensor& hint, std::optional<int>) const {
  if (hint.dim() != 4 || hint.size(1) != hint_channels_)
    throw Error(ErrorKind::Shape, "ControlNet",
                fmt::format("takes latents of {} channels, got {}: it wants the VAE of SD3",
                            hint_channels_, c10::str(hint.sizes())));
  // These networks were trained on latents that are not shifted.
  auto latent = hint.narrow(1, 0, config_.in_channels) * sd3_latent().scale_factor;
  auto more = hint_channels_ - config_.in_channels;
  Inputs inputs;
  inputs.set("hint",
             more > 0 ? at::cat({latent, hint.narrow(1, config_.in_channels, more)}, 1) : latent);
  return inputs;
}

Tensor ControlNet::apply(const Inputs& inputs) const {
  check_inputs(inputs_, inputs, "ControlNet");
  const auto &x = inputs["x"], &context = inputs["context"];
  // Nor do they look at the pooled text.
  auto vector = at::zeros({x.size(0), config_.vector_width}, x.options());
  auto embedded = parts_->embed.forward(x, inputs["timestep"], vector, context);
  JointBlock::Tokens tokens{embedded.text, parts_->hint.forward(embedded.image, inputs["hint"])};
  std::vector<Tensor> residuals;
  for (std::size_t i = 0; i < parts_->blocks.size(); ++i) {
    tokens = parts_->blocks[i].forward(tokens, embedded.c);
    residuals.push_back(parts_->residuals[i].forward(tokens.image));
  }
  return at::stack(residuals);
}

Inputs ControlNet::residuals(const Tensor& packed, at::IntArrayRef) const {
  return control::spread_over_blocks(packed, places_, repeats());
}

bool is_control_net(const weights::Checkpoint& part) {
  return part.has("controlnet_blocks.0.weight") && part.has("pos_embed_input.proj.weight") &&
         part.has_prefix("joint_blocks.0.");
}

std::unique_ptr<control::ControlNetwork> make_control_net(const weights::Checkpoint& part) {
  auto config = mmdit_config(part);
  if (config.blocks < 1 || config.heads() < config.blocks)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("holds a ControlNet for SD3 with {} blocks of width {}: distorch knows "
                            "those with no more blocks than heads",
                            config.blocks, config.width));
  return std::make_unique<ControlNet>(config, size_of(part, "pos_embed_input.proj.weight", 1));
}

}  // namespace distorch::models::sd3
