#include "distorch/models/wan/control_net.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"
#include "distorch/models/wan/block.h"
#include "distorch/models/wan/entrance.h"
#include "distorch/models/wan/tokens.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/patch.h"

namespace distorch::models::wan {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr std::size_t kConvolutions = 3;
constexpr const char* kPlace = "ControlNet";

InputSpecs specs_of(const ControlNetConfig& c) {
  using Source = InputSpec::Source;
  const auto batch = Extent::batch(), any = Extent::any();
  return {{.name = "x",
           .meaning = "latent",
           .kind = InputSpec::Kind::NoiseShape,
           .shape = {batch, Extent::number(c.latent_channels), Extent::cells()},
           .source = Source::Sampler},
          {.name = "timesteps",
           .meaning = "timesteps",
           .shape = {batch, any},
           .source = Source::Sampler},
          {.name = "context",
           .meaning = "text conditioning",
           .shape = {batch, Extent::tokens(), Extent::number(c.layers.text_width)}},
          {.name = "guide",
           .meaning = "encoded control video",
           .shape = {batch, Extent::number(c.encoder_widths.back()), any, any, any},
           .source = Source::Control}};
}

/// One convolution of the encoder with GELU and a norm of two groups behind it: the first makes cells
/// of pixels, the others halve the frames.
struct EncoderStage {
  EncoderStage(const Scope& s, std::int64_t from, std::int64_t to, std::int64_t cell)
      : pixels(cell),
        weight((s / 0).weight("weight",
                              {to, from, 3, cell > 0 ? cell + 1 : 3, cell > 0 ? cell + 1 : 3})),
        bias((s / 0).weight("bias", {to})),
        norm(s / 2, to, 1e-5, /*groups=*/2) {}

  Tensor operator()(const Tensor& x) const {
    const auto stride = pixels > 0 ? std::vector<std::int64_t>{1, pixels, pixels}
                                   : std::vector<std::int64_t>{2, 1, 1};
    const auto edge = pixels > 0 ? pixels / 2 : 1;
    auto y = nn::gelu_tanh_over(at::conv3d(x, nn::patched(weight), nn::patched(bias), stride,
                                           std::vector<std::int64_t>{1, edge, edge}));
    return norm(y.flatten(2, 3)).reshape(y.sizes());
  }

  std::int64_t pixels;  // of a cell's side; 0: it halves the frames
  weights::Weight weight, bias;
  nn::GroupNorm norm;
};

struct Encoder {
  Encoder(const Scope& s, const ControlNetConfig& c) : block(s) {
    for (std::size_t i = 0; i < kConvolutions; ++i)
      stages.emplace_back(s / static_cast<std::int64_t>(i), c.encoder_widths.at(i),
                          c.encoder_widths.at(i + 1), i == 0 ? c.pixels : 0);
  }
  Tensor forward(const Tensor& video) const {
    return block.run1({video}, [this](const Tensors& in) {
      auto x = in[0].to(stages.front().weight.dtype());
      for (const auto& stage : stages) x = stage(x);
      return x;
    });
  }
  weights::Block block;
  std::vector<EncoderStage> stages;
};

/// A layer and the matrix of its residual. One weights::Block.
struct Layer {
  Layer(const Scope& s, std::int64_t index, const ControlNetConfig& c)
      : block(s),
        layer(s / "blocks" / index, c.layers),
        out(s / "controlnet_blocks" / index, c.layers.width, c.model_width) {}
  weights::Block block;
  VideoBlock layer;
  nn::Linear out;
};

}  // namespace

Checkpoint control_net_part(const Checkpoint& file) {
  auto part = renamed_layers(file);
  for (const char* name : {"control_encoder.0.0.weight", "controlnet_blocks.0.weight",
                           "patch_embedding.weight", "blocks.0.self_attn.q.weight"})
    if (!part.has(name))
      throw Error(
          ErrorKind::Format, file.path(),
          fmt::format("holds no ControlNet of Wan that distorch knows: it has no tensor '{}'",
                      name));
  return part;
}

ControlNetConfig control_net_config(const Checkpoint& part) {
  ControlNetConfig c;
  auto& layers = c.layers;
  layers.width = size_of(part, "patch_embedding.weight", 0);
  layers.in_channels = size_of(part, "patch_embedding.weight", 1);
  layers.mlp_width = size_of(part, "blocks.0.ffn.0.weight", 0);
  layers.text_width = size_of(part, "text_embedding.0.weight", 1);
  layers.sinusoids = size_of(part, "time_embedding.0.weight", 1);
  layers.layers = part.count("blocks.");
  layers.norm_before_text = part.has("blocks.0.norm3.weight");
  c.encoder_widths = {size_of(part, "control_encoder.0.0.weight", 1)};
  for (std::size_t i = 0; i < kConvolutions; ++i)
    c.encoder_widths.push_back(size_of(part, fmt::format("control_encoder.{}.0.weight", i), 0));
  c.pixels = size_of(part, "control_encoder.0.0.weight", 3) - 1;
  c.model_width = size_of(part, "controlnet_blocks.0.weight", 0);
  c.latent_channels = layers.in_channels - c.encoder_widths.back();
  if (layers.width % Config::kHeadWidth != 0)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("'patch_embedding.weight' is of width {}, which is no multiple of the "
                            "heads' {}",
                            layers.width, Config::kHeadWidth));
  if (c.pixels < 2 || c.latent_channels < 1 || c.encoder_widths[1] % 2 != 0 ||
      c.encoder_widths[2] % 2 != 0 || c.encoder_widths[3] % 2 != 0)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("'control_encoder' gives {} channels of cells of {} pixels, which does "
                            "not go with the {} that 'patch_embedding.weight' takes",
                            c.encoder_widths.back(), c.pixels, layers.in_channels));
  return c;
}

struct ControlNet::Parts {
  Parts(const Scope& root, const ControlNetConfig& c)
      : encoder((root / "control_encoder").block(), c), in(root.block("in"), c.layers) {
    for (std::int64_t i = 0; i < c.layers.layers; ++i)
      layers.emplace_back(root.block(fmt::format("blocks.{}", i)), i, c);
  }
  Encoder encoder;
  Entrance in;
  std::vector<Layer> layers;
};

ControlNet::ControlNet(const ControlNetConfig& config)
    : config_(config),
      inputs_(specs_of(config_)),
      parts_(std::make_unique<Parts>(Scope(manifest_), config_)) {}

ControlNet::~ControlNet() = default;

Tensor ControlNet::encode(const Tensor& video) const {
  if (video.dim() != 5 || video.size(1) != config_.encoder_widths.front())
    throw Error(ErrorKind::Shape, kPlace,
                fmt::format("takes a video of {} channels, got {}", config_.encoder_widths.front(),
                            c10::str(video.sizes())));
  return parts_->encoder.forward(video);
}

Tensor ControlNet::apply(const Inputs& inputs, const Patches&) const {
  check_inputs(inputs_, inputs, kPlace);
  const auto &x = inputs["x"], &guide = inputs["guide"];
  if (guide.sizes().slice(2) != x.sizes().slice(2))
    throw Error(ErrorKind::Shape, kPlace,
                fmt::format("has a control video of {} (frames, height, width) in the latent, and "
                            "the latent is of {}",
                            c10::str(guide.sizes().slice(2)), c10::str(x.sizes().slice(2))));
  auto both = at::cat({x, guide.to(x.scalar_type())}, 1);
  auto made = parts_->in.forward(to_tokens(both), inputs["timesteps"], inputs["context"]);
  const BlockContext context{
      made.parts,
      nn::rope_table(positions(x.sizes(), 0, x.device()), Config::axes(), 10000.0),
      made.text,
      {}};
  auto tokens = made.tokens;
  const auto count = static_cast<std::int64_t>(parts_->layers.size());
  auto residuals =
      at::empty({count, tokens.size(0), tokens.size(1), config_.model_width}, tokens.options());
  for (std::int64_t i = 0; i < count; ++i) {
    const auto& layer = parts_->layers[static_cast<std::size_t>(i)];
    auto out = layer.block.run(context.with({tokens}), [&](const Tensors& in) -> Tensors {
      auto y = layer.layer.run(in[0], context.from(in, 1));
      return {y, layer.out(y)};
    });
    tokens = out[0];
    residuals.select(0, i).copy_(out[1]);
  }
  return residuals;
}

}  // namespace distorch::models::wan
