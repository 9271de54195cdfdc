#include "distorch/models/sd/unet.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/sd/encoder.h"
#include "distorch/models/sd/free_u.h"
#include "distorch/models/sd/image_prompt.h"
#include "distorch/nn/conv.h"
#include "distorch/nn/norm.h"

namespace distorch::models::sd {
namespace {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

/// Norm, SiLU and the last convolution; float32 in plain layout.
class Exit {
 public:
  Exit(const Scope& s, const UNetConfig& c)
      : block_(s), norm_(s / 0, c.model_channels), conv_(s / 2, c.model_channels, c.out_channels) {}

  Tensor forward(const Tensor& x) const {
    return block_.run1({x}, [this](const Tensors& in) {
      return conv_(norm_.silu(in[0])).to(at::kFloat).contiguous(at::MemoryFormat::Contiguous);
    });
  }

 private:
  weights::Block block_;
  nn::GroupNorm norm_;
  nn::Conv2d conv_;
};

std::vector<Stage> make_up(weights::Manifest& manifest, const UNetConfig& c) {
  // The outputs on the way down come back in reverse order.
  auto skips = stage_widths(c);
  std::vector<Stage> stages;
  auto channels = c.channels.back();
  for (auto level = static_cast<std::int64_t>(c.channels.size()) - 1; level >= 0; --level) {
    for (std::int64_t j = 0; j <= c.res_blocks[level]; ++j) {
      auto s = Scope(manifest) / "output_blocks" / static_cast<std::int64_t>(stages.size());
      auto depth = c.depth_out[stages.size()];
      auto& stage = stages.emplace_back(Stage{.name = s.prefix()});
      stage.res = make_res_block(s / 0, c, channels + skips.back(), c.channels[level]);
      skips.pop_back();
      channels = c.channels[level];
      if (depth > 0) stage.transformer = make_transformer(s / 1, c, channels, depth);
      if (level > 0 && j == c.res_blocks[level])
        stage.up.emplace((s / (depth > 0 ? 2 : 1)).block(), channels);
    }
  }
  return stages;
}

InputSpecs unet_inputs(const UNetConfig& c) {
  using Kind = InputSpec::Kind;
  using Source = InputSpec::Source;
  const auto batch = Extent::batch(), cells = Extent::cells();
  auto number = [](std::int64_t value) { return Extent::number(value); };
  InputSpecs specs = {
      {.name = "x",
       .meaning = "latent",
       .kind = Kind::NoiseShape,
       .shape = {batch, number(c.out_channels), cells},
       .source = Source::Sampler},
      {.name = "timestep", .meaning = "noise level", .shape = {batch}, .source = Source::Sampler}};
  if (c.context_width > 0)
    specs.push_back({.name = "context",
                     .meaning = "text conditioning",
                     .kind = Kind::CrossAttn,
                     .shape = {batch, Extent::tokens(), number(c.context_width)}});
  if (c.in_channels > c.out_channels)
    specs.push_back({.name = "concat",
                     .meaning = "picture beside the latent",
                     .kind = Kind::NoiseShape,
                     .shape = {batch, number(c.in_channels - c.out_channels), cells}});
  if (c.vector_width > 0)
    specs.push_back({.name = "vector",
                     .meaning = "pooled conditioning",
                     .shape = {batch, number(c.vector_width)}});
  auto control = [&](const std::string& name, std::int64_t channels, std::int64_t each) {
    specs.push_back({.name = name,
                     .meaning = "ControlNet output",
                     .shape = {batch, number(channels), Extent::cells(each)},
                     .optional = true,
                     .source = Source::Control});
  };
  std::int64_t stage = 0, each = 1;
  auto add = [&](std::int64_t channels) {
    control(fmt::format("control_input.{}", stage), channels, each);
    control(fmt::format("control_output.{}", stage), channels, each);
    ++stage;
  };
  add(c.model_channels);
  for (std::size_t level = 0; level < c.channels.size(); ++level) {
    for (std::int64_t j = 0; j < c.res_blocks[level]; ++j) add(c.channels[level]);
    if (level + 1 == c.channels.size()) break;
    each *= 2;
    add(c.channels[level]);
  }
  control("control_middle", c.channels.back(), each);
  for (auto& spec : prompt_inputs(c)) specs.push_back(std::move(spec));
  return specs;
}

// What a ControlNet gave for a place; it may have computed in another dtype. Added in place: between
// blocks nothing may be allocated that could not be freed again.
Tensor with_control(const Tensor& h, const Inputs& inputs, const std::string& name) {
  const auto& control = inputs[name];
  return control.defined() ? h.add_(control) : h;
}

}  // namespace

struct UNet::Parts {
  Parts(weights::Manifest& manifest, const UNetConfig& c)
      : encoder(manifest, c),
        up(make_up(manifest, c)),
        exit((Scope(manifest) / "out").block(), c) {}

  Encoder encoder;
  std::vector<Stage> up;
  Exit exit;
};

UNet::UNet(const UNetConfig& config)
    : config_(config),
      inputs_(unet_inputs(config_)),
      parts_(std::make_unique<Parts>(manifest_, config_)) {}

UNet::~UNet() = default;

Tensor UNet::apply(const Inputs& inputs, const Patches& patches) const {
  return apply(inputs, patches, nullptr);
}

Tensor UNet::apply(const Inputs& inputs, const Patches& patches, const Probe& probe) const {
  check_inputs(inputs_, inputs);
  auto see = [&](const std::string& name, const Tensor& t) {
    if (probe) probe(name, t);
  };
  const auto& encoder = parts_->encoder;
  auto embedded = encoder.time.forward(inputs["timestep"], inputs["vector"], inputs["context"]);
  const auto &emb = embedded[0], &context = embedded[1];
  see("time_embed", emb);
  auto attends = [&](const Stage& stage) {
    if (patches.skipped.count(stage.name)) return Attend::Skip;
    return patches.identity_attention.count(stage.name) ? Attend::Identity : Attend::Usual;
  };

  const Prompts pictures(config_, inputs);
  auto h =
      with_control(encoder.entry.forward(inputs["x"], inputs["concat"]), inputs, "control_input.0");
  see("input_blocks.0", h);
  Tensors skips = {h};
  for (const auto& stage : encoder.down) {
    h = stage.forward(std::move(h), {}, emb, context, attends(stage), {}, &pictures);
    h = with_control(h, inputs, fmt::format("control_input.{}", skips.size()));
    skips.push_back(h);
    see(stage.name, h);
  }

  const auto& middle = encoder.middle;
  if (!patches.attention_map.empty()) {
    auto map = patches.attention_map == middle.name ? middle.received_attention(h, emb) : Tensor();
    if (!map.defined())
      throw Error(ErrorKind::Usage, "Self-Attention Guidance",
                  "this model has no attention in its middle that could be looked at");
    return map;
  }
  h = middle.forward(std::move(h), {}, emb, context, attends(middle), {}, &pictures);
  h = with_control(h, inputs, "control_middle");
  see(middle.name, h);

  auto free_u = free_u_edit(patches.free_u, config_.model_channels);
  for (const auto& stage : parts_->up) {
    auto skip =
        with_control(skips.back(), inputs, fmt::format("control_output.{}", skips.size() - 1));
    skips.pop_back();
    h = stage.forward(std::move(h), std::move(skip), emb, context, attends(stage), free_u,
                      &pictures);
    // Halving rounds up, so doubling can be one pixel too large: take the size of the next skip
    // connection.
    if (stage.up) h = stage.up->forward(h, skips.back().size(2), skips.back().size(3));
    see(stage.name, h);
  }
  return parts_->exit.forward(h);
}

}  // namespace distorch::models::sd
