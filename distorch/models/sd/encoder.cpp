#include "distorch/models/sd/encoder.h"

#include "distorch/nn/activation.h"
#include "distorch/nn/embedding.h"

namespace distorch::models::sd {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

EmbeddingMlp make_mlp(const Scope& s, std::int64_t in, std::int64_t width) {
  nn::Linear first(s / 0, in, width);
  return {first, nn::Linear(s / 2, width, width)};
}

std::vector<Stage> make_down(weights::Manifest& manifest, const UNetConfig& c) {
  std::vector<Stage> stages;
  auto inputs = Scope(manifest) / "input_blocks";
  auto channels = c.model_channels;
  std::size_t transformer_index = 0;
  for (std::size_t level = 0; level < c.channels.size(); ++level) {
    for (std::int64_t j = 0; j < c.res_blocks[level]; ++j) {
      auto s = inputs / static_cast<std::int64_t>(stages.size() + 1);
      auto& stage = stages.emplace_back(Stage{.name = s.prefix()});
      stage.res = make_res_block(s / 0, c, channels, c.channels[level]);
      channels = c.channels[level];
      auto depth = c.depth_in[transformer_index++];
      if (depth > 0) stage.transformer = make_transformer(s / 1, c, channels, depth);
    }
    if (level + 1 == c.channels.size()) break;
    auto s = inputs / static_cast<std::int64_t>(stages.size() + 1);
    stages.emplace_back(Stage{.name = s.prefix()}).down.emplace((s / 0).block(), channels);
  }
  return stages;
}

Stage make_middle(weights::Manifest& manifest, const UNetConfig& c) {
  auto s = Scope(manifest) / "middle_block";
  Stage stage{.name = s.prefix()};
  auto channels = c.channels.back();
  if (c.depth_middle < -1) return stage;
  stage.res = make_res_block(s / 0, c, channels, channels);
  if (c.depth_middle < 0) return stage;
  if (c.depth_middle > 0) stage.transformer = make_transformer(s / 1, c, channels, c.depth_middle);
  stage.second_res = make_res_block(s / (c.depth_middle > 0 ? 2 : 1), c, channels, channels);
  return stage;
}

}  // namespace

Tensor EmbeddingMlp::operator()(const Tensor& x) const {
  return second(nn::silu_over(first(x.to(first.dtype()))));
}

TimeEmbedding::TimeEmbedding(const Scope& s, const UNetConfig& c)
    : block_(s),
      channels_(c.model_channels),
      time_(make_mlp(s / "time_embed", c.model_channels, c.time_width)) {
  if (c.vector_width > 0)
    vector_.emplace(make_mlp(s / "label_emb" / 0, c.vector_width, c.time_width));
}

Tensors TimeEmbedding::forward(const Tensor& timestep, const Tensor& vector,
                               const Tensor& context) const {
  return block_.run({timestep, vector, context}, [this](const Tensors& in) -> Tensors {
    auto emb = time_(nn::timestep_embedding(in[0], channels_));
    if (vector_) emb = emb.add_((*vector_)(in[1]));
    return {emb, in[2].defined() ? in[2].to(emb.scalar_type()) : in[2]};
  });
}

Entry::Entry(const Scope& s, const UNetConfig& c)
    : block_(s), conv_(s, c.in_channels, c.model_channels) {}

Tensor Entry::forward(const Tensor& x, const Tensor& concat) const {
  return block_.run1({x, concat}, [this](const Tensors& in) {
    auto x = in[1].defined() ? at::cat({in[0], in[1].to(in[0].scalar_type())}, 1) : in[0];
    return conv_(nn::to_layout(x, conv_.dtype()));
  });
}

Tensor Stage::received_attention(const Tensor& x, const Tensor& emb) const {
  if (!transformer) return {};
  return transformer->received_attention(res ? res->forward(x, {}, emb) : x);
}

Tensor Stage::forward(Tensor x, Tensor skip, const Tensor& emb, const Tensor& context,
                      Attend attend, const ResBlock::Edit& edit, const Prompts* pictures) const {
  if (res) x = res->forward(x, skip, emb, edit);
  skip.reset();
  SpatialTransformer::Pictures beside;
  if (pictures) beside = [&](std::int64_t depth) { return pictures->at(name, depth); };
  if (transformer && attend != Attend::Skip) x = transformer->forward(x, context, attend, beside);
  if (second_res) x = second_res->forward(x, {}, emb);
  if (down) x = down->forward(x);
  return x;
}

ResBlock make_res_block(const Scope& s, const UNetConfig& c, std::int64_t in, std::int64_t out) {
  return ResBlock(s.block(), {.in = in, .out = out, .time = c.time_width});
}

SpatialTransformer make_transformer(const Scope& s, const UNetConfig& c, std::int64_t channels,
                                    std::int64_t depth) {
  return SpatialTransformer(s, {.channels = channels,
                                .context = c.context_width,
                                .heads = c.heads(channels),
                                .depth = depth,
                                .linear_projection = c.linear_projection});
}

Encoder::Encoder(weights::Manifest& manifest, const UNetConfig& c)
    : time(Scope(manifest).block("time_embed"), c),
      entry((Scope(manifest) / "input_blocks" / 0 / 0).block(), c),
      down(make_down(manifest, c)),
      middle(make_middle(manifest, c)) {}

std::vector<std::int64_t> stage_widths(const UNetConfig& c) {
  std::vector<std::int64_t> widths = {c.model_channels};
  for (std::size_t level = 0; level < c.channels.size(); ++level) {
    widths.insert(widths.end(), c.res_blocks[level], c.channels[level]);
    if (level + 1 < c.channels.size()) widths.push_back(c.channels[level]);
  }
  return widths;
}

}  // namespace distorch::models::sd
