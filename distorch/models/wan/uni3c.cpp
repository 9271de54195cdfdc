#include "distorch/models/wan/uni3c.h"

#include <fmt/format.h>

#include <optional>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"
#include "distorch/models/wan/tokens.h"
#include "distorch/nn/activated_linear.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/modulation.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/rope.h"

namespace distorch::models::wan {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

InputSpecs specs_of(const Uni3CConfig& c) {
  using Kind = InputSpec::Kind;
  using Source = InputSpec::Source;
  const auto batch = Extent::batch();
  return {{.name = "x",
           .meaning = "latent and mask",
           .kind = Kind::NoiseShape,
           .shape = {batch, Extent::number(Uni3CConfig::kSeenChannels), Extent::cells()},
           .source = Source::Sampler},
          {.name = "render",
           .meaning = "latent of the rendered video",
           .kind = Kind::NoiseShape,
           .shape = {batch, Extent::number(c.render_channels), Extent::cells()},
           .source = Source::Control},
          {.name = "time",
           .meaning = "embedding of the noise level",
           .shape = {batch, Extent::number(c.time_width)},
           .source = Source::Control}};
}

struct Entrance {
  Entrance(const Scope& s, const Uni3CConfig& c)
      : block(s),
        patch((s / "controlnet_patch_embedding")
                  .weight("weight", {c.patch_width, Uni3CConfig::kSeenChannels + c.render_channels,
                                     1, kPatch, kPatch})),
        bias((s / "controlnet_patch_embedding").weight("bias", {c.patch_width})) {
    if (c.narrows) narrow.emplace(s / "proj_in", c.patch_width, c.width);
  }
  Tensor forward(const Tensor& tokens) const {
    return block.run1({tokens}, [this](const Tensors& in) {
      auto x = nn::linear(in[0].to(patch.dtype()), patch, bias);
      return narrow ? (*narrow)(x) : x;
    });
  }
  weights::Block block;
  weights::Weight patch, bias;
  std::optional<nn::Linear> narrow;
};

/// A norm whose scale and shift, with the gate of what follows, come from the noise level.
struct Modulated {
  Modulated(const Scope& s, const Uni3CConfig& c)
      : parts(s / "linear", c.time_width, 3 * c.width), norm(s / "norm", c.width) {}
  struct Result {
    Tensor x, gate;
  };
  Result operator()(const Tensor& x, const Tensor& level) const {
    const auto all = parts(level).unsqueeze(1).chunk(3, -1);  // shift, scale, gate
    return {norm(x) * (1 + all[1]) + all[0], all[2]};
  }
  nn::Linear parts;
  nn::LayerNorm norm;
};

struct SelfAttention {
  SelfAttention(const Scope& s, std::int64_t width)
      : q(s / "to_q", width, width),
        k(s / "to_k", width, width),
        v(s / "to_v", width, width),
        out(s / "to_out" / 0, width, width),
        norm_q(s / "norm_q", width),
        norm_k(s / "norm_k", width) {}
  Tensor operator()(const Tensor& x, const nn::RopeTable& rope) const {
    auto heads = [](const Tensor& t) { return t.unflatten(-1, {-1, Uni3CConfig::kHeadWidth}); };
    return out(nn::attend(nn::apply_rope(heads(norm_q(q(x))), rope),
                          nn::apply_rope(heads(norm_k(k(x))), rope), heads(v(x))));
  }
  nn::Linear q, k, v, out;
  nn::RmsNorm norm_q, norm_k;
};

/// A layer and the matrix of what the model gets. One weights::Block.
struct Layer {
  Layer(const Scope& s, std::int64_t index, const Uni3CConfig& c)
      : Layer(s, s / "controlnet_blocks" / index, index, c) {}
  Layer(const Scope& root, const Scope& s, std::int64_t index, const Uni3CConfig& c)
      : block(s),
        norm1(s / "norm1", c),
        attention(s / "self_attn", c.width),
        norm2(s / "norm2", c),
        mlp_in(s / "ffn" / 0, c.width, c.mlp_width),
        mlp_out(s / "ffn" / 2, c.mlp_width, c.width),
        out(root / "proj_out" / index, c.width, c.model_width) {}

  /// The tokens behind it, and what the model gets.
  Tensors forward(const Tensor& x, const Tensor& time, const nn::RopeTable& rope) const {
    return block.run({x, time, rope.cos, rope.sin}, [&](const Tensors& in) -> Tensors {
      auto here = rope;
      here.cos = in[2];
      here.sin = in[3];
      const auto level = nn::silu(in[1].to(mlp_in.dtype()));
      auto part = norm1(in[0], level);
      auto y = nn::gated_add(in[0], part.gate, attention(part.x, here));
      part = norm2(y, level);
      y = nn::gated_add(y, part.gate, nn::gelu_mlp(mlp_in, mlp_out, part.x));
      return {y, out(y)};
    });
  }

  weights::Block block;
  Modulated norm1;
  SelfAttention attention;
  Modulated norm2;
  nn::Linear mlp_in;
  nn::ActivatedLinear mlp_out;
  nn::Linear out;
};

/// Numbers of a head that turn with the token's frame, row and column.
std::vector<std::int64_t> axes() {
  constexpr std::int64_t side = 2 * (Uni3CConfig::kHeadWidth / 6);
  return {Uni3CConfig::kHeadWidth - 2 * side, side, side};
}

}  // namespace

Uni3CConfig uni3c_config(const Checkpoint& file) {
  for (const char* name : {"controlnet_patch_embedding.weight", "controlnet_blocks.0.ffn.0.weight",
                           "controlnet_blocks.0.self_attn.to_q.weight", "proj_out.0.weight"})
    if (!file.has(name))
      throw Error(ErrorKind::Format, file.path(),
                  fmt::format("holds no control network of Uni3C: it has no tensor '{}'", name));
  Uni3CConfig c;
  c.patch_width = size_of(file, "controlnet_patch_embedding.weight", 0);
  c.render_channels =
      size_of(file, "controlnet_patch_embedding.weight", 1) - Uni3CConfig::kSeenChannels;
  c.width = size_of(file, "controlnet_blocks.0.self_attn.to_q.weight", 0);
  c.mlp_width = size_of(file, "controlnet_blocks.0.ffn.0.weight", 0);
  c.layers = file.count("controlnet_blocks.");
  c.time_width = size_of(file, "controlnet_blocks.0.norm1.linear.weight", 1);
  c.model_width = size_of(file, "proj_out.0.weight", 0);
  c.narrows = c.patch_width != c.width;
  if (c.render_channels < 1)
    throw Error(
        ErrorKind::Shape, file.path(),
        fmt::format("'controlnet_patch_embedding.weight' takes {} channels, and Uni3C's take "
                    "{} and those of a rendered video",
                    c.render_channels + Uni3CConfig::kSeenChannels, Uni3CConfig::kSeenChannels));
  if (c.width % Uni3CConfig::kHeadWidth != 0)
    throw Error(
        ErrorKind::Shape, file.path(),
        fmt::format("'controlnet_blocks.0.self_attn.to_q.weight' is of width {}, which is no "
                    "multiple of the heads' {}",
                    c.width, Uni3CConfig::kHeadWidth));
  return c;
}

struct Uni3C::Parts {
  Parts(const Scope& root, const Uni3CConfig& c) : in(root.block("in"), c) {
    for (std::int64_t i = 0; i < c.layers; ++i)
      layers.emplace_back(root.block(fmt::format("controlnet_blocks.{}", i)), i, c);
  }
  Entrance in;
  std::vector<Layer> layers;
};

Uni3C::Uni3C(const Uni3CConfig& config)
    : config_(config),
      inputs_(specs_of(config_)),
      parts_(std::make_unique<Parts>(Scope(manifest_), config_)) {}

Uni3C::~Uni3C() = default;

Tensor Uni3C::apply(const Inputs& inputs, const Patches&) const {
  check_inputs(inputs_, inputs, "Uni3C");
  const auto &x = inputs["x"], &render = inputs["render"];
  if (render.sizes().slice(2) != x.sizes().slice(2))
    throw Error(ErrorKind::Shape, "Uni3C",
                fmt::format("has a rendered video of {} (frames, height, width) in the latent, and "
                            "the latent is of {}",
                            c10::str(render.sizes().slice(2)), c10::str(x.sizes().slice(2))));
  auto tokens = parts_->in.forward(to_tokens(at::cat({x, render.to(x.scalar_type())}, 1)));
  const auto rope = nn::rope_table(positions(x.sizes(), 0, x.device()), axes(), 10000.0);
  const auto count = static_cast<std::int64_t>(parts_->layers.size());
  auto residuals =
      at::empty({count, tokens.size(0), tokens.size(1), config_.model_width}, tokens.options());
  for (std::int64_t i = 0; i < count; ++i) {
    auto out = parts_->layers[static_cast<std::size_t>(i)].forward(tokens, inputs["time"], rope);
    tokens = out[0];
    residuals.select(0, i).copy_(out[1]);
  }
  return residuals;
}

}  // namespace distorch::models::wan
