#include "distorch/models/sd/unet.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
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
  Tensors forward(const DiffusionInput& input) const {
    return block_.run({input.timestep, input.vector, input.context},
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

  Tensor forward(const DiffusionInput& input) const {
    return block_.run1({input.x, input.concat}, [this](const Tensors& in) {
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

UNet::UNet(const UNetConfig& config)
    : config_(config), parts_(std::make_unique<Parts>(manifest_, config_)) {}

UNet::~UNet() = default;

void UNet::check(const DiffusionInput& in) const {
  auto refuse = [](const std::string& what) {
    throw Error(ErrorKind::Shape, "diffusion model", what);
  };
  auto channels = in.x.size(1) + (in.concat.defined() ? in.concat.size(1) : 0);
  if (channels != config_.in_channels)
    refuse(fmt::format("takes {} channels (latent and additional ones together), got {}",
                       config_.in_channels, channels));
  if (config_.context_width > 0 &&
      (!in.context.defined() || in.context.size(2) != config_.context_width))
    refuse(fmt::format(
        "needs a text conditioning of width {}, got {}: the text encoder belongs to another model",
        config_.context_width, in.context.defined() ? in.context.size(2) : 0));
  if (config_.vector_width > 0 &&
      (!in.vector.defined() || in.vector.size(1) != config_.vector_width))
    refuse(fmt::format("needs a conditioning vector of width {}", config_.vector_width));
}

Tensor UNet::apply(const DiffusionInput& input) const { return apply(input, nullptr); }

Tensor UNet::apply(const DiffusionInput& input, const Probe& probe) const {
  check(input);
  auto see = [&](const std::string& name, const Tensor& t) {
    if (probe) probe(name, t);
  };
  auto embedded = parts_->time.forward(input);
  const auto &emb = embedded[0], &context = embedded[1];
  see("time_embed", emb);

  auto h = parts_->entry.forward(input);
  see("input_blocks.0", h);
  Tensors skips = {h};
  for (const auto& stage : parts_->down) {
    if (stage.res) h = stage.res->forward(h, {}, emb);
    if (stage.transformer) h = stage.transformer->forward(h, context);
    if (stage.down) h = stage.down->forward(h);
    skips.push_back(h);
    see(stage.name, h);
  }

  const auto& middle = parts_->middle;
  if (middle.res) h = middle.res->forward(h, {}, emb);
  if (middle.transformer) h = middle.transformer->forward(h, context);
  if (middle.second_res) h = middle.second_res->forward(h, {}, emb);
  see(middle.name, h);

  for (const auto& stage : parts_->up) {
    auto skip = std::move(skips.back());
    skips.pop_back();
    h = stage.res->forward(h, skip, emb);
    skip.reset();
    if (stage.transformer) h = stage.transformer->forward(h, context);
    // Halving rounds up, so doubling can be one pixel too large: take the size of the next skip
    // connection.
    if (stage.up) h = stage.up->forward(h, skips.back().size(2), skips.back().size(3));
    see(stage.name, h);
  }
  return parts_->exit.forward(h);
}

}  // namespace distorch::models::sd
