#include "distorch/models/qwen_image/block_patch.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/qwen_image/family.h"
#include "distorch/models/qwen_image/tokens.h"
#include "distorch/models/tensor_size.h"
#include "distorch/nn/activation.h"

namespace distorch::models::qwen_image {

using at::Tensor;
using weights::Checkpoint;
using weights::Tensors;

BlockPatch::Layer::Layer(const weights::Scope& s, std::int64_t width)
    : block(s),
      image_norm(s / "x_rms", width),
      picture_norm(s / "y_rms", width),
      in(s / "input_proj", width, width),
      out(s / "output_proj", width, width) {}

BlockPatch::BlockPatch(const weights::Scope& scope, const Config& c, std::int64_t latent_channels)
    : BlockPatch(scope, (scope / "img_in").block(), c, latent_channels) {}

BlockPatch::BlockPatch(const weights::Scope& scope, const weights::Scope& entry, const Config& c,
                       std::int64_t latent_channels)
    : scope_(scope),
      width_(c.width),
      block_(entry),
      in_(entry, latent_channels * kPatch * kPatch, c.width) {}

void BlockPatch::add_layer() {
  auto index = static_cast<std::int64_t>(layers_.size());
  layers_.emplace_back((scope_ / "controlnet_blocks" / index).block(), width_);
}

Tensor BlockPatch::embed(const Tensor& latent) const {
  return block_.run1({to_tokens(latent)},
                     [this](const Tensors& in) { return in_(in[0].to(in_.dtype())); });
}

Tensor BlockPatch::forward(std::size_t block, const Tensor& image, const Tensor& embedded,
                           double strength) const {
  const auto& layer = layers_.at(block);
  return layer.block.run1({image, embedded}, [&layer, strength](const Tensors& in) {
    auto count = in[1].size(1);
    auto h = layer.image_norm(in[0].narrow(1, 0, count)) + layer.picture_norm(in[1]);
    h = layer.out(nn::gelu(layer.in(h))).mul_(strength);
    if (count == in[0].size(1)) return h.add_(in[0]);
    auto changed = in[0].clone();
    changed.narrow(1, 0, count).add_(h);
    return changed;
  });
}

bool is_block_patch(const Checkpoint& file) {
  return file.has("controlnet_blocks.0.y_rms.weight") && file.has("img_in.weight");
}

std::int64_t patch_channels(const Checkpoint& patch) {
  return size_of(patch, "img_in.weight", 1) / (kPatch * kPatch);
}

std::string patch_prefix(int index) { return fmt::format("model_patch.{}.", index); }

std::shared_ptr<const Family> with_block_patch(const Family& family, const Checkpoint& patch) {
  const auto& base = family.diffusion();
  auto fails = [&](const std::string& why) {
    throw Error(ErrorKind::Usage, patch.path(),
                fmt::format("is a model patch for Qwen-Image, {} {}", base.path(), why));
  };
  if (!base.has("transformer_blocks.0.img_mod.1.weight")) fails("is a " + family.name());
  auto config = config_of(base);
  if (size_of(patch, "img_in.weight", 0) != config.width ||
      patch.count("controlnet_blocks.") < config.layers)
    fails(fmt::format("has {} blocks of width {} and the patch {} of width {}", config.layers,
                      config.width, patch.count("controlnet_blocks."),
                      size_of(patch, "img_in.weight", 0)));
  auto both = base;
  auto prefix = patch_prefix(static_cast<int>(config.patch_channels.size()));
  for (const auto& [name, stored] : patch.tensors()) both.add(prefix + name, stored);
  return detect(both, both);
}

}  // namespace distorch::models::qwen_image
