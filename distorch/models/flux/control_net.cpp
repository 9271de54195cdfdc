#include "distorch/models/flux/control_net.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/control/block_residuals.h"
#include "distorch/models/control/hint_encoder.h"
#include "distorch/models/flux/block.h"
#include "distorch/models/flux/block_parts.h"
#include "distorch/models/flux/entry.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::flux {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr std::int64_t kPixels = 8;  // of a side of the picture, a latent cell
constexpr std::int64_t kHintConvolutions = 8;

InputSpecs control_inputs(const Config& c) {
  using Source = InputSpec::Source;
  const auto batch = Extent::batch();
  auto number = [](std::int64_t value) { return Extent::number(value); };
  return {
      {.name = "x",
       .meaning = "latent",
       .kind = InputSpec::Kind::NoiseShape,
       .shape = {batch, number(c.in_channels), Extent::cells()},
       .source = Source::Sampler},
      {.name = "timestep", .meaning = "noise level", .shape = {batch}, .source = Source::Sampler},
      {.name = "context",
       .meaning = "text conditioning",
       .shape = {batch, Extent::tokens(), number(c.context_width)}},
      {.name = "vector",
       .meaning = "pooled conditioning",
       .shape = {batch, number(c.vector_width)},
       .optional = true},
      {.name = "guidance", .meaning = "guidance", .shape = {batch}, .optional = true},
      {.name = "guide",
       .meaning = "encoded hint",
       .kind = InputSpec::Kind::NoiseShape,
       .shape = {batch, number(c.hidden), Extent::cells(c.patch)},
       .source = Source::Control}};
}

/// A layer that is a weights::Block of its own.
template <class Layer>
struct Part {
  template <class... Arguments>
  explicit Part(const Scope& scope, Arguments&&... arguments)
      : block(scope), layer(scope, std::forward<Arguments>(arguments)...) {}
  weights::Block block;
  Layer layer;
};

}  // namespace

struct ControlNet::Parts {
  Parts(weights::Manifest& manifest, const Config& c, const std::vector<std::int64_t>& widths)
      : hint((Scope(manifest) / "input_hint_block").block(), widths),
        position((Scope(manifest) / "pos_embed_input").block(), c.patch * c.patch * widths.back(),
                 c.hidden),
        entry(Scope(manifest).block("img_in"), c) {}

  control::HintEncoder hint;
  Part<nn::Linear> position;
  Part<Entry> entry;
  std::vector<DoublePart> blocks;
  std::vector<control::BlockResidual> residuals;
};

ControlNet::ControlNet(const Config& config, const std::vector<std::int64_t>& hint_widths)
    : config_(config),
      hint_channels_(hint_widths.front()),
      inputs_(control_inputs(config_)),
      places_(control::block_places(config_.depth)) {
  auto parts = std::make_unique<Parts>(manifest_, config_, hint_widths);
  for (std::int64_t i = 0; i < config_.depth; ++i) {
    parts->blocks.emplace_back(Scope(manifest_) / "double_blocks" / i, config_);
    parts->residuals.emplace_back((Scope(manifest_) / "controlnet_blocks" / i).block(),
                                  config_.hidden);
  }
  parts_ = std::move(parts);
}

ControlNet::~ControlNet() = default;

control::HintFormat ControlNet::hint() const {
  return {.channels = hint_channels_, .multiple = kPixels * config_.patch};
}

Inputs ControlNet::encode(const Tensor& hint, std::optional<int>) const {
  if (hint.dim() != 4 || hint.size(1) != hint_channels_)
    throw Error(ErrorKind::Shape, "ControlNet",
                fmt::format("takes pictures of {} channels, got {}", hint_channels_,
                            c10::str(hint.sizes())));
  auto cut_up = cut(parts_->hint.forward(hint * 2.0 - 1.0), config_.patch);
  auto tokens = parts_->position.block.run1(
      {cut_up.tokens}, [this](const Tensors& in) { return parts_->position.layer(in[0]); });
  return {{"guide", tokens.transpose(1, 2).unflatten(2, {cut_up.height, cut_up.width})}};
}

Tensor ControlNet::apply(const Inputs& inputs) const {
  check_inputs(inputs_, inputs, "ControlNet");
  const auto &x = inputs["x"], &guide = inputs["guide"];
  for (int dim : {2, 3})
    if (guide.size(dim) != (x.size(dim) + config_.patch - 1) / config_.patch)
      throw Error(ErrorKind::Shape, "ControlNet",
                  fmt::format("has the features {} of a picture for a latent {}",
                              c10::str(guide.sizes()), c10::str(x.sizes())));
  const auto& parts = *parts_;
  auto made = parts.entry.block.run(
      {x, inputs["timestep"], inputs["context"], inputs["vector"], inputs["guidance"], guide},
      [&](const Tensors& t) -> Tensors {
        auto r = parts.entry.layer.forward({t[0], {}, t[1], t[2], t[3], t[4], {}});
        auto features = t[5].flatten(2).transpose(1, 2).to(r.img.scalar_type());
        return {r.img + features, r.txt, r.img_mod, r.txt_mod, r.rope.cos, r.rope.sin};
      });
  Tokens tokens{std::move(made[0]), std::move(made[1])};
  std::vector<Tensor> residuals;
  for (std::size_t i = 0; i < parts.blocks.size(); ++i) {
    const auto& part = parts.blocks[i];
    auto out = part.parts.attention.block.run(
        {tokens.img, tokens.txt, part.image_modulations({made[2]})[0],
         part.text_modulations({made[3]})[0], made[4], made[5]},
        [&](const Tensors& t) -> Tensors {
          return DoublePart::tensors_of(
              part.layers.attend({t[0], t[1]}, {t[2], t[3], {t[4], t[5]}}));
        });
    out = part.finish(out, 0);
    tokens = {out[0], out[1]};
    residuals.push_back(parts.residuals[i].forward(tokens.img));
  }
  return at::stack(residuals);
}

Inputs ControlNet::residuals(const Tensor& packed, at::IntArrayRef) const {
  return control::spread_over_blocks(packed, places_, 1);
}

weights::Checkpoint control_tensors(const weights::Checkpoint& file) {
  if (!file.has("controlnet_blocks.0.weight") || !file.has("input_hint_block.0.weight") ||
      !file.has("pos_embed_input.weight") || file.has_prefix("controlnet_single_blocks."))
    return {};
  return flux_tensors(file);
}

std::unique_ptr<control::ControlNetwork> make_control_net(const weights::Checkpoint& part) {
  const auto config = config_of(part);
  std::vector<std::int64_t> widths = {size_of(part, "input_hint_block.0.weight", 1)};
  for (std::int64_t i = 0; i < kHintConvolutions; ++i)
    widths.push_back(size_of(part, fmt::format("input_hint_block.{}.weight", 2 * i), 0));
  return std::make_unique<ControlNet>(config, widths);
}

}  // namespace distorch::models::flux
