#include "distorch/models/sd/image_prompt.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "distorch/nn/attention.h"

namespace distorch::models::sd {

using at::Tensor;

namespace {

/// Where adapters of SDXL count its layers from, by stage.
struct Numbered {
  const char* stage;
  std::int64_t first, depth;
};
constexpr std::array<Numbered, 11> kNumbered = {{{"input_blocks.4", 0, 2},
                                                 {"input_blocks.5", 2, 2},
                                                 {"input_blocks.7", 4, 10},
                                                 {"input_blocks.8", 14, 10},
                                                 {"output_blocks.0", 24, 10},
                                                 {"output_blocks.1", 34, 10},
                                                 {"output_blocks.2", 44, 10},
                                                 {"output_blocks.3", 54, 2},
                                                 {"output_blocks.4", 56, 2},
                                                 {"output_blocks.5", 58, 2},
                                                 {"middle_block", 60, 10}}};

void add_layers(std::vector<PromptedLayer>& to, const std::string& stage, std::int64_t depth,
                std::int64_t channels) {
  for (const auto& numbered : kNumbered) {
    if (stage != numbered.stage) continue;
    for (std::int64_t d = 0; d < std::min(depth, numbered.depth); ++d) {
      const auto first = to.empty() ? 0 : to.back().first + 2 * to.back().channels;
      to.push_back({stage, d, channels, 2 * (numbered.first + d) + 1, first});
    }
  }
}

/// A mask of the picture [B, H, W] by the `length` places of a layer, [B, length, 1]. Where their
/// number is no rectangle of the latent's proportions, it is filled up or cut on both ends.
Tensor by_places(const BesideText& picture, std::int64_t length) {
  const auto latent_height = static_cast<double>(picture.height),
             latent_width = static_cast<double>(picture.width);
  auto height = static_cast<std::int64_t>(
      latent_height / std::sqrt(latent_height * latent_width / static_cast<double>(length)));
  height = std::max<std::int64_t>(height, 1);
  height += length % height != 0;
  const auto width = std::max<std::int64_t>(length / height, 1);
  auto mask = at::upsample_bilinear2d(picture.mask.unsqueeze(1), {height, width}, false).flatten(1);
  const auto missing = length - height * width;
  if (missing > 0) mask = at::constant_pad_nd(mask, {missing / 2, missing - missing / 2});
  if (missing < 0) mask = mask.narrow(1, -missing / 2, length);
  return mask.unsqueeze(-1);
}

/// The mean over places and tokens of the whole width's attention, [B, 1, 1] float32.
Tensor identity_share(const Tensor& queries, const Tensor& keys) {
  auto scores = at::matmul(queries.to(at::kFloat), keys.to(at::kFloat).transpose(-2, -1));
  auto mean = at::softmax(scores, -1).mean(1, /*keepdim=*/true);
  return mean.narrow(2, 0, std::min(kIdentityTokens, mean.size(2))).sum(-1, /*keepdim=*/true);
}

}  // namespace

std::vector<PromptedLayer> prompted_layers(const UNetConfig& c) {
  std::vector<PromptedLayer> layers;
  std::int64_t input = 1, output = 0;
  std::size_t transformer = 0;
  for (std::size_t level = 0; level < c.channels.size(); ++level, ++input)
    for (std::int64_t j = 0; j < c.res_blocks[level]; ++j)
      add_layers(layers, fmt::format("input_blocks.{}", input++), c.depth_in[transformer++],
                 c.channels[level]);
  add_layers(layers, "middle_block", c.depth_middle, c.channels.back());
  for (auto level = static_cast<std::int64_t>(c.channels.size()) - 1; level >= 0; --level)
    for (std::int64_t j = 0; j <= c.res_blocks[level]; ++j, ++output)
      add_layers(layers, fmt::format("output_blocks.{}", output), c.depth_out[output],
                 c.channels[level]);
  return layers;
}

std::int64_t prompt_width(const UNetConfig& config) {
  const auto layers = prompted_layers(config);
  return layers.empty() ? 0 : layers.back().first + 2 * layers.back().channels;
}

std::string prompt_input(std::int64_t index) { return fmt::format("image_prompt.{}", index); }
std::string prompt_mask_input(std::int64_t index) {
  return fmt::format("image_prompt_mask.{}", index);
}
std::string prompt_join_input(std::int64_t index) {
  return fmt::format("image_prompt_join.{}", index);
}

InputSpecs prompt_inputs(const UNetConfig& config) {
  InputSpecs specs;
  for (std::int64_t i = 0; i < config.image_prompts; ++i) {
    specs.push_back(
        {.name = prompt_input(i),
         .meaning = "picture beside the text",
         .shape = {Extent::batch(), Extent::any(), Extent::number(prompt_width(config))},
         .optional = true});
    specs.push_back({.name = prompt_mask_input(i),
                     .meaning = "mask of a picture beside the text",
                     .shape = {Extent::batch(), Extent::any(), Extent::any()},
                     .optional = true});
    specs.push_back({.name = prompt_join_input(i),
                     .meaning = "how a picture joins the text",
                     .kind = InputSpec::Kind::Constant,
                     .shape = {},
                     .optional = true});
  }
  return specs;
}

Tensor with_picture(const Tensor& t, const Tensor& queries, std::int64_t heads,
                    const BesideText& picture) {
  const auto channels = queries.size(2);
  auto both = picture.heads.to(queries.scalar_type());
  auto keys = both.narrow(2, 0, channels), values = both.narrow(2, channels, channels);
  auto said = nn::attention(queries, keys, values, {.heads = heads});
  if (picture.join != PromptJoin::Plain) {
    auto text = t.to(at::kFloat);
    said = said.to(at::kFloat);
    auto along = (text * said).sum(-2, /*keepdim=*/true) / (text * text).sum(-2, /*keepdim=*/true);
    if (picture.join == PromptJoin::Faithful) along = along * (1 - identity_share(queries, keys));
    said = said - along * text;
  }
  if (picture.mask.defined()) said = said * by_places(picture, queries.size(1));
  return t + said.to(t.scalar_type());
}

Prompts::Prompts(const UNetConfig& config, const Inputs& inputs) {
  if (config.image_prompts > 0) layers_ = prompted_layers(config);
  for (std::int64_t i = 0; i < config.image_prompts; ++i)
    if (const auto& heads = inputs[prompt_input(i)]; heads.defined())
      pictures_.push_back(
          {heads, inputs[prompt_mask_input(i)],
           static_cast<PromptJoin>(static_cast<int>(inputs.number(prompt_join_input(i), 0))),
           inputs["x"].size(2), inputs["x"].size(3)});
}

std::vector<BesideText> Prompts::at(const std::string& stage, std::int64_t depth) const {
  std::vector<BesideText> result;
  if (pictures_.empty()) return result;
  for (const auto& layer : layers_) {
    if (layer.stage != stage || layer.depth != depth) continue;
    result = pictures_;
    for (auto& picture : result)
      picture.heads = picture.heads.narrow(2, layer.first, 2 * layer.channels);
  }
  return result;
}

}  // namespace distorch::models::sd
