#include "distorch/models/sd/unet.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/sd/free_u.h"
#include "distorch/models/sd/res_block.h"
#include "distorch/models/sd/transformer.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/embedding.h"

namespace distorch::models::sd {
namespace {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

/// Two linear layers with SiLU in between: [B, in] -> [B, width].
struct EmbeddingMlp {
  EmbeddingMlp(const Scope& s, std::int64_t in, std::int64_t width)
      : first(s / 0, in, width), second(s / 2, width, width) {}
  Tensor operator()(const Tensor& x) const {
    return second(nn::silu_over(first(x.to(first.dtype()))));
  }
  nn::Linear first, second;
};

/// The embedding of the timestep (and of the second conditioning vector, where there is one).
class TimeEmbedding {
 public:
  TimeEmbedding(const Scope& s, const UNetConfig& c)
      : block_(s),
        channels_(c.model_channels),
        time_(s / "time_embed", c.model_channels, c.time_width) {
    if (c.vector_width > 0) vector_.emplace(s / "label_emb" / 0, c.vector_width, c.time_width);
  }

  /// {embedding [B, time_width], context}, both in the compute dtype on the compute device.
  Tensors forward(const Inputs& input) const {
    return block_.run({input["timestep"], input["vector"], input["context"]},
                      [this](const Tensors& in) -> Tensors {
                        auto emb = time_(nn::timestep_embedding(in[0], channels_));
                        if (vector_) emb = emb.add_((*vector_)(in[1]));
                        return {emb, in[2].defined() ? in[2].to(emb.scalar_type()) : in[2]};
                      });
  }

 private:
  weights::Block block_;
  std::int64_t channels_;
  EmbeddingMlp time_;
  std::optional<EmbeddingMlp> vector_;
};

/// The first convolution, which also brings the latent into the compute dtype and memory format.
class Entry {
 public:
  Entry(const Scope& s, const UNetConfig& c)
      : block_(s), conv_(s, c.in_channels, c.model_channels) {}

  Tensor forward(const Inputs& input) const {
    return block_.run1({input["x"], input["concat"]}, [this](const Tensors& in) {
      auto x = in[1].defined() ? at::cat({in[0], in[1].to(in[0].scalar_type())}, 1) : in[0];
      return conv_(nn::to_layout(x, conv_.dtype()));
    });
  }

 private:
  weights::Block block_;
  nn::Conv2d conv_;
};

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

/// One entry of input_blocks or output_blocks, or the middle: any of its parts may be absent.
struct Stage {
  std::string name;
  std::optional<ResBlock> res;
  std::optional<SpatialTransformer> transformer;
  std::optional<ResBlock> second_res;  // the middle's
  std::optional<Downsample> down;
  std::optional<Upsample> up;
};

}  // namespace

struct UNet::Parts {
  Parts(weights::Manifest& manifest, const UNetConfig& c)
      : time(Scope(manifest).block("time_embed"), c),
        entry((Scope(manifest) / "input_blocks" / 0 / 0).block(), c),
        down(make_down(manifest, c)),
        middle(make_middle(manifest, c)),
        up(make_up(manifest, c)),
        exit((Scope(manifest) / "out").block(), c) {}

  static ResBlock res_block(const Scope& s, const UNetConfig& c, std::int64_t in,
                            std::int64_t out) {
    return ResBlock(s.block(), {.in = in, .out = out, .time = c.time_width});
  }
  static SpatialTransformer transformer(const Scope& s, const UNetConfig& c, std::int64_t channels,
                                        std::int64_t depth) {
    return SpatialTransformer(s, {.channels = channels,
                                  .context = c.context_width,
                                  .heads = c.heads(channels),
                                  .depth = depth,
                                  .linear_projection = c.linear_projection});
  }
  static std::vector<Stage> make_down(weights::Manifest& manifest, const UNetConfig& c);
  static Stage make_middle(weights::Manifest& manifest, const UNetConfig& c);
  static std::vector<Stage> make_up(weights::Manifest& manifest, const UNetConfig& c);

  TimeEmbedding time;
  Entry entry;
  std::vector<Stage> down;
  Stage middle;
  std::vector<Stage> up;
  Exit exit;
};

std::vector<Stage> UNet::Parts::make_down(weights::Manifest& manifest, const UNetConfig& c) {
  std::vector<Stage> stages;
  auto inputs = Scope(manifest) / "input_blocks";
  auto channels = c.model_channels;
  std::size_t transformer_index = 0;
  for (std::size_t level = 0; level < c.channels.size(); ++level) {
    for (std::int64_t j = 0; j < c.res_blocks[level]; ++j) {
      auto s = inputs / static_cast<std::int64_t>(stages.size() + 1);
      auto& stage = stages.emplace_back(Stage{.name = s.prefix()});
      stage.res = res_block(s / 0, c, channels, c.channels[level]);
      channels = c.channels[level];
      auto depth = c.depth_in[transformer_index++];
      if (depth > 0) stage.transformer = transformer(s / 1, c, channels, depth);
    }
    if (level + 1 == c.channels.size()) break;
    auto s = inputs / static_cast<std::int64_t>(stages.size() + 1);
    stages.emplace_back(Stage{.name = s.prefix()}).down.emplace((s / 0).block(), channels);
  }
  return stages;
}

Stage UNet::Parts::make_middle(weights::Manifest& manifest, const UNetConfig& c) {
  auto s = Scope(manifest) / "middle_block";
  Stage stage{.name = s.prefix()};
  auto channels = c.channels.back();
  if (c.depth_middle < -1) return stage;
  stage.res = res_block(s / 0, c, channels, channels);
  if (c.depth_middle < 0) return stage;
  if (c.depth_middle > 0) stage.transformer = transformer(s / 1, c, channels, c.depth_middle);
  stage.second_res = res_block(s / (c.depth_middle > 0 ? 2 : 1), c, channels, channels);
  return stage;
}

std::vector<Stage> UNet::Parts::make_up(weights::Manifest& manifest, const UNetConfig& c) {
  // Widths of the outputs on the way down, which come back in reverse order.
  std::vector<std::int64_t> skips = {c.model_channels};
  for (std::size_t level = 0; level < c.channels.size(); ++level) {
    skips.insert(skips.end(), c.res_blocks[level], c.channels[level]);
    if (level + 1 < c.channels.size()) skips.push_back(c.channels[level]);
  }
  std::vector<Stage> stages;
  auto channels = c.channels.back();
  for (auto level = static_cast<std::int64_t>(c.channels.size()) - 1; level >= 0; --level) {
    for (std::int64_t j = 0; j <= c.res_blocks[level]; ++j) {
      auto s = Scope(manifest) / "output_blocks" / static_cast<std::int64_t>(stages.size());
      auto depth = c.depth_out[stages.size()];
      auto& stage = stages.emplace_back(Stage{.name = s.prefix()});
      stage.res = res_block(s / 0, c, channels + skips.back(), c.channels[level]);
      skips.pop_back();
      channels = c.channels[level];
      if (depth > 0) stage.transformer = transformer(s / 1, c, channels, depth);
      if (level > 0 && j == c.res_blocks[level])
        stage.up.emplace((s / (depth > 0 ? 2 : 1)).block(), channels);
    }
  }
  return stages;
}

namespace {

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
  return specs;
}

// What a ControlNet gave for a place; it may have computed in another dtype.
Tensor with_control(Tensor h, const Inputs& inputs, const std::string& name) {
  const auto& control = inputs[name];
  return control.defined() ? h + control.to(h.scalar_type()) : h;
}

}  // namespace

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
  auto embedded = parts_->time.forward(inputs);
  const auto &emb = embedded[0], &context = embedded[1];
  see("time_embed", emb);
  auto attend = [&](const Stage& stage, const Tensor& h) {
    return stage.transformer && !patches.skipped.count(stage.name)
               ? stage.transformer->forward(h, context)
               : h;
  };

  auto h = with_control(parts_->entry.forward(inputs), inputs, "control_input.0");
  see("input_blocks.0", h);
  Tensors skips = {h};
  for (const auto& stage : parts_->down) {
    if (stage.res) h = stage.res->forward(h, {}, emb);
    h = attend(stage, h);
    if (stage.down) h = stage.down->forward(h);
    h = with_control(h, inputs, fmt::format("control_input.{}", skips.size()));
    skips.push_back(h);
    see(stage.name, h);
  }

  const auto& middle = parts_->middle;
  if (middle.res) h = middle.res->forward(h, {}, emb);
  h = attend(middle, h);
  if (middle.second_res) h = middle.second_res->forward(h, {}, emb);
  h = with_control(h, inputs, "control_middle");
  see(middle.name, h);

  auto free_u = free_u_edit(patches.free_u, config_.model_channels);
  for (const auto& stage : parts_->up) {
    auto skip = with_control(std::move(skips.back()), inputs,
                             fmt::format("control_output.{}", skips.size() - 1));
    skips.pop_back();
    h = stage.res->forward(h, skip, emb, free_u);
    skip.reset();
    h = attend(stage, h);
    // Halving rounds up, so doubling can be one pixel too large: take the size of the next skip
    // connection.
    if (stage.up) h = stage.up->forward(h, skips.back().size(2), skips.back().size(3));
    see(stage.name, h);
  }
  return parts_->exit.forward(h);
}

}  // namespace distorch::models::sd
