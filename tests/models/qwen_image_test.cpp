#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/control/borrowing.h"
#include "distorch/models/model_patch.h"
#include "distorch/models/qwen_image/control_net.h"
#include "distorch/models/qwen_image/family.h"
#include "distorch/models/qwen_image/transformer.h"
#include "tests/models/given_modulations.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using namespace distorch::models::qwen_image;
using at::Tensor;

namespace {

struct Loaded {
  Loaded() : file(tiny_tensors({"qwen_image"})), net(config_of(*file)) {
    check_complete(net.manifest(), *file, "diffusion model");
    source.emplace(net.manifest(), *file, at::kFloat);
  }
  TemporaryCheckpoint file;
  Transformer net;
  std::optional<TwiceSource> source;
};

Inputs small(const Dump& dump) {
  return {{"x", dump["small"]},
          {"timestep", at::tensor({0.7, 0.2}, at::kFloat)},
          {"context", dump["text"]}};
}

Inputs large(const Dump& dump) {
  return {{"x", dump["large"]},
          {"timestep", at::tensor({0.45}, at::kFloat)},
          {"context", dump["text"].narrow(0, 0, 1)}};
}

Inputs with_references(const Dump& dump) {
  auto inputs = large(dump);
  for (int i = 0; i < 3; ++i) inputs.set(reference_name(i), dump["reference." + std::to_string(i)]);
  return inputs;
}

sampling::EncodeContext context_of(const Tensor& noise) {
  sampling::EncodeContext context;
  context.noise = noise;
  return context;
}

}  // namespace

TEST_CASE("Qwen-Image: the transformer as ComfyUI and diffusers compute it") {
  Loaded l;
  Dump dump("qwen_image");
  CHECK(l.net.config().heads == 2);
  CHECK(l.net.config().layers == 2);
  CHECK((l.net.config().axes() == std::vector<std::int64_t>{4, 14, 14}));
  const auto plain = l.net.apply(small(dump));
  CHECK(difference(plain, dump["out/plain"]) < 1e-4);
  CHECK(l.source->runs.size() == 10);  // of each block two modulations, attention and MLPs
  CHECK(l.source->in_order());
  CHECK(check_given(l.net, *l.source, small(dump), plain));
  CHECK(difference(l.net.apply(large(dump)), dump["out/odd"]) < 1e-4);
  auto masked = small(dump);
  masked.set("attention_mask", dump["mask"]);
  CHECK(difference(l.net.apply(masked), dump["out/mask"]) < 1e-4);
  auto steered = small(dump);
  for (int i = 0; i < 2; ++i) steered.set(residual_name(i), dump["residual." + std::to_string(i)]);
  CHECK(difference(l.net.apply(steered), dump["out/control"]) < 1e-4);
  auto frames = large(dump);
  frames.set("x", dump["frames"]);
  CHECK(difference(l.net.apply(frames), dump["out/frames"]) < 1e-4);
}

TEST_CASE("Qwen-Image: reference pictures, every way to place them") {
  Loaded l;
  Dump dump("qwen_image");
  for (auto [method, name] : std::vector<std::pair<ReferenceMethod, std::string>>{
           {ReferenceMethod::Index, "index"},
           {ReferenceMethod::Offset, "offset"},
           {ReferenceMethod::NegativeIndex, "negative_index"},
           {ReferenceMethod::IndexTimestepZero, "index_timestep_zero"}}) {
    CAPTURE(name);
    auto inputs = with_references(dump);
    inputs.set_number(kReferenceMethod, static_cast<double>(method));
    const auto out = l.net.apply(inputs);
    CHECK(difference(out, dump["out/references_" + name]) < 1e-4);
    const bool own = method == ReferenceMethod::IndexTimestepZero;
    CHECK(check_given(l.net, *l.source, inputs, out) == !own);
  }
  CHECK(difference(l.net.apply(with_references(dump)), dump["out/references_index"]) < 1e-4);
}

TEST_CASE("Qwen-Image: skipped blocks, and a text of another encoder") {
  Loaded l;
  Dump dump("qwen_image");
  Patches patches;
  patches.skipped = {"double_blocks.1"};
  l.net.apply(small(dump), patches);
  CHECK(l.source->runs.size() == 6);
  auto inputs = small(dump);
  inputs.set("context", at::zeros({2, 7, 32}));
  CHECK_THROWS_WITH_AS(l.net.apply(inputs), doctest::Contains("belongs to another model"), Error);
}

TEST_CASE("Qwen-Image: found under every prefix, and which edition it is") {
  Config c;
  c.layers = 1;
  Transformer one(c);
  for (std::string prefix : {"", "model.diffusion_model.", "diffusion_model."}) {
    CAPTURE(prefix);
    auto family = detect_family(shapes_only(one.manifest(), prefix));
    CHECK(family->name() == "Qwen-Image");
    CHECK(family->latent().channels == 16);
    CHECK(family->latent().dimensions == 3);
    CHECK(family->latent().rgb_factors.size() == 16);
    CHECK(family->sampling()->is_flow());
  }
  auto shapes = shapes_only(one.manifest());
  CHECK((config_of(shapes).references == ReferenceMethod::Index));
  shapes.add("__index_timestep_zero__", {.shape = {0}});
  CHECK((config_of(shapes).references == ReferenceMethod::IndexTimestepZero));
  shapes.add("time_text_embed.addition_t_embedding.weight", {.shape = {2, 3072}});
  CHECK((config_of(shapes).references == ReferenceMethod::NegativeIndex));
  CHECK(config_of(shapes).picture_kind);
  Config real;
  CHECK(parameters(Transformer(real).manifest()) == 20'430'401'088);
}

TEST_CASE("Qwen-Image: a whole checkpoint has its encoder and its VAE") {
  std::map<std::string, Tensor> tensors;
  for (const auto& [dump, prefix] : std::vector<std::pair<std::string, std::string>>{
           {"qwen_image", "model.diffusion_model."}, {"causal_vae", "vae."}, {"text_qwen25", ""}})
    for (const auto& [name, tensor] : tiny_tensors({dump})) tensors[prefix + name] = tensor;
  TemporaryCheckpoint file(tensors);
  auto family = detect_family(*file);
  CHECK(family->name() == "Qwen-Image");
  CHECK(family->text(*file).encoders.size() == 1);
  CHECK(family->vae(*file).make()->shape().dimensions == 3);
  CHECK(family->text(family->diffusion()).empty());
}

TEST_CASE("Qwen-Image: names of LoRA files") {
  Loaded l;
  auto names = detect_family(*l.file)->lora_names(l.net.manifest());
  for (const char* name :
       {"transformer_blocks.0.attn.to_q", "transformer.transformer_blocks.0.attn.to_q",
        "diffusion_model.transformer_blocks.0.attn.to_q",
        "lora_unet_transformer_blocks_0_attn_to_q", "lycoris_transformer_blocks_0_attn_to_q"}) {
    CAPTURE(name);
    REQUIRE(names.count(name));
    CHECK(names.at(name).weight == "transformer_blocks.0.attn.to_q.weight");
  }
}

TEST_CASE("Qwen-Image: conditionings become inputs in the noise's batch") {
  Loaded l;
  auto family = detect_family(*l.file);
  sampling::ConditioningItem item;
  item.cross_attn = at::randn({1, 9, 48});
  item.reference_latents = {at::randn({1, 16, 1, 4, 6}), at::randn({1, 16, 8, 8})};
  auto context = context_of(at::zeros({2, 16, 1, 8, 8}));
  std::map<std::string, sampling::ModelInput> given;
  for (const auto& spec : l.net.inputs())
    if (spec.source == InputSpec::Source::Conditioning)
      given[spec.name] = family->encode(spec, item, context);
  CHECK(given["context"].value.sizes() == at::IntArrayRef({2, 9, 48}));
  CHECK(given[reference_name(0)].value.sizes() == at::IntArrayRef({2, 16, 1, 4, 6}));
  CHECK(given[reference_name(1)].value.sizes() == at::IntArrayRef({2, 16, 1, 8, 8}));
  CHECK(difference(given[reference_name(0)].value.narrow(0, 1, 1),
                   family->latent().into_network(item.reference_latents[0])) < 1e-6);
  CHECK_FALSE(given[reference_name(2)].defined());
  CHECK_FALSE(given[kReferenceMethod].defined());
  CHECK_FALSE(given["attention_mask"].defined());
  item.texts["reference_latents_method"] = "index_timestep_zero";
  auto find = [&](const std::string& name) {
    for (const auto& spec : l.net.inputs())
      if (spec.name == name) return spec;
    FAIL("no such input");
    return InputSpec();
  };
  CHECK(family->encode(find(kReferenceMethod), item, context).number == 3.0);
  item.reference_latents = {at::zeros({1, 4, 8, 8})};
  CHECK_THROWS_WITH_AS(family->encode(find(reference_name(0)), item, context),
                       doctest::Contains("VAE of this model"), Error);
}

TEST_CASE("Qwen-Image: ControlNets as ComfyUI's, of pictures and for inpainting") {
  for (std::string name : {"qwen_control", "qwen_control_inpaint"}) {
    CAPTURE(name);
    TemporaryCheckpoint file(tiny_tensors({name}));
    auto part = control::control_part(*file);
    REQUIRE_FALSE(part.empty());
    auto net = control::make_control(part);
    check_complete(net->manifest(), part, "ControlNet");
    TwiceSource source(net->manifest(), part, at::kFloat);
    Dump dump(name);
    bool masked = name == "qwen_control_inpaint";
    CHECK(net->hint().latent);
    CHECK(net->hint().masked == masked);
    auto hint = masked ? at::cat({dump["hint"], dump["keep"]}, 1) : dump["hint"];
    auto inputs = net->encode(hint, {});
    inputs.set("x", dump["x"]);
    inputs.set("timestep", at::tensor({0.7, 0.2}, at::kFloat));
    inputs.set("context", dump["text"]);
    auto residuals = net->residuals(net->apply(inputs), dump["x"].sizes());
    CHECK(residuals.tensors().size() == 60);
    CHECK(net->places().size() == 60);
    CHECK(difference(residuals[residual_name(0)], dump["out/0"]) < 1e-4);
    CHECK(difference(residuals[residual_name(29)], dump["out/0"]) < 1e-4);
    CHECK(difference(residuals[residual_name(30)], dump["out/30"]) < 1e-4);
    CHECK_THROWS_WITH_AS(net->encode(at::zeros({1, 4, 6, 10}), {}),
                         doctest::Contains("VAE of Qwen-Image"), Error);
    inputs.set("x", at::zeros({2, 16, 1, 8, 8}));
    CHECK_THROWS_WITH_AS(net->apply(inputs), doctest::Contains("one picture"), Error);
  }
}

TEST_CASE("Qwen-Image: Alibaba's ControlNet over the model whose embedding it shares") {
  auto tensors = tiny_tensors({"qwen_control_fun"});
  TemporaryCheckpoint file(tensors), model(tiny_tensors({"qwen_image"})),
      other(tiny_tensors({"sd3_medium"}));
  CHECK(control::is_borrowing(*file));
  auto merged = control::control_over(*file, *model);
  CHECK(merged.part.tensors().size() == tensors.size() + merged.from_unet.size());
  auto net = control::make_control(merged.part);
  check_complete(net->manifest(), merged.part, "ControlNet");
  CHECK(net->manifest().weights().size() == merged.part.tensors().size());
  TwiceSource source(net->manifest(), merged.part, at::kFloat);
  Dump dump("qwen_control_fun");
  CHECK(control::preparation_of(*net).soft_strength);
  auto inputs = net->encode(dump["hint"], {});
  inputs.set("x", dump["x"]);
  inputs.set("timestep", at::tensor({0.7, 0.2}, at::kFloat));
  inputs.set("context", dump["text"]);
  auto residuals = net->residuals(net->apply(inputs), dump["x"].sizes());
  CHECK(residuals.tensors().size() == 2);
  CHECK(difference(residuals[residual_name(0)], dump["out/0"]) < 1e-4);
  CHECK(difference(residuals[residual_name(12)], dump["out/12"]) < 1e-4);
  CHECK_THROWS_WITH_AS(control::control_over(*file, *other),
                       doctest::Contains("is a ControlNet for Qwen-Image of width 64, which"),
                       Error);
  CHECK_THROWS_WITH_AS(net->encode(at::zeros({1, 4, 7, 10}), {}),
                       doctest::Contains("VAE of Qwen-Image"), Error);
}

TEST_CASE("Qwen-Image: model patches behind every block, one beside another") {
  auto all = tiny_tensors({"qwen_patch"});
  auto below = [&](const std::string& prefix) {
    std::map<std::string, Tensor> tensors;
    for (const auto& [name, tensor] : all)
      if (name.starts_with(prefix)) tensors[name.substr(prefix.size())] = tensor;
    return tensors;
  };
  TemporaryCheckpoint main(tiny_tensors({"qwen_image"})), plain(below("plain.")),
      masked(below("masked."));
  CHECK(patch_picture(*plain).channels == 16);
  CHECK_FALSE(patch_picture(*plain).masked);
  CHECK(patch_picture(*masked).masked);
  auto family = with_patch(*with_patch(*detect_family(*main), *plain), *masked);
  auto net = family->make_network();
  check_complete(net->manifest(), family->diffusion(), "diffusion model");
  TwiceSource source(net->manifest(), family->diffusion(), at::kFloat);
  Dump dump("qwen_patch");
  auto format = family->latent();
  Inputs inputs = {{"x", dump["x"]},
                   {"timestep", at::tensor({0.7, 0.2}, at::kFloat)},
                   {"context", dump["text"]}};
  auto add_pictures = [&](Inputs& given) {
    given.set(patch_input(0), format.into_network(dump["plain"]));
    auto hint = dump["masked"];
    given.set(patch_input(1),
              at::cat({format.into_network(hint.narrow(1, 0, 16)), hint.narrow(1, 16, 1)}, 1));
    given.set_number(patch_strength_input(0), 0.8);
    given.set_number(patch_strength_input(1), -0.5);
  };
  add_pictures(inputs);
  CHECK(difference(net->apply(inputs), dump["out"]) < 1e-4);
  Inputs more = {{"x", dump["x"].narrow(0, 0, 1)},
                 {"timestep", at::tensor({0.7}, at::kFloat)},
                 {"context", dump["text"].narrow(0, 0, 1)},
                 {reference_name(0), dump["reference"]}};
  add_pictures(more);
  CHECK(difference(net->apply(more), dump["out/reference"]) < 1e-4);
  CHECK(detect_family(family->diffusion())
            ->lora_names(net->manifest())
            .count("transformer_blocks.0.attn.to_q"));
  CHECK_THROWS_WITH_AS(patch_picture(*main), doctest::Contains("no model patch"), Error);
  TemporaryCheckpoint other(tiny_tensors({"unet_sd1"}));
  CHECK_THROWS_WITH_AS(with_patch(*detect_family(*other), *plain), doctest::Contains("is a SD1.x"),
                       Error);
}
