#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/control/control.h"
#include "distorch/models/sd3/mmdit.h"
#include "tests/models/tiny_sd3.h"
#include "tests/models/with_lora.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;

namespace {

const std::vector<std::string> kVariants = {"sd3_medium", "sd3_large", "sd3_dual"};

Inputs inputs_of(const Dump& dump, const std::string& name) {
  Inputs inputs;
  for (std::string one : {"x", "timestep", "context", "vector"})
    inputs.set(one, dump[name + "/" + one]);
  return inputs;
}

void check_parity(const weights::Checkpoint& file, const std::string& variant) {
  Dump dump(variant);
  auto family = detect_family(file);
  CHECK(family->name() == "SD3");
  auto network = family->make_network();
  check_complete(network->manifest(), family->diffusion(), "diffusion model");
  CHECK(network->manifest().weights().size() == family->diffusion().tensors().size());
  TwiceSource source(network->manifest(), family->diffusion(), at::kFloat);
  for (std::string one : {"main", "odd", "full"}) {
    CAPTURE(one);
    auto out = network->apply(inputs_of(dump, one));
    CHECK(difference(out, dump[one + "/out"]) < 1e-4);
  }
  auto controlled = inputs_of(dump, "main");
  for (std::string i : {"0", "1"}) controlled.set("control_block." + i, dump["main/control." + i]);
  CHECK(difference(network->apply(controlled), dump["main/controlled"]) < 1e-4);
  Patches patches;
  patches.skipped = {"double_blocks.1"};
  CHECK(difference(network->apply(inputs_of(dump, "main"), patches), dump["main/skipped"]) < 1e-4);
}

sd3::MmditConfig real_config(std::int64_t width, std::int64_t positions, bool norm,
                             std::int64_t dual) {
  sd3::MmditConfig c;
  c.width = width;
  c.blocks = width / sd3::kHeadWidth;
  c.mlp_width = 4 * width;
  c.positions = positions;
  c.qk_norm = norm;
  for (std::int64_t i = 0; i < dual; ++i) c.dual.insert(i);
  return c;
}

}  // namespace

TEST_CASE("SD3: tiny models as ComfyUI and diffusers compute them, behind any prefix") {
  for (const auto& variant : kVariants) {
    CAPTURE(variant);
    std::map<std::string, Tensor> whole;
    for (const auto& [name, tensor] : tiny_tensors({variant}))
      whole["model.diffusion_model." + name] = tensor;
    TemporaryCheckpoint file(tiny_tensors({variant})), checkpoint(whole);
    check_parity(*file, variant);
    check_parity(*checkpoint, variant);
  }
}

TEST_CASE("SD3: files of the diffusers library, queries, keys and values apart") {
  for (const auto& variant : kVariants) {
    CAPTURE(variant);
    TemporaryCheckpoint file(as_diffusers(tiny_tensors({variant}), 3));
    check_parity(*file, variant);
  }
}

TEST_CASE("SD3: LoRAs in both namings change files of both namings alike") {
  auto inputs = inputs_of(Dump("sd3_large"), "main");
  TemporaryCheckpoint original(tiny_tensors({"sd3_large"}));
  TemporaryCheckpoint theirs(as_diffusers(tiny_tensors({"sd3_large"}), 3));
  auto plain = with_lora(*original, {}, inputs);
  auto compare = [&](const weights::Checkpoint& lora) {
    auto wanted = with_lora(*original, lora, inputs);
    CHECK(difference(wanted, plain) > 1e-3);
    CHECK(difference(with_lora(*theirs, lora, inputs), wanted) < 1e-5);
    return wanted;
  };
  for (const char* name : {"sd3_kohya", "sd3_diffusers"}) {
    CAPTURE(name);
    compare(open_checkpoint(parity_dir() / "loras" / (std::string(name) + ".safetensors")));
  }
  // Scale and shift of the last norm stand the other way round in the library's files.
  auto up = tiny_weight("up", {256, 4}), down = tiny_weight("down", {4, 128});
  TemporaryCheckpoint ours({{"lora_unet_final_layer_adaLN_modulation_1.lora_up.weight", up},
                            {"lora_unet_final_layer_adaLN_modulation_1.lora_down.weight", down}});
  TemporaryCheckpoint turned({{"transformer.norm_out.linear.lora_B.weight", swapped(up)},
                              {"transformer.norm_out.linear.lora_A.weight", down}});
  CHECK(difference(compare(*turned), compare(*ours)) < 1e-5);
}

TEST_CASE("SD3: InstantX's ControlNet as ComfyUI computes it, by a latent and a mask") {
  Dump dump("sd3_control");
  TemporaryCheckpoint file(as_diffusers(tiny_tensors({"sd3_control"}), 2));
  auto part = control::control_part(*file);
  auto net = control::make_control(part);
  CHECK(net->hint().latent);
  CHECK(net->hint().masked);
  check_complete(net->manifest(), part, "ControlNet");
  CHECK(net->manifest().weights().size() == part.tensors().size());
  TwiceSource source(net->manifest(), part, at::kFloat);
  auto inputs = net->encode(at::cat({dump["latent"], dump["mask"]}, 1), {});
  for (std::string one : {"x", "timestep", "context"}) inputs.set(one, dump[one]);
  auto residuals = net->residuals(net->apply(inputs), inputs["x"].sizes());
  CHECK(net->places().size() == 3);
  for (std::string i : {"0", "1", "2"})
    CHECK(difference(residuals["control_block." + i], dump["out." + i]) < 1e-4);
  CHECK(find_family(*file) == nullptr);
  CHECK_THROWS_WITH_AS(net->encode(at::zeros({1, 4, 7, 6}), {}),
                       doctest::Contains("takes latents of 17 channels"), Error);
}

TEST_CASE("SD3: sizes of the real models, told by shapes") {
  struct Case {
    std::string title;
    sd3::MmditConfig config;
    std::int64_t parameters;
  };
  const std::vector<Case> cases = {
      {"SD3 medium", real_config(1536, 192, false, 0), 2'028'328'000},
      {"SD3.5 medium", real_config(1536, 384, true, 13), 2'243'171'520},
      {"SD3.5 large", real_config(2432, 192, true, 0), 8'056'627'520},
  };
  for (const auto& one : cases) {
    CAPTURE(one.title);
    sd3::Mmdit mmdit(one.config);
    // The table of positions is a buffer, which counts of parameters leave out.
    auto positions = one.config.positions * one.config.positions * one.config.width;
    CHECK(parameters(mmdit.manifest()) - positions == one.parameters);
    auto family = detect_family(shapes_only(mmdit.manifest(), "model.diffusion_model."));
    CHECK(family->name() == "SD3");
    CHECK(family->make_network()->manifest().blocks() == mmdit.manifest().blocks());
    CHECK(family->latent().channels == 16);
    CHECK(family->sampling()->is_flow());
    CHECK(family->sampling()->sigma(500.0f) == doctest::Approx(0.75));
  }
}

TEST_CASE("SD3: what does not fit is told in one sentence") {
  auto tensors = tiny_tensors({"sd3_medium"});
  TemporaryCheckpoint file(tensors);
  auto network = detect_family(*file)->make_network();
  test::PlainSource source(network->manifest(), detect_family(*file)->diffusion(), at::kFloat);
  Dump dump("sd3_medium");
  auto message = [&](const Inputs& inputs) -> std::string {
    try {
      network->apply(inputs);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  auto inputs = inputs_of(dump, "main");
  inputs.set("context", at::zeros({2, 7, 24}));
  CHECK(message(inputs).find("takes a text conditioning ('context') of [batch, tokens, 48], got "
                             "[2, 7, 24]") != std::string::npos);
  inputs = inputs_of(dump, "main");
  inputs.set("vector", Tensor());
  CHECK(message(inputs).find("takes a pooled conditioning") != std::string::npos);
  inputs = inputs_of(dump, "main");
  inputs.set("x", at::zeros({2, 16, 18, 6}));
  CHECK(message(inputs).find("takes latents of 16x16 cells at most, got 6x18") !=
        std::string::npos);
  auto broken = tensors;
  broken.erase("joint_blocks.1.x_block.mlp.fc1.weight");
  broken["final_layer.linear.weight"] = at::zeros({32, 128});
  TemporaryCheckpoint bad(broken);
  CHECK_THROWS_WITH_AS(detect_family(*bad), doctest::Contains("as many channels in as out"), Error);
}
