#include "distorch/models/flux/network.h"

#include <fmt/format.h>

#include <optional>

#include "distorch/base/error.h"
#include "distorch/models/control/control.h"
#include "distorch/models/flux/block.h"
#include "distorch/models/flux/block_parts.h"
#include "distorch/models/flux/entry.h"
#include "distorch/models/flux/image_prompt.h"
#include "distorch/models/reference_cache.h"

namespace distorch::models::flux {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

std::string residual_name(std::int64_t block) {
  return control::name_of({control::Place::At::Block, static_cast<int>(block)});
}

InputSpecs flux_inputs(const Config& c) {
  using Source = InputSpec::Source;
  const auto batch = Extent::batch(), cells = Extent::cells(), any = Extent::any();
  auto number = [](std::int64_t value) { return Extent::number(value); };
  const bool wide = c.in_channels > c.out_channels;
  InputSpecs specs = {
      {.name = "x",
       .meaning = "latent",
       .kind = InputSpec::Kind::NoiseShape,
       .shape = {batch, number(c.out_channels), cells},
       .source = Source::Sampler},
      {.name = "timestep", .meaning = "noise level", .shape = {batch}, .source = Source::Sampler},
      {.name = "context",
       .meaning = "text conditioning",
       .shape = {batch, Extent::tokens(), number(c.context_width)}},
      {.name = "concat",
       .meaning = "picture beside the latent",
       .kind = InputSpec::Kind::NoiseShape,
       .shape = {batch, wide ? number(c.in_channels - c.out_channels) : any, cells},
       .optional = !wide}};
  if (c.vector_width > 0)
    specs.push_back({.name = "vector",
                     .meaning = "pooled conditioning",
                     .shape = {batch, number(c.vector_width)},
                     .optional = true});
  if (c.guidance)
    specs.push_back(
        {.name = "guidance", .meaning = "guidance", .shape = {batch}, .optional = true});
  if (!c.shared_modulation) specs.push_back(modulations_spec());
  specs.push_back({.name = "attention_mask",
                   .meaning = "attention mask",
                   .shape = {batch, any, any},
                   .optional = true});
  for (std::int64_t i = 0; i < c.depth; ++i)
    specs.push_back({.name = residual_name(i),
                     .meaning = "residual of a ControlNet",
                     .shape = {batch, any, number(c.hidden)},
                     .optional = true,
                     .source = Source::Control});
  for (std::int64_t i = 0; i < kMostImagePrompts; ++i)
    specs.push_back({.name = image_prompt_name(i),
                     .meaning = "picture beside the text",
                     .shape = {batch, number(2 * c.depth), any, any, number(c.hidden)},
                     .optional = true});
  if (wide) return specs;
  if (c.keeps_references) {
    specs.push_back({.name = kKeepReferences,
                     .meaning = "whether references are kept",
                     .kind = InputSpec::Kind::Constant,
                     .optional = true,
                     .source = Source::Control});
    specs.push_back({.name = kReferenceCache,
                     .meaning = "kept references",
                     .shape = {any},
                     .dtype = at::kByte,
                     .optional = true,
                     .source = Source::Control});
  }
  specs.push_back({.name = "reference_method",
                   .meaning = "reference method",
                   .kind = InputSpec::Kind::Constant,
                   .optional = true});
  for (std::int64_t i = 0; i < kMostReferences; ++i)
    specs.push_back({.name = reference_name(i),
                     .meaning = "reference picture",
                     .shape = {batch, number(c.out_channels), any, any},
                     .optional = true});
  return specs;
}

/// Zeros for tokens that a mask does not know; [B, 1, tokens, tokens + known] in `dtype`.
Tensor score_mask(const Tensor& mask, std::int64_t tokens, std::int64_t known,
                  at::ScalarType dtype) {
  auto missing = tokens - mask.size(1);
  if (missing < 0 || mask.size(1) != mask.size(2))
    throw Error(ErrorKind::Shape, "FLUX",
                fmt::format("has {} tokens, the attention mask is for {} x {}", tokens,
                            mask.size(1), mask.size(2)));
  return at::constant_pad_nd(mask.to(dtype), {0, missing + known, 0, missing}).unsqueeze(1);
}

/// What is kept of the references, or was kept: of all blocks in order.
class Cache {
 public:
  /// `bytes`: of an earlier step; undefined: none. `img` [B, Li, D] after the first layers.
  Cache(const Config& c, const Tensor& bytes, bool keeps, std::int64_t references,
        const Tensor& img, at::IntArrayRef x)
      : heads_(c.heads()) {
    const auto pieces = 2 * (c.depth + c.single_depth);
    if (bytes.defined())
      known_ = bytes.view(img.scalar_type()).view({pieces, img.size(0), -1, c.hidden});
    if (keeps)
      kept_.emplace(pieces, at::IntArrayRef{img.size(0), references, c.hidden}, img.options(), x);
  }
  bool keeps() const { return kept_.has_value(); }
  /// What a block takes beside its tokens: keys and values, or nothing twice.
  Tensors of(std::int64_t block) const {
    if (!known_.defined()) return {Tensor(), Tensor()};
    return {known_.select(0, 2 * block), known_.select(0, 2 * block + 1)};
  }
  /// The same as it sees them.
  KeptHeads heads(const Tensor& k, const Tensor& v) const {
    if (!k.defined()) return {};
    return {k.unflatten(-1, {heads_, -1}), v.unflatten(-1, {heads_, -1})};
  }
  void keep(std::int64_t block, const Tensor& k, const Tensor& v) {
    kept_->keep(2 * block, k.flatten(2));
    kept_->keep(2 * block + 1, v.flatten(2));
  }
  Tensor result(const Tensor& prediction) { return kept_ ? kept_->packed(prediction) : prediction; }

 private:
  std::int64_t heads_;
  Tensor known_;
  std::optional<KeptReferences> kept_;
};

/// What ControlNets and pictures beside the text say in a call.
class Beside {
 public:
  Beside(const Config& c, const Inputs& inputs) : heads_(c.heads()) {
    for (std::int64_t i = 0; inputs[residual_name(i)].defined(); ++i)
      residuals_.push_back(inputs[residual_name(i)]);
    for (std::int64_t i = 0; i < kMostImagePrompts; ++i)
      if (const auto& prompt = inputs[image_prompt_name(i)]; prompt.defined())
        prompts_.push_back(prompt);
  }
  /// Behind a double block.
  void add_residual(const Tensor& img, std::int64_t block) const {
    if (residuals_.empty()) return;
    const auto& residual = residuals_[static_cast<std::size_t>(block) % residuals_.size()];
    img.narrow(1, 0, residual.size(1)).add_(residual);
  }
  /// What a double block takes, at the end of its other inputs: keys and values by turns.
  void add_prompts(Tensors& taken, std::int64_t block) const {
    for (const auto& prompt : prompts_)
      taken.insert(taken.end(), {prompt.select(1, 2 * block), prompt.select(1, 2 * block + 1)});
  }
  /// The same as it sees them.
  std::vector<KeptHeads> prompts(const Tensors& taken, std::size_t first) const {
    std::vector<KeptHeads> result;
    auto heads = [&](const Tensor& x) {
      return x.to(taken[0].scalar_type()).unflatten(-1, {heads_, -1});
    };
    for (auto i = first; i + 1 < taken.size(); i += 2)
      result.push_back({heads(taken[i]), heads(taken[i + 1])});
    return result;
  }

 private:
  std::int64_t heads_;
  std::vector<Tensor> residuals_, prompts_;
};

template <class Layers>
struct Part {
  Part(const Scope& scope, const Config& config)
      : name(scope.prefix()), block(scope), layers(scope, config) {}
  std::string name;
  weights::Block block;
  Layers layers;
};

}  // namespace

std::string reference_name(std::int64_t index) {
  return fmt::format("reference_latents.{}", index);
}

struct Flux::Parts {
  Parts(weights::Manifest& manifest, const Config& c) : entry(Scope(manifest).block("img_in"), c) {
    for (std::int64_t i = 0; i < c.depth; ++i)
      doubles.emplace_back(Scope(manifest) / "double_blocks" / i, c);
    for (std::int64_t i = 0; i < c.single_depth; ++i)
      singles.emplace_back(Scope(manifest) / "single_blocks" / i, c);
    last.emplace((Scope(manifest) / "final_layer").block(), c);
  }

  Part<Entry> entry;
  std::vector<DoublePart> doubles;
  std::vector<SinglePart> singles;
  std::optional<Part<LastLayer>> last;
};

Flux::Flux(const Config& config)
    : config_(config),
      inputs_(flux_inputs(config_)),
      parts_(std::make_unique<Parts>(manifest_, config_)) {}

Flux::~Flux() = default;

Tensor Flux::apply(const Inputs& inputs, const Patches& patches) const {
  check_inputs(inputs_, inputs, "FLUX");
  const auto& x = inputs["x"];
  Tensors first{x,
                inputs["concat"],
                inputs["timestep"],
                inputs["context"],
                inputs["vector"],
                inputs["guidance"]};
  const auto given = first.size();
  for (std::int64_t i = 0; inputs[reference_name(i)].defined(); ++i)
    first.push_back(inputs[reference_name(i)]);
  if (first.size() > given && inputs["concat"].defined())
    throw Error(ErrorKind::Shape, "FLUX",
                "takes reference pictures or a picture beside the latent, got both");
  auto method = static_cast<ReferenceMethod>(
      inputs.number("reference_method", static_cast<double>(config_.reference)));

  const auto& parts = *parts_;
  const bool masked = inputs["attention_mask"].defined();
  const auto& cached = inputs[kReferenceCache];
  const auto behind = first.size();
  if (masked) first.push_back(inputs["attention_mask"]);
  auto made = parts.entry.block.run(first, [&](const Tensors& t) -> Tensors {
    EntryInputs its{t[0],
                    t[1],
                    t[2],
                    t[3],
                    t[4],
                    t[5],
                    {t.begin() + static_cast<std::ptrdiff_t>(given),
                     t.begin() + static_cast<std::ptrdiff_t>(behind)},
                    method};
    auto r = parts.entry.layers.forward(its);
    Tensors all{r.img, r.txt, r.vec, r.img_mod, r.txt_mod, r.single_mod, r.rope.cos, r.rope.sin};
    if (masked) {
      auto known = cached.defined()
                       ? cached.numel() / (2 * (config_.depth + config_.single_depth) *
                                           r.img.size(0) * config_.hidden * r.img.element_size())
                       : 0;
      all.push_back(
          score_mask(t[behind], r.txt.size(1) + r.img.size(1), known, r.img.scalar_type()));
    }
    return all;
  });
  auto img = std::move(made[0]), txt = std::move(made[1]);
  const auto vec = made[2], img_mod = made[3], txt_mod = made[4], single_mod = made[5];
  const auto cos = made[6], sin = made[7], mask = masked ? made[8] : Tensor();
  made.clear();
  first.clear();
  auto cells = [&](int dim) { return (x.size(dim) + config_.patch - 1) / config_.patch; };
  const auto text = txt.size(1), picture = cells(2) * cells(3);
  const auto references = img.size(1) - picture;
  Cache cache(config_, cached, references > 0 && inputs.number(kKeepReferences, 0) != 0, references,
              img, x.sizes());

  const Beside beside(config_, inputs);
  const BlockModulations known(config_, inputs[kModulations], x.size(0), img.scalar_type());
  std::int64_t index = -1;
  for (const auto& part : parts.doubles) {
    ++index;
    if (patches.skipped.count(part.name)) {
      beside.add_residual(img, index);
      continue;
    }
    Tensors taken{img,
                  txt,
                  known ? known.image(index) : part.image_modulations({img_mod})[0],
                  known ? known.text(index) : part.text_modulations({txt_mod})[0],
                  cos,
                  sin,
                  mask};
    for (auto& cached : cache.of(index)) taken.push_back(cached);
    const auto own = taken.size();
    beside.add_prompts(taken, index);
    auto out = part.parts.attention.block.run(taken, [&](const Tensors& t) -> Tensors {
      KeptHeads kept;
      Common common{t[2], t[3], {t[4], t[5]}, references, t[6], cache.heads(t[7], t[8])};
      common.prompts = beside.prompts(t, own);
      auto y = part.layers.attend({t[0], t[1]}, common, cache.keeps() ? &kept : nullptr);
      auto all = DoublePart::tensors_of(y);
      if (cache.keeps()) all.insert(all.end(), {kept.k, kept.v});
      return all;
    });
    taken.clear();
    img.reset();
    txt.reset();
    if (cache.keeps()) {
      cache.keep(index, *(out.end() - 2), out.back());
      out.resize(out.size() - 2);
    }
    out = part.finish(out, references);
    img = std::move(out[0]);
    txt = std::move(out[1]);
    beside.add_residual(img, index);
  }
  // The first single block takes both streams and puts them together.
  Tensor all;
  for (const auto& part : parts.singles) {
    ++index;
    if (patches.skipped.count(part.name)) continue;
    auto taken = all.defined() ? Tensors{all, {}} : Tensors{txt, img};
    if (!all.defined()) {
      img.reset();
      txt.reset();
    }
    all.reset();
    const auto own = index - config_.depth;
    taken.insert(taken.end(),
                 {known ? known.single(own) : part.modulations({single_mod})[0], cos, sin, mask});
    for (auto& cached : cache.of(index)) taken.push_back(cached);
    auto out = part.main.block.run(taken, [&](const Tensors& t) -> Tensors {
      KeptHeads kept;
      auto tokens = t[1].defined() ? at::cat({t[0], t[1]}, 1) : t[0];
      auto y = part.layers.forward(
          tokens, {t[2], {}, {t[3], t[4]}, references, t[5], cache.heads(t[6], t[7])},
          cache.keeps() ? &kept : nullptr);
      if (!cache.keeps()) return {y};
      return {y, kept.k, kept.v};
    });
    all = std::move(out[0]);
    if (cache.keeps()) cache.keep(index, out[1], out[2]);
  }
  auto made_of = all.defined() ? all.narrow(1, text, picture) : img.narrow(1, 0, picture);
  return cache.result(parts.last->block.run1({made_of, vec.narrow(1, 0, 1)}, [&](const Tensors& t) {
    auto tokens = parts.last->layers.forward(t[0], t[1]).to(at::kFloat);
    return assemble(tokens, config_.patch, x.sizes());
  }));
}

std::int64_t Flux::modulation_numbers(const Inputs& call) const {
  const auto method = call.number("reference_method", static_cast<double>(config_.reference));
  const bool second_level =
      static_cast<ReferenceMethod>(method) == ReferenceMethod::IndexTimestepZero &&
      (call.has(reference_name(0)) || call.has(kReferenceCache));
  if (config_.shared_modulation || second_level) return 0;
  return BlockModulations::numbers_of(config_, call["x"].size(0));
}

Tensor Flux::modulations(const Inputs& call, const std::vector<Tensor>& timesteps) const {
  const auto& parts = *parts_;
  const auto levels = run_each(parts.entry.block, timesteps, {call["vector"], call["guidance"]},
                               [&](const Tensor& timestep, const Tensors& beside) {
                                 return parts.entry.layers.level(timestep, beside[0], beside[1]);
                               });
  return BlockModulations::made(parts.doubles, parts.singles, levels);
}

}  // namespace distorch::models::flux
