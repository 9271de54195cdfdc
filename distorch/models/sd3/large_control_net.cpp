#include "distorch/models/sd3/large_control_net.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/models/control/block_residuals.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/sd3/block.h"
#include "distorch/models/sd3/embed.h"
#include "distorch/models/tensor_size.h"
#include "distorch/models/whole_patches.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/embedding.h"

namespace distorch::models::sd3 {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr std::int64_t kTimeFrequencies = 256;
constexpr const char* kType = "control_type";
constexpr const char* kFirstBlock = "transformer_blocks.0.adaLN_modulation.1.bias";
/// Beside "y_embedder", which is the model's.
constexpr const char* kOwnVector = "control_y_embedder.";

/// The file's names without their ends -> the network's, in both of the forms that files have.
constexpr std::array<std::pair<const char*, const char*>, 7> kNames = {{
    {"pos_embed.proj.", "x_embedder.proj."},
    {"time_text_embed.timestep_embedder.linear_1.", "t_embedder.mlp.0."},
    {"time_text_embed.timestep_embedder.linear_2.", "t_embedder.mlp.2."},
    {"time_text_embed.text_embedder.linear_1.", "control_y_embedder.mlp.0."},
    {"time_text_embed.text_embedder.linear_2.", "control_y_embedder.mlp.2."},
    {"y_embedder.mlp.0.", "control_y_embedder.mlp.0."},
    {"y_embedder.mlp.2.", "control_y_embedder.mlp.2."},
}};

std::string network_name(const std::string& name) {
  for (const auto& [from, to] : kNames)
    if (name.starts_with(from)) return to + name.substr(std::string_view(from).size());
  return name;
}

InputSpecs specs_of(const MmditConfig& c) {
  return control::inputs_of(c.in_channels, "noise level",
                            {.name = "vector",
                             .meaning = "pooled conditioning",
                             .shape = {Extent::batch(), Extent::number(c.vector_width)}},
                            c.in_channels);
}

/// Latent, timestep and pooled text: a block of weights.
class Entry {
 public:
  Entry(const Scope& s, const MmditConfig& c)
      : block_(s),
        patch_(c.patch),
        patches_(s / "x_embedder" / "proj", c.in_channels, c.width,
                 {.kernel = c.patch, .stride = c.patch, .padding = 0}),
        time_(s / "t_embedder", kTimeFrequencies, c.width),
        model_vector_(s / "y_embedder", c.vector_width, c.width),
        vector_(s / "control_y_embedder", c.width, c.width) {}

  /// Tokens [B, tokens, width] and what modulates, SiLU applied, [B, width].
  std::pair<Tensor, Tensor> forward(const Tensor& x, const Tensor& timestep,
                                    const Tensor& vector) const {
    auto out = block_.run({x, timestep, vector}, [this](const Tensors& in) -> Tensors {
      auto dtype = patches_.dtype();
      auto tokens = nn::to_tokens(patches_(whole_patches(in[0].to(dtype), patch_)));
      auto c = time_(nn::timestep_embedding(in[1], kTimeFrequencies).to(dtype));
      return {tokens, nn::silu_over(c.add_(vector_(model_vector_(in[2].to(dtype)))))};
    });
    return {out[0], out[1]};
  }

 private:
  weights::Block block_;
  std::int64_t patch_;
  nn::Conv2d patches_;
  VectorEmbedder time_, model_vector_, vector_;
};

/// x [B, tokens, width] -> the same shape. One weights::Block.
class TokenBlock {
 public:
  TokenBlock(const Scope& s, const MmditConfig& c) : block_(s), stream_(s, c, {}) {}
  Tensor forward(const Tensor& x, const Tensor& c) const {
    return block_.run1({x, c}, [this](const Tensors& in) {
      auto prepared = stream_.prepare(in[0], in[1]);
      auto attended = nn::attend(prepared.joint.q, prepared.joint.k, prepared.joint.v);
      return stream_.finish(in[0], attended, prepared);
    });
  }

 private:
  weights::Block block_;
  Stream stream_;
};

}  // namespace

struct LargeControlNet::Parts {
  Parts(const Scope& root, const MmditConfig& c)
      : entry(root.block("embed"), c), hint(root.block("hint"), c, c.in_channels) {
    for (std::int64_t i = 0; i < c.blocks; ++i) {
      blocks.emplace_back((root / "transformer_blocks" / i).block(), c);
      residuals.emplace_back((root / "controlnet_blocks" / i).block(), c.width);
    }
  }
  Entry entry;
  HintTokens hint;
  std::vector<TokenBlock> blocks;
  std::vector<control::BlockResidual> residuals;
};

LargeControlNet::LargeControlNet(const MmditConfig& config, Kind kind)
    : config_(config),
      kind_(kind),
      inputs_(specs_of(config_)),
      places_(control::block_places(config_.blocks * repeats())),
      parts_(std::make_unique<Parts>(Scope(manifest_), config_)) {}

LargeControlNet::~LargeControlNet() = default;

std::int64_t LargeControlNet::repeats() const {
  return (config_.heads() + config_.blocks - 1) / config_.blocks;
}

control::HintFormat LargeControlNet::hint() const {
  return {.channels = config_.in_channels, .latent = true};
}

control::Preparation LargeControlNet::preparation() const {
  // What these networks were trained with, numbers beyond 1 included.
  if (kind_ == Kind::Canny) return {.scale = 255 * 0.5, .offset = 0.5};
  if (kind_ == Kind::Depth) return {.scale = -1.0, .offset = 1.0};
  return {};
}

Inputs LargeControlNet::encode(const Tensor& hint, std::optional<int>) const {
  if (hint.dim() != 4 || hint.size(1) != config_.in_channels)
    throw Error(ErrorKind::Shape, "ControlNet",
                fmt::format("takes latents of {} channels, got {}: it wants the VAE of SD3",
                            config_.in_channels, c10::str(hint.sizes())));
  Inputs inputs;
  inputs.set("hint", sd3_latent().into_network(hint));
  return inputs;
}

Tensor LargeControlNet::apply(const Inputs& inputs) const {
  check_inputs(inputs_, inputs, "ControlNet");
  auto [tokens, c] = parts_->entry.forward(inputs["x"], inputs["timestep"], inputs["vector"]);
  auto both = parts_->hint.forward(tokens, inputs["hint"]);
  std::vector<Tensor> residuals;
  for (std::size_t i = 0; i < parts_->blocks.size(); ++i)
    residuals.push_back(parts_->residuals[i].forward(parts_->blocks[i].forward(both, c)));
  return at::stack(residuals);
}

Inputs LargeControlNet::residuals(const Tensor& packed, at::IntArrayRef) const {
  return control::spread_over_blocks(packed, places_, repeats());
}

bool is_large_control_net(const Checkpoint& file) {
  return file.has("pos_embed_input.proj.weight") && file.has(kFirstBlock) &&
         file.has("controlnet_blocks.0.weight");
}

control::Merged large_control_over(const Checkpoint& file, const Checkpoint& model) {
  control::Merged merged;
  for (const auto& [name, stored] : file.tensors()) merged.part.add(network_name(name), stored);
  auto width = size_of(merged.part, std::string(kOwnVector) + "mlp.0.weight", 0);
  if (size_of(merged.part, std::string(kOwnVector) + "mlp.0.weight", 1) != width)
    throw Error(ErrorKind::Format, file.path(),
                "holds a ControlNet of SD3.5 that is none of those for the large model, which are "
                "the ones that are known");
  if (!model.has("y_embedder.mlp.0.weight") ||
      !model.has("joint_blocks.0.x_block.mlp.fc1.weight") ||
      size_of(model, "y_embedder.mlp.0.weight", 0) != width)
    throw Error(
        ErrorKind::Usage, file.path(),
        fmt::format("is a ControlNet for SD3.5 of width {}, which {} is not", width, model.path()));
  for (const char* layer : {"y_embedder.mlp.0.", "y_embedder.mlp.2."})
    for (const char* end : {"weight", "bias"}) {
      auto name = std::string(layer) + end;
      const auto* stored = model.find(name);
      if (!stored) continue;
      merged.part.add(name, *stored);
      merged.from_unet.push_back(name);
    }
  return merged;
}

std::unique_ptr<control::ControlNetwork> make_large_control_net(const Checkpoint& part) {
  MmditConfig c;
  c.width = size_of(part, "x_embedder.proj.weight", 0);
  c.in_channels = c.out_channels = size_of(part, "x_embedder.proj.weight", 1);
  c.patch = size_of(part, "x_embedder.proj.weight", 2);
  c.blocks = part.count("transformer_blocks.");
  c.vector_width = size_of(part, "y_embedder.mlp.0.weight", 1);
  c.mlp_width = size_of(part, "transformer_blocks.0.mlp.fc1.weight", 0);
  c.positions = 0;
  if (c.width % kHeadWidth != 0)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("holds a ControlNet of width {}, which is no multiple of {}", c.width,
                            kHeadWidth));
  auto kind = number_in(part, kType, 0.0);
  using Kind = LargeControlNet::Kind;
  return std::make_unique<LargeControlNet>(c, kind == 1.0   ? Kind::Canny
                                              : kind == 2.0 ? Kind::Depth
                                                            : Kind::Blur);
}

}  // namespace distorch::models::sd3
