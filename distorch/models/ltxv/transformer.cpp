#include "distorch/models/ltxv/transformer.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/models/ltxv/block.h"
#include "distorch/models/whole_patches.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/embedding.h"
#include "distorch/nn/modulation.h"
#include "distorch/nn/patch.h"

namespace distorch::models::ltxv {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr std::int64_t kLevelWidth = 256;  // of the embedding of a noise level
constexpr double kSteps = 1000;            // by which a timestep is multiplied
constexpr double kFrameRate = 25;          // where a call says none

InputSpecs specs_of(const Config& c) {
  using Kind = InputSpec::Kind;
  using Source = InputSpec::Source;
  const auto batch = Extent::batch(), any = Extent::any();
  return {{.name = "x",
           .meaning = "latent",
           .kind = Kind::NoiseShape,
           .shape = {batch, Extent::number(c.channels), Extent::cells()},
           .source = Source::Sampler},
          {.name = "timestep", .meaning = "timestep", .shape = {batch}, .source = Source::Sampler},
          {.name = "context",
           .meaning = "text conditioning",
           .shape = {batch, Extent::tokens(), Extent::number(c.text_width)}},
          {.name = "attention_mask",
           .meaning = "mask of text tokens",
           .shape = {batch, Extent::tokens()},
           .optional = true},
          {.name = "frame_rate", .meaning = "frame rate", .kind = Kind::Constant, .optional = true},
          {.name = "denoise_mask",
           .meaning = "noise mask",
           .shape = {batch, any, any, any, any},
           .optional = true},
          {.name = "keyframes",
           .meaning = "places of guiding frames",
           .shape = {batch, Extent::number(3), any},
           .optional = true}};
}

/// [1, T · h · w, 3]: frame, row and column of the cells of a latent [B, C, T, h, w], in frames and
/// pixels of the clip.
Tensor cells_of(const Tensor& latent, const Config& config) {
  auto options = at::TensorOptions().dtype(at::kFloat).device(latent.device());
  std::vector<std::int64_t> shape = {latent.size(2), latent.size(3), latent.size(4)};
  auto along = [&](std::size_t axis, std::int64_t each) {
    std::vector<std::int64_t> view(3, 1);
    view[axis] = shape[axis];
    return (at::arange(shape[axis], options) * static_cast<double>(each)).view(view);
  };
  auto frames = along(0, kFramesOfCell);
  if (config.causal_times) frames = (frames + (1.0 - kFramesOfCell)).clamp_min(0);
  return at::stack({frames.expand(shape), along(1, kPixelsOfCell).expand(shape),
                    along(2, kPixelsOfCell).expand(shape)},
                   -1)
      .flatten(0, 2)
      .unsqueeze(0);
}

/// Where the tokens of a call are, in seconds and pixels. Error(Shape) where there are more guiding
/// tokens than tokens.
Tensor places_of(const Inputs& inputs, const Config& config) {
  auto places = cells_of(inputs["x"], config);
  if (const auto& guides = inputs["keyframes"]; guides.defined()) {
    auto given = guides.size(2), own = places.size(1) - given;
    if (own < 0)
      throw Error(ErrorKind::Shape, "keyframes",
                  fmt::format("of {} tokens guide a latent that has {}: it is not the one that the "
                              "guides were added to",
                              given, places.size(1)));
    auto mine = places.narrow(1, 0, own).expand({guides.size(0), own, 3});
    places = at::cat({mine, guides.to(places.options()).transpose(1, 2)}, 1);
  }
  auto seconds = places.select(-1, 0) * (1.0 / inputs.number("frame_rate", kFrameRate));
  return at::stack({seconds, places.select(-1, 1), places.select(-1, 2)}, -1);
}

/// Noise levels [B, N]: one for all tokens, one for each frame or, where the mask differs within
/// frames, one for each token.
Tensor levels_of(const Inputs& inputs) {
  auto level = inputs["timestep"].to(at::kFloat).unsqueeze(1);
  const auto& mask = inputs["denoise_mask"];
  if (!mask.defined()) return level;
  auto wanted = inputs["x"].sizes().vec();
  wanted.erase(wanted.begin() + 1);
  auto first = mask.select(1, 0).to(at::kFloat);
  for (std::int64_t dim = 0; dim < first.dim(); ++dim)
    if (first.size(dim) != 1 && first.size(dim) != wanted[static_cast<std::size_t>(dim)])
      throw Error(ErrorKind::Shape, "noise mask",
                  fmt::format("is of {}, and the latent of {}", c10::str(mask.sizes()),
                              c10::str(inputs["x"].sizes())));
  const bool by_frame = first.size(2) == 1 && first.size(3) == 1;
  return (by_frame ? first : first.expand(wanted)).flatten(1) * level;
}

/// [B, 1, 1, Lt] to be added to scores, of a mask [B, Lt] (1 = counts).
Tensor score_mask(const Tensor& mask, at::ScalarType dtype) {
  if (!mask.defined()) return {};
  // Far below every score, and a number in every type.
  constexpr double never = -60000;
  return ((1.0 - mask.to(at::kFloat)) * never).to(dtype).view({mask.size(0), 1, 1, -1});
}

/// Two layers with an activation between them.
struct TwoLayers {
  TwoLayers(const Scope& s, std::int64_t in, std::int64_t out)
      : first(s / "linear_1", in, out), second(s / "linear_2", out, out) {}
  nn::Linear first, second;
};

/// Everything before the blocks. One weights::Block.
struct Entrance {
  Entrance(const Scope& s, const Config& c)
      : block(s),
        patch(s / "patchify_proj", c.channels, c.width),
        time(s / "adaln_single" / "emb" / "timestep_embedder", kLevelWidth, c.width),
        parts(s / "adaln_single" / "linear", c.width, 6 * c.width),
        text(s / "caption_projection", c.text_width, c.width) {}

  /// tokens [B, L, C], levels [B, N], text [B, Lt, text width] -> [B, L, D], [B, N, D],
  /// [B, N, 6 · D], [B, Lt, D].
  Tensors forward(const Tensor& tokens, const Tensor& levels, const Tensor& states) const {
    return block.run({tokens, levels, states}, [this](const Tensors& in) -> Tensors {
      auto dtype = patch.dtype();
      auto waves = nn::timestep_embedding(in[1].flatten() * kSteps, kLevelWidth).to(dtype);
      auto level = time.second(nn::silu_over(time.first(waves))).unflatten(0, in[1].sizes());
      auto words = text.second(text.first.gelu_tanh(in[2].to(dtype)));
      return {patch(in[0].to(dtype)), level, parts(nn::silu(level)), words};
    });
  }

  weights::Block block;
  nn::Linear patch;
  TwoLayers time;
  nn::Linear parts;
  TwoLayers text;
};

/// Everything behind the blocks. One weights::Block.
struct Exit {
  Exit(const Scope& s, const Config& c)
      : block(s),
        modulation(s.weight("scale_shift_table", {2, c.width})),
        out(s / "proj_out", c.width, c.channels) {}

  /// tokens [B, L, D], level [B, N, D] -> [B, L, C] float32.
  Tensor forward(const Tensor& tokens, const Tensor& level) const {
    return block.run1({tokens, level}, [this](const Tensors& in) {
      auto dtype = out.dtype();
      auto both = in[1].to(dtype).unsqueeze(2) + nn::patched(modulation).to(dtype);
      auto normed = nn::modulated_norm(by_level(in[0], both.size(1)), of_level(both.select(2, 0)),
                                       of_level(both.select(2, 1)));
      return out(normed.view(in[0].sizes())).to(at::kFloat);
    });
  }

  weights::Block block;
  weights::Weight modulation;
  nn::Linear out;
};

}  // namespace

struct Transformer::Parts {
  Parts(const Scope& root, const Config& c) : in(root.block("in"), c) {
    for (std::int64_t i = 0; i < c.layers; ++i)
      blocks.emplace_back((root / "transformer_blocks" / i).block(), c);
    out.emplace(root.block("out"), c);
  }
  Entrance in;
  std::vector<VideoBlock> blocks;
  std::optional<Exit> out;
};

Transformer::Transformer(const Config& config)
    : config_(config),
      inputs_(specs_of(config_)),
      parts_(std::make_unique<const Parts>(Scope(manifest_), config_)) {}

Transformer::~Transformer() = default;

Tensor Transformer::apply(const Inputs& inputs, const Patches& patches) const {
  check_inputs(inputs_, inputs, "LTX-Video");
  const auto& x = inputs["x"];
  auto table = positions_table(places_of(inputs, config_), config_);
  auto made = parts_->in.forward(patches_as_tokens(x, 1), levels_of(inputs), inputs["context"]);
  auto tokens = std::move(made[0]);
  auto mask = score_mask(inputs["attention_mask"], tokens.scalar_type());
  const BlockContext context{made[2], table, made[3], mask};
  for (std::size_t i = 0; i < parts_->blocks.size(); ++i) {
    const auto name = fmt::format("double_blocks.{}", i);
    if (patches.skipped.count(name) != 0) continue;
    const bool looks_around = patches.skipped.count(name + ".attn1") == 0;
    tokens = parts_->blocks[i].forward(tokens, context, looks_around);
  }
  auto result = parts_->out->forward(tokens, made[1]);
  return result.transpose(1, 2).reshape(x.sizes());
}

}  // namespace distorch::models::ltxv
