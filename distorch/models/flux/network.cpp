#include "distorch/models/flux/network.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/flux/block.h"
#include "distorch/models/flux/entry.h"

namespace distorch::models::flux {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

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
  if (wide) return specs;
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
      doubles.emplace_back((Scope(manifest) / "double_blocks" / i).block(), c);
    for (std::int64_t i = 0; i < c.single_depth; ++i)
      singles.emplace_back((Scope(manifest) / "single_blocks" / i).block(), c);
    last.emplace((Scope(manifest) / "final_layer").block(), c);
  }

  Part<Entry> entry;
  std::vector<Part<DoubleBlock>> doubles;
  std::vector<Part<SingleBlock>> singles;
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
  auto made = parts.entry.block.run(first, [&](const Tensors& t) -> Tensors {
    EntryInputs its{t[0],
                    t[1],
                    t[2],
                    t[3],
                    t[4],
                    t[5],
                    {t.begin() + static_cast<std::ptrdiff_t>(given), t.end()},
                    method};
    auto r = parts.entry.layers.forward(its);
    return {r.img, r.txt, r.vec, r.img_mod, r.txt_mod, r.single_mod, r.rope.cos, r.rope.sin};
  });
  auto img = std::move(made[0]), txt = std::move(made[1]);
  const auto vec = made[2], img_mod = made[3], txt_mod = made[4], single_mod = made[5];
  const auto cos = made[6], sin = made[7];
  made.clear();
  first.clear();
  auto cells = [&](int dim) { return (x.size(dim) + config_.patch - 1) / config_.patch; };
  const auto text = txt.size(1), picture = cells(2) * cells(3);
  const auto references = img.size(1) - picture;

  for (const auto& part : parts.doubles) {
    if (patches.skipped.count(part.name)) continue;
    auto out =
        part.block.run({img, txt, img_mod, txt_mod, cos, sin}, [&](const Tensors& t) -> Tensors {
          auto y = part.layers.forward({t[0], t[1]}, {t[2], t[3], {t[4], t[5]}, references});
          return {y.img, y.txt};
        });
    img = std::move(out[0]);
    txt = std::move(out[1]);
  }
  // The first single block takes both streams and puts them together.
  Tensor all;
  for (const auto& part : parts.singles) {
    if (patches.skipped.count(part.name)) continue;
    auto taken = all.defined() ? Tensors{all, {}} : Tensors{txt, img};
    if (!all.defined()) {
      img.reset();
      txt.reset();
    }
    all.reset();
    taken.insert(taken.end(), {single_mod, cos, sin});
    all = part.block.run1(taken, [&](const Tensors& t) {
      auto tokens = t[1].defined() ? at::cat({t[0], t[1]}, 1) : t[0];
      return part.layers.forward(tokens, {t[2], {}, {t[3], t[4]}, references});
    });
  }
  auto made_of = all.defined() ? all.narrow(1, text, picture) : img.narrow(1, 0, picture);
  return parts.last->block.run1({made_of, vec.narrow(1, 0, 1)}, [&](const Tensors& t) {
    auto tokens = parts.last->layers.forward(t[0], t[1]).to(at::kFloat);
    return assemble(tokens, config_.patch, x.sizes());
  });
}

}  // namespace distorch::models::flux
