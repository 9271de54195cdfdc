#include "distorch/models/sd/unet.h"

#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/sd/lora_names.h"
#include "distorch/models/sd/unet_family.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using at::Tensor;
using models::Inputs;
using models::sd::UNet;
using models::sd::UNetConfig;

namespace {

Inputs input_of(const Dump& dump, const std::string& name) {
  return {{"x", dump[name + "/x"]},
          {"timestep", dump[name + "/timesteps"]},
          {"context", dump[name + "/context"]}};
}

void check_parity(const std::string& name) {
  Dump dump(name);
  TemporaryCheckpoint file(tiny_tensors({name}));
  const auto part = models::detect_family(*file)->diffusion();
  UNet unet(models::sd::unet_config(part));
  check_complete(unet.manifest(), part, "diffusion model");
  CHECK(unet.manifest().weights().size() == part.tensors().size());
  TwiceSource source(unet.manifest(), part, at::kFloat);

  int stages = 0;
  auto out =
      unet.apply(input_of(dump, "main"), {}, [&](const std::string& stage, const Tensor& output) {
        CAPTURE(stage);
        CHECK(difference(output, dump["main/" + stage]) < 1e-4);
        ++stages;
      });
  CHECK(stages == 1 + 12 + 1 + 12);
  CHECK(difference(out, dump["main/out"]) < 1e-4);
  CHECK(source.runs.size() == unet.manifest().blocks().size());
  for (std::string other : {"odd", "long"}) {
    CAPTURE(other);
    CHECK(difference(unet.apply(input_of(dump, other)), dump[other + "/out"]) < 1e-4);
  }
}

UNetConfig sd15() {
  UNetConfig c;
  c.channels = {320, 640, 1280, 1280};
  c.res_blocks = {2, 2, 2, 2};
  c.depth_in = {1, 1, 1, 1, 1, 1, 0, 0};
  c.depth_out = {0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  return c;
}

UNetConfig sd21() {
  auto c = sd15();
  c.context_width = 1024;
  c.linear_projection = true;
  return c;
}

}  // namespace

TEST_CASE("UNet: every stage of a tiny SD 1.x model as diffusers computes it") {
  check_parity("unet_sd1");
}
TEST_CASE("UNet: every stage of a tiny SD 2.x model as diffusers computes it") {
  check_parity("unet_sd2");
}

TEST_CASE("UNet: bfloat16 stays near float32") {
  Dump dump("unet_sd1");
  TemporaryCheckpoint file(tiny_tensors({"unet_sd1"}));
  const auto part = models::detect_family(*file)->diffusion();
  UNet unet(models::sd::unet_config(part));
  test::PlainSource source(unet.manifest(), part, at::kBFloat16);
  auto out = unet.apply(input_of(dump, "main"));
  CHECK(out.dtype() == at::kFloat);
  CHECK(difference(out, dump["main/out"]) < 0.05);
}

TEST_CASE("UNet: sizes of the real models, told by shapes alone") {
  UNet one(sd15()), two(sd21());
  CHECK(parameters(one.manifest()) == 859'520'964);
  CHECK(parameters(two.manifest()) == 865'910'724);
  CHECK(one.manifest().blocks().size() == 47);
  CHECK(one.manifest().blocks().front() == "time_embed");
  CHECK(one.manifest().blocks().back() == "out");
  CHECK(sd15().heads(640) == 8);
  CHECK(sd21().heads(640) == 10);

  for (auto config : {sd15(), sd21()}) {
    UNet unet(config);
    auto read = models::sd::unet_config(shapes_only(unet.manifest()));
    CHECK(read.channels == config.channels);
    CHECK(read.res_blocks == config.res_blocks);
    CHECK(read.depth_in == config.depth_in);
    CHECK(read.depth_out == config.depth_out);
    CHECK(read.depth_middle == 1);
    CHECK(read.context_width == config.context_width);
    CHECK(read.linear_projection == config.linear_projection);
    CHECK(read.time_width == 1280);
  }
}

TEST_CASE("UNet: uneven and narrow shapes are read as they are") {
  auto c = sd15();
  c.in_channels = 9;
  c.model_channels = 64;
  c.time_width = 256;
  c.context_width = 96;
  c.channels = {64, 96, 160};
  c.res_blocks = {1, 2, 1};
  c.depth_in = {0, 1, 2, 0};
  c.depth_out = {0, 3, 1, 1, 1, 0, 0};
  UNet unet(c);
  auto read = models::sd::unet_config(shapes_only(unet.manifest()));
  CHECK(read.in_channels == 9);
  CHECK(read.channels == c.channels);
  CHECK(read.res_blocks == c.res_blocks);
  CHECK(read.depth_in == c.depth_in);
  CHECK(read.depth_out == c.depth_out);

  // Depth above one: a block for each, and it runs, with further channels for inpainting beside the
  // latent.
  TwiceSource source(unet.manifest(),
                     [](const weights::Declared& w) { return tiny_weight(w.name, w.shape); });
  auto out = unet.apply({{"x", at::randn({1, 4, 5, 3})},
                         {"timestep", at::full({1}, 7.0)},
                         {"context", at::randn({1, 9, 96})},
                         {"concat", at::randn({1, 5, 5, 3})}});
  CHECK(out.sizes() == at::IntArrayRef({1, 4, 5, 3}));
  CHECK(out.isfinite().all().item<bool>());
}

TEST_CASE("UNet: inputs of another model are refused in words") {
  UNet unet(sd15());
  Inputs good{{"x", at::zeros({1, 4, 8, 8})},
              {"timestep", at::zeros({1})},
              {"context", at::zeros({1, 77, 768})}};
  auto wide = good, deep = good, flat = good, odd = good;
  wide.set("context", at::zeros({1, 77, 1024}));
  deep.set("x", at::zeros({1, 16, 8, 8}));
  flat.set("context", {});
  odd.set("control_middle", at::zeros({1, 640, 1, 1}));
  auto refuses = [&](const Inputs& inputs, const char* words) {
    CHECK_THROWS_WITH_AS(unet.apply(inputs), doctest::Contains(words), Error);
  };
  refuses(wide, "text conditioning ('context') of [batch, tokens, 768], got [1, 77, 1024]");
  refuses(deep, "latent ('x') of [batch, 4, cells], got [1, 16, 8, 8]");
  refuses(flat, "text conditioning ('context') of [batch, tokens, 768], got none");
  refuses(odd, "ControlNet output ('control_middle') of [batch, 1280, cells/8]");
}

TEST_CASE("UNet: checkpoints that make no sense are refused by name") {
  UNet unet(sd15());
  auto shapes = shapes_only(unet.manifest());
  weights::Checkpoint without;
  for (const auto& [name, stored] : shapes.tensors())
    if (name != "time_embed.0.weight") without.add(name, stored);
  CHECK_THROWS_WITH_AS(models::sd::unet_config(without), doctest::Contains("time_embed.0.weight"),
                       Error);
  auto odd = shapes;
  odd.add("input_blocks.4.0.out_layers.3.weight", {.shape = {650, 650, 3, 3}});
  odd.add("input_blocks.5.0.out_layers.3.weight", {.shape = {650, 650, 3, 3}});
  CHECK_THROWS_WITH_AS(models::sd::unet_config(odd), doctest::Contains("650"), Error);
  odd.add("input_blocks.0.0.weight", {.shape = {}});
  CHECK_THROWS_AS(models::sd::unet_config(odd), Error);
}

TEST_CASE("diffusers names: known pairs, and a whole file comes back under original names") {
  auto names = models::sd::diffusers_names(sd15());
  CHECK(names.at("conv_in.weight") == "input_blocks.0.0.weight");
  CHECK(names.at("down_blocks.1.resnets.0.conv_shortcut.weight") ==
        "input_blocks.4.0.skip_connection.weight");
  CHECK(names.at("down_blocks.0.downsamplers.0.conv.bias") == "input_blocks.3.0.op.bias");
  CHECK(names.at("down_blocks.2.attentions.1.transformer_blocks.0.ff.net.0.proj.weight") ==
        "input_blocks.8.1.transformer_blocks.0.ff.net.0.proj.weight");
  CHECK(names.at("mid_block.resnets.1.time_emb_proj.weight") ==
        "middle_block.2.emb_layers.1.weight");
  CHECK(names.at("up_blocks.0.upsamplers.0.conv.weight") == "output_blocks.2.1.conv.weight");
  CHECK(names.at("up_blocks.1.upsamplers.0.conv.weight") == "output_blocks.5.2.conv.weight");
  CHECK(names.at("up_blocks.3.attentions.2.proj_out.weight") ==
        "output_blocks.11.1.proj_out.weight");
  CHECK(names.at("conv_norm_out.weight") == "out.0.weight");

  UNet unet(sd15());
  std::map<std::string, std::string> theirs;
  for (const auto& [their, our] : names)
    if (their.rfind("add_", 0) != 0 && their.rfind("class_", 0) != 0) theirs[our] = their;
  weights::Checkpoint diffusers;
  for (const auto& weight : unet.manifest().weights())
    diffusers.add(theirs.at(weight.name), {.shape = weight.shape});
  auto back = models::detect_family(diffusers)->diffusion();
  for (const auto& weight : unet.manifest().weights())
    CHECK(back.shape(weight.name) == weight.shape);
  CHECK(back.tensors().size() == unet.manifest().weights().size());
}

TEST_CASE("LoRA names of a UNet") {
  UNet unet(sd15());
  auto names = models::sd::unet_lora_names(sd15(), unet.manifest());
  std::string weight = "input_blocks.1.1.transformer_blocks.0.attn1.to_out.0.weight";
  for (std::string spelled :
       {"lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_out_0",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0",
        "lycoris_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0",
        "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_out.0",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out"}) {
    CAPTURE(spelled);
    REQUIRE(names.count(spelled) == 1);
    CHECK(names.at(spelled) == weight);
  }
  CHECK(names.at("lora_unet_mid_block_attentions_0_proj_in") == "middle_block.1.proj_in.weight");
  CHECK(names.at("lora_unet_up_blocks_1_upsamplers_0_conv") == "output_blocks.5.2.conv.weight");
}

TEST_CASE("UNet: patches on every layer equal merged weights") {
  Dump dump("unet_sd1");
  TemporaryCheckpoint file(tiny_tensors({"unet_sd1"}));
  const auto part = models::detect_family(*file)->diffusion();
  UNet unet(models::sd::unet_config(part));
  test::PlainSource source(unet.manifest(), part, at::kFloat);
  auto input = input_of(dump, "main");
  auto plain = unet.apply(input);
  std::vector<Tensor> merged;
  for (std::size_t i = 0; i < unet.manifest().weights().size(); ++i) {
    const auto& declared = unet.manifest().weights()[i];
    auto& slot = unet.manifest().slot(i);
    weights::Adapter adapter{.strength = 0.3};
    if (declared.shape.size() < 2) {
      auto delta = tiny_weight(declared.name + ".delta", declared.shape);
      adapter.kind = weights::AdapterKind::Difference;
      adapter.parts = {{weights::Part::Value, delta}};
      merged.push_back(slot.value + 0.3 * delta);
    } else {
      auto down = declared.shape, up = declared.shape;
      down[0] = up[1] = 4;
      for (std::size_t d = 2; d < up.size(); ++d) up[d] = 1;
      auto low = tiny_weight(declared.name + ".down", down);
      auto high = tiny_weight(declared.name + ".up", up);
      adapter.parts = {{weights::Part::Down, low}, {weights::Part::Up, high}};
      merged.push_back(slot.value + 0.3 * high.flatten(1).mm(low.flatten(1)).view(declared.shape));
    }
    slot.adapters = {adapter};
  }
  auto patched = unet.apply(input);
  for (std::size_t i = 0; i < merged.size(); ++i) {
    unet.manifest().slot(i).adapters.clear();
    unet.manifest().slot(i).value = merged[i];
  }
  auto wanted = unet.apply(input);
  CHECK(difference(patched, wanted) < 1e-5);
  CHECK(difference(plain, wanted) > 0.05);
}
