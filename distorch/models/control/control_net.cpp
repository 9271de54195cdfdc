#include "distorch/models/control/control_net.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/control/hint_encoder.h"
#include "distorch/models/sd/encoder.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/embedding.h"
#include "distorch/nn/patch.h"

namespace distorch::models::control {
namespace {

using at::Tensor;
using sd::EmbeddingMlp;
using weights::Scope;
using weights::Tensors;

/// Attention and feed-forward over the features of several hints, each behind a norm and added to
/// its input: [B, hints, width] -> the same.
class UnionLayer {
 public:
  UnionLayer(const Scope& s, std::int64_t width)
      : norm1_(s / "ln_1", width),
        norm2_(s / "ln_2", width),
        qkv_(s / "attn" / "in_proj", width, 3 * width),
        out_(s / "attn" / "out_proj", width, width),
        fc_(s / "mlp" / "c_fc", width, 4 * width),
        proj_(s / "mlp" / "c_proj", 4 * width, width) {}

  Tensor operator()(const Tensor& x) const {
    constexpr std::int64_t heads = 8;
    auto qkv = qkv_(norm1_(x)).chunk(3, -1);
    auto y = out_(nn::attention(qkv[0], qkv[1], qkv[2], {.heads = heads})).add_(x);
    return proj_(nn::quick_gelu(fc_(norm2_(y)))).add_(y);
  }

 private:
  nn::LayerNorm norm1_, norm2_;
  nn::Linear qkv_, out_, fc_, proj_;
};

/// What a union network knows about the kinds of control. One weights::Block.
class Union {
 public:
  Union(const Scope& s, const ControlNetConfig& c)
      : block_(s),
        types_(c.types),
        task_(s.weight("task_embedding", {c.types, c.type_width})),
        projection_(s / "spatial_ch_projs", c.type_width, c.encoder.model_channels),
        embedding_(nn::Linear(s / "control_add_embedding" / "linear_1", kFrequencies * c.types,
                              c.encoder.time_width),
                   nn::Linear(s / "control_add_embedding" / "linear_2", c.encoder.time_width,
                              c.encoder.time_width)) {
    for (std::int64_t i = 0; i < c.type_layers; ++i)
      layers_.emplace_back(s / "transformer_layes" / i, c.type_width);
  }

  /// {the features with what their mean and the kind of control say added to them,
  ///  embedding of the kind of control [1, time_width]}.
  Tensors forward(const Tensor& features, std::optional<int> type) const {
    auto chosen = at::zeros({types_});
    if (type) chosen[*type] = 1.0;
    return block_.run({features, chosen.to(features.device())}, [&](const Tensors& in) -> Tensors {
      auto embedded = embedding_(nn::timestep_embedding(in[1], kFrequencies).view({1, -1}));
      if (!type) return {in[0].clone(), embedded};
      auto x = (in[0].mean({2, 3}) + nn::patched(task_)[*type]).unsqueeze(1);
      for (const auto& layer : layers_) x = layer(x);
      auto alpha = projection_(x.select(1, 0));
      return {in[0] + alpha.unsqueeze(-1).unsqueeze(-1), embedded};
    });
  }

 private:
  static constexpr std::int64_t kFrequencies = 256;

  weights::Block block_;
  std::int64_t types_;
  weights::Weight task_;
  std::vector<UnionLayer> layers_;
  nn::Linear projection_;
  EmbeddingMlp embedding_;
};

/// The 1x1 convolutions that make residuals of the stages' outputs. One weights::Block: they are
/// small, and run at the end.
class ZeroConvs {
 public:
  ZeroConvs(const Scope& s, const std::vector<std::int64_t>& widths, std::int64_t middle)
      : block_(s) {
    for (std::size_t i = 0; i < widths.size(); ++i)
      convs_.emplace_back(s / "zero_convs" / static_cast<std::int64_t>(i) / 0, widths[i], widths[i],
                          nn::pointwise);
    convs_.emplace_back(s / "middle_block_out" / 0, middle, middle, nn::pointwise);
  }

  /// The residuals one behind the other, each as [B, h, w, C].
  Tensor forward(const Tensors& stages) const {
    return block_.run1(stages, [this](const Tensors& in) {
      Tensors out;
      for (std::size_t i = 0; i < in.size(); ++i)
        out.push_back(convs_[i](in[i]).permute({0, 2, 3, 1}).reshape({-1}));
      return at::cat(out);
    });
  }

 private:
  weights::Block block_;
  std::vector<nn::Conv2d> convs_;
};

InputSpecs inputs_of(const ControlNetConfig& c) {
  using Kind = InputSpec::Kind;
  using Source = InputSpec::Source;
  const auto batch = Extent::batch(), cells = Extent::cells();
  auto number = [](std::int64_t value) { return Extent::number(value); };
  const auto& e = c.encoder;
  InputSpecs specs = {
      {.name = "x",
       .meaning = "latent",
       .kind = Kind::NoiseShape,
       .shape = {batch, number(e.in_channels), cells},
       .source = Source::Sampler},
      {.name = "timestep", .meaning = "noise level", .shape = {batch}, .source = Source::Sampler}};
  if (e.context_width > 0)
    specs.push_back({.name = "context",
                     .meaning = "text conditioning",
                     .kind = Kind::CrossAttn,
                     .shape = {batch, Extent::tokens(), number(e.context_width)}});
  if (e.vector_width > 0)
    specs.push_back({.name = "vector",
                     .meaning = "pooled conditioning",
                     .shape = {batch, number(e.vector_width)}});
  specs.push_back({.name = "guide",
                   .meaning = "encoded hint",
                   .shape = {batch, number(e.model_channels), cells},
                   .source = Source::Control});
  if (c.types > 0)
    specs.push_back({.name = "kind",
                     .meaning = "kind of control",
                     .shape = {batch, number(e.time_width)},
                     .source = Source::Control});
  return specs;
}

}  // namespace

struct ControlNet::Parts {
  Parts(weights::Manifest& manifest, const ControlNetConfig& c)
      : hint((Scope(manifest) / "input_hint_block").block(), c.hint_widths),
        kinds(c.types > 0 ? std::optional<Union>(std::in_place, Scope(manifest).block("union"), c)
                          : std::nullopt),
        encoder(manifest, c.encoder),
        zero_convs(Scope(manifest).block("zero_convs"), sd::stage_widths(c.encoder),
                   c.encoder.channels.back()) {}

  HintEncoder hint;
  std::optional<Union> kinds;
  sd::Encoder encoder;
  ZeroConvs zero_convs;
};

ControlNet::ControlNet(const ControlNetConfig& config)
    : config_(config),
      inputs_(inputs_of(config_)),
      parts_(std::make_unique<Parts>(manifest_, config_)),
      widths_(sd::stage_widths(config_.encoder)) {
  places_.push_back({Place::At::Skip, 0});
  halvings_.push_back(0);
  for (const auto& stage : parts_->encoder.down) {
    places_.push_back({Place::At::Skip, static_cast<int>(places_.size())});
    halvings_.push_back(halvings_.back() + (stage.down ? 1 : 0));
  }
  places_.push_back({Place::At::Middle});
  widths_.push_back(config_.encoder.channels.back());
  halvings_.push_back(halvings_.back());
}

ControlNet::~ControlNet() = default;

Inputs ControlNet::encode(const Tensor& hint, std::optional<int> type) const {
  if (hint.size(1) != config_.hint_widths.front())
    throw Error(ErrorKind::Shape, "ControlNet",
                fmt::format("takes hints of {} channels, got {}", config_.hint_widths.front(),
                            hint.size(1)));
  if (type && config_.types > 0 && (*type < 0 || *type >= config_.types))
    throw Error(ErrorKind::Usage, "ControlNet",
                fmt::format("knows the first {} kinds of control only, not '{}': larger union "
                            "networks (\"ProMax\") know more",
                            config_.types, union_control_types().at(*type)));
  auto features = parts_->hint.forward(hint);
  if (!parts_->kinds) return {{"guide", features}};
  auto both = parts_->kinds->forward(features, type);
  return {{"guide", both[0]}, {"kind", both[1]}};
}

Tensor ControlNet::apply(const Inputs& inputs) const {
  check_inputs(inputs_, inputs, "ControlNet");
  const auto& encoder = parts_->encoder;
  auto embedded = encoder.time.forward(inputs["timestep"], inputs["vector"], inputs["context"]);
  const auto &emb = embedded[0], &context = embedded[1];
  if (parts_->kinds) emb.add_(inputs["kind"]);

  auto h = encoder.entry.forward(inputs["x"], {});
  h.add_(inputs["guide"]);
  Tensors stages = {h};
  for (const auto& stage : encoder.down) {
    h = stage.forward(std::move(h), {}, emb, context);
    stages.push_back(h);
  }
  stages.push_back(encoder.middle.forward(std::move(h), {}, emb, context));
  return parts_->zero_convs.forward(stages);
}

Inputs ControlNet::residuals(const Tensor& packed, at::IntArrayRef x) const {
  Inputs result;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < places_.size(); ++i) {
    auto half = [&](std::int64_t cells) {
      for (auto n = halvings_[i]; n > 0; --n) cells = (cells + 1) / 2;
      return cells;
    };
    auto height = half(x[2]), width = half(x[3]);
    auto size = x[0] * widths_[i] * height * width;
    result.set(name_of(places_[i]), packed.narrow(0, begin, size)
                                        .view({x[0], height, width, widths_[i]})
                                        .permute({0, 3, 1, 2}));
    begin += size;
  }
  return result;
}

}  // namespace distorch::models::control
