#include "distorch/models/qwen_image/fun_control_net.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/control/block_residuals.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/qwen_image/control_blocks.h"
#include "distorch/models/qwen_image/embedding.h"
#include "distorch/models/qwen_image/tokens.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::qwen_image {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

/// From one block of the model that gets a residual to the next.
constexpr int kDistance = 12;

/// The picture's tokens added to those of the latent. One weights::Block.
struct Hint {
  Hint(const Scope& s, const Config& c, std::int64_t hint_width)
      : block(s),
        in(s / "control_img_in", hint_width, c.width),
        before(s / "control_blocks" / 0 / "before_proj", c.width, c.width) {}
  Tensor forward(const Tensor& image, const Tensor& hint) const {
    return block.run1({image, hint}, [this](const Tensors& t) {
      return before(in(t[1].to(t[0].scalar_type()))) + t[0];
    });
  }
  weights::Block block;
  nn::Linear in, before;
};

/// A latent's tokens with zeros behind them, so wide; odd sides are filled up with zeros.
Tensor hint_tokens(const Tensor& latent, std::int64_t width) {
  auto odd = [&](int dim) { return latent.size(dim) % kPatch; };
  auto tokens = to_tokens(at::constant_pad_nd(latent, {0, odd(4), 0, odd(3)}));
  return at::constant_pad_nd(tokens, {0, width - tokens.size(2)});
}

}  // namespace

struct FunControlNet::Parts {
  Parts(const Scope& root, const Config& c, std::int64_t hint_width)
      : in(root.block("in"), c), hint(root.block("hint"), c, hint_width) {
    for (std::int64_t i = 0; i < c.layers; ++i) {
      auto scope = root / "control_blocks" / i;
      blocks.add(scope, scope / "after_proj", c);
    }
  }
  Embedding in;
  Hint hint;
  ControlBlocks blocks;
};

FunControlNet::FunControlNet(const Config& config, std::int64_t hint_width)
    : config_(config),
      hint_width_(hint_width),
      inputs_(control_inputs(config_, config_.latent_channels)),
      parts_(std::make_unique<Parts>(Scope(manifest_), config_, hint_width)) {
  for (int i = 0; i < config_.layers; ++i)
    places_.push_back({control::Place::At::Block, i * kDistance});
}

FunControlNet::~FunControlNet() = default;

control::HintFormat FunControlNet::hint() const {
  return {.channels = config_.latent_channels, .latent = true};
}

control::Preparation FunControlNet::preparation() const { return {.soft_strength = true}; }

Inputs FunControlNet::encode(const Tensor& hint, std::optional<int>) const {
  if (hint.dim() != 5 || hint.size(1) != config_.latent_channels)
    throw Error(ErrorKind::Shape, "ControlNet",
                fmt::format("takes latents of {} channels with frames, got {}: it wants the VAE of "
                            "Qwen-Image",
                            config_.latent_channels, c10::str(hint.sizes())));
  Inputs inputs;
  inputs.set("hint", wan21_latent().into_network(hint));
  return inputs;
}

Tensor FunControlNet::apply(const Inputs& inputs) const {
  check_control_inputs(inputs_, inputs);
  const auto& x = inputs["x"];
  auto [streams, time] = parts_->in.forward(to_tokens(x), inputs["context"], inputs["timestep"]);
  streams.image = parts_->hint.forward(streams.image, hint_tokens(inputs["hint"], hint_width_));
  return parts_->blocks.run(streams, time, x, config_);
}

Inputs FunControlNet::residuals(const Tensor& packed, at::IntArrayRef) const {
  return control::spread_over_blocks(packed, places_, kDistance);
}

bool is_fun_control_net(const Checkpoint& file) {
  return file.has("control_img_in.weight") && file.has("control_blocks.0.before_proj.weight") &&
         file.has("control_blocks.0.after_proj.weight") &&
         file.has("control_blocks.0.attn.add_q_proj.weight");
}

control::Merged fun_control_over(const Checkpoint& file, const Checkpoint& model) {
  auto width = size_of(file, "control_img_in.weight", 0);
  if (!model.has("img_in.weight") || !model.has("txt_norm.weight") ||
      !model.has("transformer_blocks.0.img_mod.1.weight") ||
      size_of(model, "img_in.weight", 0) != width)
    throw Error(ErrorKind::Usage, file.path(),
                fmt::format("is a ControlNet for Qwen-Image of width {}, which {} is not", width,
                            model.path()));
  control::Merged merged;
  merged.part = file;
  for (const auto& [name, stored] : model.tensors()) {
    bool wanted = false;
    for (const char* layer : {"img_in.", "txt_norm.", "txt_in.", "time_text_embed."})
      wanted = wanted || name.starts_with(layer);
    if (!wanted) continue;
    merged.part.add(name, stored);
    merged.from_unet.push_back(name);
  }
  return merged;
}

std::unique_ptr<control::ControlNetwork> make_fun_control_net(const Checkpoint& part) {
  Config c;
  c.width = size_of(part, "control_img_in.weight", 0);
  c.layers = part.count("control_blocks.");
  c.latent_channels = size_of(part, "img_in.weight", 1) / (kPatch * kPatch);
  c.text_width = size_of(part, "txt_norm.weight", 0);
  c.picture_kind = part.has("time_text_embed.addition_t_embedding.weight");
  auto head = size_of(part, "control_blocks.0.attn.norm_q.weight", 0);
  auto hint_width = size_of(part, "control_img_in.weight", 1);
  if (c.width % head != 0 || hint_width < c.latent_channels * kPatch * kPatch)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("holds a ControlNet of width {} with heads of {} numbers and {} for "
                            "the picture, which do not go together",
                            c.width, head, hint_width));
  c.heads = c.width / head;
  return std::make_unique<FunControlNet>(c, hint_width);
}

}  // namespace distorch::models::qwen_image
