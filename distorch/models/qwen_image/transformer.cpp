#include "distorch/models/qwen_image/transformer.h"

#include <fmt/format.h>

#include "distorch/models/control/control.h"
#include "distorch/models/model_patch.h"
#include "distorch/models/qwen_image/block_patch.h"
#include "distorch/models/qwen_image/embedding.h"
#include "distorch/models/qwen_image/tokens.h"
#include "distorch/nn/modulation.h"

namespace distorch::models::qwen_image {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

InputSpecs specs_of(const Config& c) {
  using Kind = InputSpec::Kind;
  using Source = InputSpec::Source;
  auto batch = Extent::batch(), channels = Extent::number(c.latent_channels), any = Extent::any();
  InputSpecs specs = {
      {"x",
       "latent",
       Kind::NoiseShape,
       {batch, channels, Extent::cells()},
       at::kFloat,
       false,
       Source::Sampler},
      {"timestep", "timestep", Kind::Regular, {batch}, at::kFloat, false, Source::Sampler},
      {"context",
       "text conditioning",
       Kind::Regular,
       {batch, Extent::tokens(), Extent::number(c.text_width)}},
      {"attention_mask",
       "mask of text tokens",
       Kind::Regular,
       {batch, Extent::tokens()},
       at::kFloat,
       true},
      {kReferenceMethod, "place of reference pictures", Kind::Constant, {}, at::kFloat, true},
      modulations_spec(),
  };
  for (int i = 0; i < kMostReferences; ++i)
    specs.push_back({reference_name(i),
                     "reference picture",
                     Kind::Regular,
                     {batch, channels, any, any, any},
                     at::kFloat,
                     true});
  for (int i = 0; i < c.layers; ++i)
    specs.push_back({residual_name(i),
                     "residual of a ControlNet",
                     Kind::Regular,
                     {batch, any, Extent::number(c.width)},
                     at::kFloat,
                     true,
                     Source::Control});
  for (std::size_t i = 0; i < c.patch_channels.size(); ++i) {
    auto index = static_cast<int>(i);
    specs.push_back({patch_input(index),
                     "picture of a model patch",
                     Kind::Regular,
                     {batch, Extent::number(c.patch_channels[i]), Extent::cells()},
                     at::kFloat,
                     true,
                     Source::Control});
    specs.push_back({patch_strength_input(index),
                     "strength of a model patch",
                     Kind::Constant,
                     {},
                     at::kFloat,
                     true,
                     Source::Control});
  }
  return specs;
}

/// Rows of `width` numbers that modulate a kind of tokens in a block.
constexpr std::int64_t kRows = 6;

ReferenceMethod method_of(const Inputs& inputs, const Config& c) {
  return static_cast<ReferenceMethod>(
      static_cast<int>(inputs.number(kReferenceMethod, static_cast<double>(c.references))));
}

/// What comes behind the blocks. One weights::Block.
struct Exit {
  Exit(const Scope& s, const Config& c)
      : block(s),
        modulation(s / "norm_out" / "linear", c.width, 2 * c.width),
        out(s / "proj_out", c.width, c.latent_channels * kPatch * kPatch) {}

  Tensor forward(const Tensor& tokens, const Tensor& time) const {
    return block.run1({tokens, time}, [this](const Tensors& in) {
      auto parts = modulation(in[1]).unsqueeze(1).chunk(2, 2);
      return out(nn::modulated_norm(in[0], parts[1], parts[0])).to(at::kFloat);
    });
  }

  weights::Block block;
  nn::Linear modulation, out;
};

std::vector<Tensor> references_of(const Inputs& inputs) {
  std::vector<Tensor> references;
  for (int i = 0; i < kMostReferences; ++i)
    if (const auto& reference = inputs[reference_name(i)]; reference.defined())
      references.push_back(reference);
  return references;
}

/// 1 for text tokens that count -> added to the scores of all tokens.
Tensor score_mask(const Tensor& mask, std::int64_t image_tokens, at::ScalarType dtype) {
  if (!mask.defined()) return {};
  auto text = ((mask.to(at::kFloat) - 1.0) * 1e30).clamp_min(-60000.0).to(dtype);
  return at::constant_pad_nd(text, {0, image_tokens}).unsqueeze(1).unsqueeze(1);
}

bool is_skipped(const Patches& patches, std::size_t block) {
  return patches.skipped.count(fmt::format("double_blocks.{}", block)) != 0;
}

/// A patch with its picture of this call.
struct PatchUse {
  const BlockPatch& patch;
  Tensor embedded;
  double strength;
};

/// A block that is left out leaves the tokens as they are, but for a residual behind it.
Streams passed_on(const Streams& x, const Tensor& residual) {
  if (!residual.defined()) return x;
  auto image = x.image.clone();
  image.narrow(1, 0, residual.size(1)).add_(residual);
  return {image, x.text};
}

}  // namespace

std::string reference_name(int index) { return fmt::format("reference_latents.{}", index); }
std::string residual_name(int block) {
  return control::name_of({control::Place::At::Block, block});
}

struct Transformer::Parts {
  Parts(const Scope& root, const Config& c) : in(root.block("in"), c) {
    for (std::size_t i = 0; i < c.patch_channels.size(); ++i)
      patches.emplace_back(root / "model_patch" / static_cast<std::int64_t>(i), c,
                           c.patch_channels[i]);
    for (std::int64_t i = 0; i < c.layers; ++i) {
      blocks.emplace_back(root / "transformer_blocks" / i, c);
      for (auto& patch : patches) patch.add_layer();
    }
    out.emplace(root.block("out"), c);
  }

  std::vector<PatchUse> patches_of(const Inputs& inputs) const {
    std::vector<PatchUse> uses;
    for (std::size_t i = 0; i < patches.size(); ++i) {
      auto index = static_cast<int>(i);
      if (const auto& picture = inputs[patch_input(index)]; picture.defined())
        uses.push_back({patches[i], patches[i].embed(picture),
                        inputs.number(patch_strength_input(index), 1.0)});
    }
    return uses;
  }

  Embedding in;
  std::vector<JointBlock> blocks;
  std::optional<Exit> out;
  std::vector<BlockPatch> patches;
};

Transformer::Transformer(const Config& config)
    : config_(config),
      inputs_(specs_of(config_)),
      parts_(std::make_unique<Parts>(Scope(manifest_), config_)) {}

Transformer::~Transformer() = default;

Tensor Transformer::apply(const Inputs& inputs, const Patches& patches) const {
  check_inputs(inputs_, inputs);
  const auto& x = inputs["x"];
  const auto method = method_of(inputs, config_);
  auto timesteps = inputs["timestep"];
  auto tokens = to_tokens(x);
  auto own = tokens.size(1);
  BlockContext context;
  std::vector<std::vector<std::int64_t>> shapes;
  if (auto references = references_of(inputs); !references.empty()) {
    std::vector<Tensor> all = {tokens};
    for (const auto& reference : references) {
      all.push_back(to_tokens(reference));
      shapes.push_back(reference.sizes().vec());
    }
    tokens = at::cat(all, 1);
    if (method == ReferenceMethod::IndexTimestepZero) {
      timesteps = at::cat({timesteps, at::zeros_like(timesteps)});
      context.noiseless = own;
    }
  }
  auto [streams, time] = parts_->in.forward(tokens, inputs["context"], timesteps);
  auto axes = config_.axes();
  context.image_positions =
      nn::rope_table(image_positions(x.sizes(), shapes, method, x.device()), axes, 10000.0);
  context.text_positions =
      nn::rope_table(text_positions(x.sizes(), streams.text.size(1), x.device()), axes, 10000.0);
  context.mask = score_mask(inputs["attention_mask"], tokens.size(1), streams.text.scalar_type());
  auto uses = parts_->patches_of(inputs);
  const auto width = config_.width;
  const auto batch = x.size(0);
  const GivenModulations known(inputs[kModulations], modulation_numbers(inputs),
                               streams.text.scalar_type());
  /// Of block i the image's, and where `kind` is 1 the text's.
  const auto rows = [&](std::size_t i, std::int64_t kind) {
    const auto before = (2 * static_cast<std::int64_t>(i) + kind) * kRows * width;
    return known.of(before, batch, kRows * width);
  };
  for (std::size_t i = 0; i < parts_->blocks.size(); ++i) {
    const auto& residual = inputs[residual_name(static_cast<int>(i))];
    // Patches see the tokens without a ControlNet's residual.
    bool apart = !uses.empty() || is_skipped(patches, i);
    if (!is_skipped(patches, i)) {
      const auto& block = parts_->blocks[i];
      context.modulations =
          known ? Modulations{rows(i, 0), rows(i, 1)} : block.modulations(time, batch);
      streams = block.forward(streams, context, apart ? Tensor() : residual);
    }
    for (const auto& use : uses)
      streams.image = use.patch.forward(i, streams.image, use.embedded, use.strength);
    if (apart) streams = passed_on(streams, residual);
  }
  auto picture = streams.image.narrow(1, 0, own);
  return to_latent(parts_->out->forward(picture, time.narrow(0, 0, x.size(0))), x.sizes());
}

std::int64_t Transformer::modulation_numbers(const Inputs& call) const {
  // References without noise have modulations of their own.
  if (call.has(reference_name(0)) && method_of(call, config_) == ReferenceMethod::IndexTimestepZero)
    return 0;
  return call["x"].size(0) * config_.layers * 2 * kRows * config_.width;
}

Tensor Transformer::modulations(const Inputs&, const std::vector<Tensor>& timesteps) const {
  const auto levels = parts_->in.times(timesteps);
  MadeModulations made;
  for (const auto& block : parts_->blocks) {
    made.add(block.image_modulations(levels));
    made.add(block.text_modulations(levels));
  }
  return made.all();
}

}  // namespace distorch::models::qwen_image
