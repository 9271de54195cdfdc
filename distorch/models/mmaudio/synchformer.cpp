#include "distorch/models/mmaudio/synchformer.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/patch.h"

namespace distorch::models::mmaudio {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr std::int64_t kHeadWidth = 64;
constexpr double kEps = 1e-6;

/// Tubes of pixels become tokens, a class token goes before them, each adds its place and its moment.
struct Entry {
  Entry(const Scope& s, const SynchformerConfig& c)
      : block(s),
        config(c),
        tubes((s / "patch_embed_3d" / "proj")
                  .weight("weight", {c.width, 3, c.tube, c.patch, c.patch})),
        bias((s / "patch_embed_3d" / "proj").weight("bias", {c.width})),
        start(s.weight("cls_token", {1, 1, c.width})),
        places(s.weight("pos_embed", {1, 1 + c.side * c.side, c.width})),
        moments(s.weight("temp_embed", {1, c.moments, c.width})) {}

  Tensor forward(const Tensor& segments) const {
    return block.run1({segments}, [this](const Tensors& in) {
      auto weight = nn::patched(tubes);
      const std::vector<std::int64_t> stride = {config.tube, config.patch, config.patch};
      auto x = at::conv3d(in[0].to(weight.scalar_type()), weight, nn::patched(bias), stride)
                   .flatten(2)
                   .transpose(1, 2);
      auto of_places = nn::patched(places);
      const auto cells = config.side * config.side;
      // Moment by moment, all places of each.
      auto known = (of_places.narrow(1, 1, cells).unsqueeze(1) + nn::patched(moments).unsqueeze(2))
                       .flatten(1, 2);
      auto first = (nn::patched(start) + of_places.narrow(1, 0, 1)).expand({x.size(0), 1, -1});
      return at::cat({first, x + known}, 1);
    });
  }

  weights::Block block;
  SynchformerConfig config;
  weights::Weight tubes, bias, start, places, moments;
};

/// Tokens attend to the class token and those of their own place (in time) or of their own moment (in
/// space); the class token attends to all.
struct DividedAttention {
  DividedAttention(const Scope& s, const SynchformerConfig& c, bool in_time)
      : qkv(s / "qkv", c.width, 3 * c.width),
        out(s / "proj", c.width, c.width),
        config(c),
        in_time(in_time) {}

  Tensor operator()(const Tensor& x) const {
    const auto b = x.size(0), moments = config.moments, places = config.side * config.side;
    auto all = qkv(x).unflatten(-1, {3, config.heads, kHeadWidth}).permute({2, 0, 1, 3, 4});
    auto first = all.narrow(2, 0, 1), rest = all.narrow(2, 1, moments * places);
    auto of_start = nn::attend(first[0], all[1], all[2]);
    // [3, B, groups, tokens of a group, H, D]
    auto groups = rest.unflatten(2, {moments, places});
    if (in_time) groups = groups.transpose(2, 3);
    const auto count = groups.size(2);
    auto with_start = [&](std::int64_t which) {
      auto start = first[which].unsqueeze(1).expand({b, count, 1, config.heads, kHeadWidth});
      return at::cat({start, groups[which]}, 2).flatten(0, 1);
    };
    auto of_groups =
        nn::attend(groups[0].flatten(0, 1), with_start(1), with_start(2)).unflatten(0, {b, count});
    if (in_time) of_groups = of_groups.transpose(1, 2);
    return out(at::cat({of_start, of_groups.flatten(1, 2)}, 1));
  }

  nn::Linear qkv, out;
  SynchformerConfig config;
  bool in_time;
};

/// One weights::Block.
struct Layer {
  Layer(const Scope& s, const SynchformerConfig& c)
      : block(s),
        time_norm(s / "norm3", c.width, kEps),
        space_norm(s / "norm1", c.width, kEps),
        mlp_norm(s / "norm2", c.width, kEps),
        time(s / "timeattn", c, true),
        space(s / "attn", c, false),
        mlp_in(s / "mlp" / "fc1", c.width, c.mlp_width),
        mlp_out(s / "mlp" / "fc2", c.mlp_width, c.width) {}
  Tensor forward(const Tensor& x) const {
    return block.run1({x}, [this](const Tensors& in) {
      auto y = in[0] + time(time_norm(in[0]));
      y = y + space(space_norm(y));
      return mlp_out(nn::gelu(mlp_in(mlp_norm(y)))).add_(y);
    });
  }
  weights::Block block;
  nn::LayerNorm time_norm, space_norm, mlp_norm;
  DividedAttention time, space;
  nn::Linear mlp_in, mlp_out;
};

/// Every moment becomes one token: what a token of its own makes of all places. Only that one is
/// computed.
struct Exit {
  Exit(const Scope& root, const SynchformerConfig& c)
      : block(root),
        config(c),
        norm(root / "norm", c.width, kEps),
        place(root / "spatial_attn_agg"),
        start(place.weight("cls_token", {1, 1, c.width})),
        in_weight((place / "self_attn").weight("in_proj_weight", {3 * c.width, c.width})),
        in_bias((place / "self_attn").weight("in_proj_bias", {3 * c.width})),
        out(place / "self_attn" / "out_proj", c.width, c.width),
        norm1(place / "norm1", c.width, kEps),
        norm2(place / "norm2", c.width, kEps),
        mlp_in(place / "linear1", c.width, c.mlp_width),
        mlp_out(place / "linear2", c.mlp_width, c.width) {}

  Tensor forward(const Tensor& x) const {
    return block.run1({x}, [this](const Tensors& in) {
      const auto b = in[0].size(0), places = config.side * config.side;
      auto tokens = norm(in[0].narrow(1, 1, config.moments * places))
                        .reshape({b * config.moments, places, config.width});
      auto first = nn::patched(start).to(tokens.scalar_type()).expand({tokens.size(0), 1, -1});
      auto all = norm1(at::cat({first, tokens}, 1));
      auto parts = nn::linear(all, in_weight, in_bias)
                       .unflatten(-1, {3, config.heads, kHeadWidth})
                       .permute({2, 0, 1, 3, 4});
      auto y = first + out(nn::attend(parts[0].narrow(1, 0, 1), parts[1], parts[2]));
      y = y + mlp_out(nn::gelu(mlp_in(norm2(y))));
      return y.reshape({b, config.moments, config.width}).to(at::kFloat);
    });
  }

  weights::Block block;
  SynchformerConfig config;
  nn::LayerNorm norm;
  Scope place;
  weights::Weight start, in_weight, in_bias;
  nn::Linear out;
  nn::LayerNorm norm1, norm2;
  nn::Linear mlp_in, mlp_out;
};

}  // namespace

Checkpoint synchformer_part(const Checkpoint& file) {
  const std::string prefix = "vfeat_extractor.";
  return file.has_prefix(prefix + "blocks.0.timeattn.") ? file.part(prefix) : Checkpoint{};
}

SynchformerConfig synchformer_config(const Checkpoint& part) {
  SynchformerConfig c;
  const std::string tubes = "patch_embed_3d.proj.weight";
  c.width = size_of(part, tubes, 0);
  c.tube = size_of(part, tubes, 2);
  c.patch = size_of(part, tubes, 3);
  c.layers = part.count("blocks.");
  c.mlp_width = size_of(part, "blocks.0.mlp.fc1.weight", 0);
  c.moments = size_of(part, "temp_embed", 1);
  const auto places = size_of(part, "pos_embed", 1) - 1;
  c.side = std::llround(std::sqrt(static_cast<double>(places)));
  c.heads = c.width / kHeadWidth;
  if (c.width % kHeadWidth != 0 || c.side * c.side != places || c.side < 1)
    throw Error(
        ErrorKind::Shape, part.path(),
        fmt::format("holds a Synchformer of width {} ('{}') with {} places ('pos_embed'): known "
                    "are multiples of {}, and squares of places",
                    c.width, tubes, places, kHeadWidth));
  return c;
}

struct Synchformer::Parts {
  Parts(const Scope& root, const SynchformerConfig& c) : in(root.block("in"), c) {
    for (std::int64_t i = 0; i < c.layers; ++i)
      layers.emplace_back((root / "blocks" / i).block(), c);
    out = std::make_unique<const Exit>(root.block("out"), c);
  }
  Entry in;
  std::vector<Layer> layers;
  std::unique_ptr<const Exit> out;
};

Synchformer::Synchformer(const SynchformerConfig& config)
    : config_(config), parts_(std::make_unique<const Parts>(Scope(manifest_), config_)) {}

Synchformer::~Synchformer() = default;

Tensor Synchformer::forward(const Tensor& segments) const {
  const auto& c = config_;
  const std::vector<std::int64_t> wanted = {segments.size(0), 3, c.frames(), c.pixels(),
                                            c.pixels()};
  if (segments.sizes() != wanted)
    throw Error(ErrorKind::Shape, "Synchformer",
                fmt::format("looks at {} frames of {} x {} pixels at once, and got {}", c.frames(),
                            c.pixels(), c.pixels(), c10::str(segments.sizes())));
  auto x = parts_->in.forward(segments);
  for (const auto& layer : parts_->layers) x = layer.forward(x);
  return parts_->out->forward(x);
}

}  // namespace distorch::models::mmaudio
