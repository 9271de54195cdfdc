#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/model_patch.h"
#include "distorch/models/z_image/next_dit.h"
#include "tests/models/with_lora.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;

namespace {

Inputs inputs_of(const Dump& dump, const std::string& name) {
  Inputs inputs;
  for (std::string one : {"x", "timestep", "context"}) inputs.set(one, dump[name + "/" + one]);
  return inputs;
}

void check_parity(const weights::Checkpoint& file, const std::string& variant) {
  Dump dump(variant);
  auto family = detect_family(file);
  CHECK(family->name() == (variant == "z_image" ? "Z-Image" : "Lumina 2"));
  auto network = family->make_network();
  check_complete(network->manifest(), family->diffusion(), "diffusion model");
  CHECK(network->manifest().weights().size() == family->diffusion().tensors().size());
  TwiceSource source(network->manifest(), family->diffusion(), at::kFloat);
  for (std::string one : {"main", "odd", "full"}) {
    CAPTURE(one);
    CHECK(difference(network->apply(inputs_of(dump, one)), dump[one + "/out"]) < 1e-4);
  }
  Patches patches;
  patches.skipped = {"layers.1"};
  CHECK(difference(network->apply(inputs_of(dump, "main"), patches), dump["main/out"]) > 1e-3);
}

/// Original tensors as the diffusers library has them.
std::map<std::string, Tensor> as_diffusers(const std::map<std::string, Tensor>& tensors,
                                           const z_image::NextDitConfig& config) {
  std::map<std::string, std::string> theirs;
  for (const auto& [their, our] : z_image::diffusers_layers(config)) theirs[our] = their;
  std::map<std::string, Tensor> result;
  for (const auto& [name, value] : tensors) {
    auto dot = name.rfind('.');
    auto layer = name.substr(0, dot), end = dot == std::string::npos ? "" : name.substr(dot);
    if (layer.ends_with(".qkv")) {
      auto parts = value.split_with_sizes({config.heads * config.head_width,
                                           config.kv_heads * config.head_width,
                                           config.kv_heads * config.head_width});
      for (int i = 0; i < 3; ++i)
        result[theirs.at(layer.substr(0, layer.size() - 3) + "qkv"[i]) + end] =
            parts[i].contiguous();
    } else {
      result[(theirs.count(layer) ? theirs.at(layer) : layer) + end] = value;
    }
  }
  return result;
}

}  // namespace

TEST_CASE("Z-Image and Lumina 2: tiny models as ComfyUI computes them, behind any prefix") {
  for (const std::string variant : {"z_image", "lumina2"}) {
    CAPTURE(variant);
    std::map<std::string, Tensor> whole;
    for (const auto& [name, tensor] : tiny_tensors({variant}))
      whole["model.diffusion_model." + name] = tensor;
    TemporaryCheckpoint file(tiny_tensors({variant})), checkpoint(whole);
    check_parity(*file, variant);
    check_parity(*checkpoint, variant);
  }
}

TEST_CASE("Z-Image: LoRAs in both namings change files of both namings alike") {
  auto inputs = inputs_of(Dump("z_image"), "main");
  auto tensors = tiny_tensors({"z_image"});
  TemporaryCheckpoint original(tensors);
  TemporaryCheckpoint theirs(
      as_diffusers(tensors, z_image::next_dit_config(z_image::with_original_names(*original))));
  auto plain = with_lora(*original, {}, inputs);
  for (const char* name : {"z_image_kohya", "z_image_diffusers"}) {
    CAPTURE(name);
    auto lora = open_checkpoint(parity_dir() / "loras" / (std::string(name) + ".safetensors"));
    auto wanted = with_lora(*original, lora, inputs);
    CHECK(difference(wanted, plain) > 1e-3);
    CHECK(difference(with_lora(*theirs, lora, inputs), wanted) < 1e-5);
  }
}

TEST_CASE("Z-Image: files of the diffusers library, queries, keys and values apart") {
  auto tensors = tiny_tensors({"z_image"});
  TemporaryCheckpoint original(tensors);
  auto config = z_image::next_dit_config(z_image::with_original_names(*original));
  auto theirs = as_diffusers(tensors, config);
  theirs["x_pad_token"] = theirs["x_pad_token"].flatten();
  TemporaryCheckpoint file(theirs);
  check_parity(*file, "z_image");
}

TEST_CASE("Z-Image and Lumina 2: sizes of the real models, told by shapes") {
  z_image::NextDitConfig lumina;
  lumina.z_image = lumina.pads = false;
  lumina.width = lumina.text_width = 2304;
  lumina.heads = 24;
  lumina.kv_heads = 8;
  lumina.head_width = 96;
  lumina.mlp_width = 9216;
  lumina.layers = 26;
  lumina.embedded_width = 1024;
  const std::vector<std::pair<z_image::NextDitConfig, std::int64_t>> cases = {
      {z_image::NextDitConfig(), 6'154'908'736}, {lumina, 2'609'769'152}};
  for (const auto& [config, count] : cases) {
    CAPTURE(config.z_image);
    z_image::NextDit dit(config);
    CHECK(parameters(dit.manifest()) == count);
    auto family = detect_family(shapes_only(dit.manifest(), "model.diffusion_model."));
    CHECK(family->name() == (config.z_image ? "Z-Image" : "Lumina 2"));
    CHECK(family->make_network()->manifest().blocks() == dit.manifest().blocks());
    CHECK(family->latent().channels == 16);
    CHECK(family->sampling()->timestep(0.5f) == doctest::Approx(0.5));
    CHECK(family->sampling()->sigma(0.5f) == doctest::Approx(config.z_image ? 0.75 : 6.0 / 7));
  }
}

TEST_CASE("Z-Image: what does not fit is told in one sentence") {
  auto tensors = tiny_tensors({"z_image"});
  TemporaryCheckpoint file(tensors);
  auto family = detect_family(*file);
  auto network = family->make_network();
  test::PlainSource source(network->manifest(), family->diffusion(), at::kFloat);
  auto inputs = inputs_of(Dump("z_image"), "main");
  inputs.set("context", at::zeros({2, 7, 24}));
  CHECK_THROWS_WITH_AS(network->apply(inputs),
                       doctest::Contains("takes a text conditioning ('context') of [batch, tokens, "
                                         "48], got [2, 7, 24]"),
                       Error);
  tensors["dec_net.cond_embed.weight"] = at::zeros({4, 4});
  TemporaryCheckpoint pixels(tensors);
  CHECK_THROWS_WITH_AS(detect_family(*pixels), doctest::Contains("computes in pixels"), Error);
}

namespace {

std::map<std::string, Tensor> below(const std::map<std::string, Tensor>& tensors,
                                    const std::string& prefix) {
  std::map<std::string, Tensor> result;
  for (const auto& [name, tensor] : tensors)
    if (name.starts_with(prefix)) result[name.substr(prefix.size())] = tensor;
  return result;
}

/// A ControlNet with queries, keys and values apart, as it is published.
std::map<std::string, Tensor> as_published(const std::map<std::string, Tensor>& tensors) {
  std::map<std::string, Tensor> result;
  for (const auto& [name, value] : tensors) {
    auto renamed = name;
    auto replace = [&](const std::string& from, const std::string& to) {
      if (auto at = renamed.find(from); at != std::string::npos)
        renamed.replace(at, from.size(), to);
    };
    replace("attention.out.", "attention.to_out.0.");
    replace("attention.q_norm", "attention.norm_q");
    replace("attention.k_norm", "attention.norm_k");
    if (auto at = renamed.find("attention.qkv."); at != std::string::npos) {
      auto parts = value.chunk(3);
      for (int i = 0; i < 3; ++i)
        result[std::string(renamed).replace(at + 10, 3, std::string("to_") + "qkv"[i])] =
            parts[i].contiguous();
    } else {
      result[renamed] = value;
    }
  }
  return result;
}

}  // namespace

TEST_CASE("Z-Image: every published form of its union ControlNet, as ComfyUI computes it") {
  Dump dump("z_image_control");
  auto tensors = tiny_tensors({"z_image_control"});
  TemporaryCheckpoint base(below(tensors, "base."));
  auto family = detect_family(*base);
  Inputs inputs{{"x", dump["x"]}, {"timestep", dump["timestep"]}, {"context", dump["context"]}};
  for (const std::string form : {"plain", "lite", "refined", "misplaced"}) {
    auto own = below(tensors, form + ".");
    if (form == "misplaced") own["control_noise_refiner.0.after_proj.weight"].zero_();
    for (bool published : {false, true}) {
      CAPTURE(form);
      CAPTURE(published);
      TemporaryCheckpoint file(published ? as_published(own) : own);
      auto picture = dump[form + "/picture"];
      CHECK(patch_picture(*file).channels == picture.size(1));
      CHECK(patch_picture(*file).inpaints == (picture.size(1) == 33));
      auto both = with_patch(*family, *file);
      auto network = both->make_network();
      check_complete(network->manifest(), both->diffusion(), "diffusion model");
      TwiceSource source(network->manifest(), both->diffusion(), at::kFloat);
      CHECK(difference(network->apply(inputs), dump["out"]) < 1e-4);
      auto steered = inputs;
      steered.set(patch_input(0), picture);
      steered.set_number(patch_strength_input(0), 0.7);
      CHECK(difference(network->apply(steered), dump[form + "/out"]) < 1e-4);
    }
  }
  TemporaryCheckpoint lumina(tiny_tensors({"lumina2"})), plain(below(tensors, "plain."));
  CHECK_THROWS_WITH_AS(with_patch(*detect_family(*lumina), *plain),
                       doctest::Contains("is a ControlNet for Z-Image"), Error);
}
