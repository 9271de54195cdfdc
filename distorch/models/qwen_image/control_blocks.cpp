#include "distorch/models/qwen_image/control_blocks.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/qwen_image/tokens.h"

namespace distorch::models::qwen_image {

using at::Tensor;

InputSpecs control_inputs(const Config& c, std::int64_t hint_channels) {
  return control::inputs_of(
      c.latent_channels, "timestep",
      {.name = "context",
       .meaning = "text conditioning",
       .shape = {Extent::batch(), Extent::tokens(), Extent::number(c.text_width)}},
      hint_channels);
}

void check_control_inputs(const InputSpecs& specs, const Inputs& inputs) {
  check_inputs(specs, inputs, "ControlNet");
  const auto &x = inputs["x"], &hint = inputs["hint"];
  if (x.sizes().slice(2) != hint.sizes().slice(2))
    throw Error(ErrorKind::Shape, "ControlNet",
                fmt::format("takes one picture for a latent {}, got {}", c10::str(x.sizes()),
                            c10::str(hint.sizes())));
}

void ControlBlocks::add(const weights::Scope& block, const weights::Scope& residual,
                        const Config& config) {
  blocks_.emplace_back(block, config);
  residuals_.emplace_back(residual.block(), config.width);
}

Tensor ControlBlocks::run(Streams tokens, const Tensor& time, const Tensor& x,
                          const Config& config) const {
  constexpr double theta = 10000;
  const auto axes = config.axes();
  BlockContext context;
  context.image_positions = nn::rope_table(
      image_positions(x.sizes(), {}, ReferenceMethod::Index, x.device()), axes, theta);
  context.text_positions =
      nn::rope_table(text_positions(x.sizes(), tokens.text.size(1), x.device()), axes, theta);
  std::vector<Tensor> residuals;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    context.modulations = blocks_[i].modulations(time, x.size(0));
    tokens = blocks_[i].forward(tokens, context);
    residuals.push_back(residuals_[i].forward(tokens.image));
  }
  return at::stack(residuals);
}

}  // namespace distorch::models::qwen_image
