#include "distorch/models/sd3/mmdit.h"

#include <fmt/format.h>

#include "distorch/models/control/control.h"
#include "distorch/models/sd3/block.h"
#include "distorch/models/sd3/embed.h"
#include "distorch/nn/modulation.h"

namespace distorch::models::sd3 {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

/// Norm, modulation and the projection to pixels of the latent.
class FinalLayer {
 public:
  FinalLayer(const Scope& s, const MmditConfig& c)
      : config_(c),
        block_(s),
        modulation_(s / "adaLN_modulation" / 1, c.width, 2 * c.width),
        linear_(s / "linear", c.width, c.patch * c.patch * c.out_channels) {}

  /// x [B, tokens, width] -> [B, out_channels, height, width of the latent], float32.
  Tensor forward(const Tensor& x, const Tensor& c, const Tensor& latent) const {
    TokenGrid grid(latent, config_);
    auto height = latent.size(2), width = latent.size(3);
    return block_.run1({x, c}, [&](const Tensors& in) {
      auto mod = modulation_(in[1]).unsqueeze(1).chunk(2, -1);
      if (config_.scale_first) std::swap(mod[0], mod[1]);
      auto y = linear_(nn::modulated_norm(in[0], mod[0], mod[1]));
      auto p = config_.patch;
      auto image = y.view({y.size(0), grid.height, grid.width, p, p, config_.out_channels})
                       .permute({0, 5, 1, 3, 2, 4})
                       .reshape({y.size(0), config_.out_channels, grid.height * p, grid.width * p});
      return image.narrow(2, 0, height).narrow(3, 0, width).to(at::kFloat).contiguous();
    });
  }

 private:
  MmditConfig config_;
  weights::Block block_;
  nn::Linear modulation_, linear_;
};

std::string residual_name(std::int64_t block) {
  return control::name_of({control::Place::At::Block, static_cast<int>(block)});
}

InputSpecs mmdit_inputs(const MmditConfig& c) {
  using Kind = InputSpec::Kind;
  using Source = InputSpec::Source;
  const auto batch = Extent::batch(), cells = Extent::cells();
  auto number = [](std::int64_t value) { return Extent::number(value); };
  InputSpecs specs = {
      {.name = "x",
       .meaning = "latent",
       .kind = Kind::NoiseShape,
       .shape = {batch, number(c.in_channels), cells},
       .source = Source::Sampler},
      {.name = "timestep", .meaning = "noise level", .shape = {batch}, .source = Source::Sampler},
      {.name = "context",
       .meaning = "text conditioning",
       .shape = {batch, Extent::tokens(), number(c.text_width)}},
      {.name = "vector",
       .meaning = "pooled conditioning",
       .shape = {batch, number(c.vector_width)}}};
  for (std::int64_t i = 0; i < c.blocks; ++i)
    specs.push_back({.name = residual_name(i),
                     .meaning = "residual of a ControlNet",
                     .shape = {batch, Extent::any(), number(c.width)},
                     .optional = true,
                     .source = Source::Control});
  return specs;
}

std::vector<JointBlock> make_blocks(weights::Manifest& manifest, const MmditConfig& c) {
  std::vector<JointBlock> blocks;
  blocks.reserve(static_cast<std::size_t>(c.blocks));
  for (std::int64_t i = 0; i < c.blocks; ++i)
    blocks.emplace_back((Scope(manifest) / "joint_blocks" / i).block(), c, c.dual.count(i) != 0,
                        i + 1 == c.blocks);
  return blocks;
}

}  // namespace

struct Mmdit::Parts {
  Parts(weights::Manifest& manifest, const MmditConfig& c)
      : embed(Scope(manifest).block("embed"), c),
        blocks(make_blocks(manifest, c)),
        exit((Scope(manifest) / "final_layer").block(), c) {}

  Embedders embed;
  std::vector<JointBlock> blocks;
  FinalLayer exit;
};

Mmdit::Mmdit(const MmditConfig& config)
    : config_(config),
      inputs_(mmdit_inputs(config_)),
      parts_(std::make_unique<Parts>(manifest_, config_)) {}

Mmdit::~Mmdit() = default;

Tensor Mmdit::apply(const Inputs& inputs, const Patches& patches) const {
  check_inputs(inputs_, inputs);
  const auto& latent = inputs["x"];
  auto embedded =
      parts_->embed.forward(latent, inputs["timestep"], inputs["vector"], inputs["context"]);
  JointBlock::Tokens x{std::move(embedded.text), std::move(embedded.image)};
  for (std::size_t i = 0; i < parts_->blocks.size(); ++i) {
    if (patches.skipped.count(fmt::format("double_blocks.{}", i))) continue;
    x = parts_->blocks[i].forward(x, embedded.c);
    if (const auto& control = inputs[residual_name(static_cast<std::int64_t>(i))];
        control.defined())
      x.image.add_(control);
  }
  return parts_->exit.forward(x.image, embedded.c, latent);
}

}  // namespace distorch::models::sd3
