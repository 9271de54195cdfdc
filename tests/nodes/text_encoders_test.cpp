// Text encoders of flow models through the nodes: loaders, prompts, pictures, placement, bad files.
#include <doctest/doctest.h>

#include "tests/nodes/simulated.h"
#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

/// Writes the encoders of a dump's whole checkpoint as files of their own.
void write_encoders(const std::string& dump, const std::vector<std::string>& names) {
  auto folder = tiny_models() / "text_encoders";
  fs::create_directories(folder);
  auto all = tiny_tensors({dump});
  for (const auto& name : names) {
    auto prefix = "text_encoders." + name + ".transformer.";
    std::map<std::string, at::Tensor> tensors;
    for (const auto& [full, value] : all)
      if (full.starts_with(prefix)) tensors[full.substr(prefix.size())] = value;
    write_tensors(folder / (name + ".safetensors"), tensors);
  }
}

void write_all() {
  static const bool written = [] {
    write_encoders("text_sd3", {"clip_l", "clip_g", "t5xxl"});
    write_encoders("text_qwen25", {"qwen25_7b"});
    write_encoders("text_qwen3", {"qwen3_4b"});
    return true;
  }();
  (void)written;
}

std::string file(const std::string& name) { return name + ".safetensors"; }

Json cases_of(const std::string& dump) {
  return Json::parse(std::ifstream(parity_dir() / (dump + ".json"))).at("cases");
}

sampling::ConditioningItem item_of(TinyApp& tiny, const Json& prompt, const Json& link) {
  auto conditioning = tiny.value_of(prompt, link).as<sampling::Conditioning>();
  REQUIRE(conditioning.size() == 1);
  return conditioning[0];
}

Json flux_prompt(const std::string& loader, const std::string& text, Json inputs = Json::object()) {
  inputs.update({{"clip_name1", file("t5xxl")}, {"clip_name2", file("clip_l")}, {"type", "flux"}});
  return {{"1", node(loader, inputs)},
          {"2", node("CLIPTextEncode", {{"text", text}, {"clip", {"1", 0}}})}};
}

Json qwen_prompt(const std::string& loader, bool sees, Json inputs = Json::object()) {
  inputs.update({{"clip_name", file("qwen25_7b")}, {"type", "qwen_image"}});
  Json prompt = {
      {"1", node(loader, inputs)},
      {"2", node("TextEncodeQwenImageEditPlus", {{"clip", {"1", 0}}, {"prompt", "go"}})},
      {"3", node("EmptyImage", {{"width", 96}, {"height", 64}, {"batch_size", 1}, {"color", 77}})}};
  if (sees) prompt["2"]["inputs"]["image1"] = {"3", 0};
  return prompt;
}

at::Tensor thinned(const at::Tensor& states, std::int64_t step) {
  return states.slice(1, 0, states.size(1), step);
}

}  // namespace

TEST_CASE("text encoders: DualCLIPLoader's prompts for FLUX as ComfyUI encodes them") {
  write_all();
  Dump dump("text_flux");
  TinyApp tiny;
  int i = 0;
  for (const auto& c : cases_of("text_flux")) {
    auto prompt = flux_prompt("DualCLIPLoader", c["prompt"].get<std::string>());
    auto item = item_of(tiny, prompt, {"2", 0});
    CHECK(difference(thinned(item.cross_attn, 7), dump["cond." + std::to_string(i)]) < 1e-4);
    CHECK(difference(item.pooled_output, dump["pooled." + std::to_string(i)]) < 1e-4);
    ++i;
  }
}

TEST_CASE("text encoders: spread over simulated devices they give the same bits") {
  write_all();
  auto text = cases_of("text_flux")[0]["prompt"].get<std::string>();
  TinyApp here;
  auto whole = item_of(here, flux_prompt("DualCLIPLoader", text), {"2", 0});
  TinyApp split(simulated(), "split");
  auto prompt = flux_prompt("DualCLIPLoaderDisTorch2MultiGPU", text,
                            {{"device", "sim:0"},
                             {"donor_device", "sim:1"},
                             {"virtual_vram_gb", 0.02},
                             {"expert_mode_allocations", ""},
                             {"eject_models", false}});
  auto spread = item_of(split, prompt, {"2", 0});
  CHECK(at::equal(spread.cross_attn, whole.cross_attn));
  CHECK(at::equal(spread.pooled_output, whole.pooled_output));
  // One that sees, with and without a picture: then its tower does not run.
  for (bool sees : {true, false}) {
    auto seen = item_of(here, qwen_prompt("CLIPLoader", sees), {"2", 0});
    auto apart = item_of(split,
                         qwen_prompt("CLIPLoaderDisTorch2MultiGPU", sees,
                                     {{"device", "sim:0"},
                                      {"donor_device", "sim:1"},
                                      {"virtual_vram_gb", 0.02},
                                      {"expert_mode_allocations", ""},
                                      {"eject_models", false}}),
                         {"2", 0});
    CHECK(at::equal(apart.cross_attn, seen.cross_attn));
  }
}

TEST_CASE("text encoders: TripleCLIPLoader and CLIPTextEncodeSD3") {
  write_all();
  Dump dump("text_sd3");
  TinyApp tiny;
  auto text = cases_of("text_sd3")[0]["prompt"].get<std::string>();
  Json prompt = {{"1", node("TripleCLIPLoader", {{"clip_name1", file("t5xxl")},
                                                 {"clip_name2", file("clip_g")},
                                                 {"clip_name3", file("clip_l")}})},
                 {"2", node("CLIPTextEncode", {{"text", text}, {"clip", {"1", 0}}})}};
  auto plain = item_of(tiny, prompt, {"2", 0});
  CHECK(difference(thinned(plain.cross_attn, 7), dump["cond.0"]) < 1e-4);
  CHECK(difference(plain.pooled_output, dump["pooled.0"]) < 1e-4);
  auto sd3 = [&](const std::string& l, const std::string& g, const std::string& t5,
                 const std::string& padding) {
    prompt["2"] = node("CLIPTextEncodeSD3", {{"clip", {"1", 0}},
                                             {"clip_l", l},
                                             {"clip_g", g},
                                             {"t5xxl", t5},
                                             {"empty_padding", padding}});
    return item_of(tiny, prompt, {"2", 0});
  };
  CHECK(at::equal(sd3(text, text, text, "none").cross_attn, plain.cross_attn));
  CHECK(sd3(text, text, "", "none").cross_attn.size(1) == 78);
  CHECK(sd3(text, text, "", "empty_prompt").cross_attn.size(1) == 154);
  CHECK(sd3("", "", text, "none").cross_attn.size(1) == 77);
  CHECK(sd3("", "", text, "none").pooled_output.abs().sum().item<double>() == 0);
  CHECK(at::equal(sd3("", text, text, "none").cross_attn,
                  sd3("", text, text, "empty_prompt").cross_attn));
}

TEST_CASE("text encoders: CLIPLoader's Z-Image and klein, with the mask of what is padding") {
  write_all();
  Dump dump("text_qwen3");
  TinyApp tiny;
  for (const auto& c : cases_of("text_qwen3")) {
    auto key = c["key"].get<std::string>();
    CAPTURE(key);
    Json prompt = {
        {"1", node("CLIPLoader", {{"clip_name", file("qwen3_4b")}, {"type", c["type"]}})},
        {"2", node("CLIPTextEncode", {{"text", c["prompt"]}, {"clip", {"1", 0}}})}};
    auto item = item_of(tiny, prompt, {"2", 0});
    CHECK(difference(thinned(item.cross_attn, 9), dump[key]) < 1e-4);
    CHECK_FALSE(item.pooled_output.defined());
    CHECK((item.tensors.count("attention_mask") == 1) == (c["type"] == "flux2"));
  }
}

TEST_CASE(
    "text encoders: TextEncodeQwenImageEdit(Plus) see pictures and encode them for the model") {
  write_all();
  TinyApp tiny;
  Json prompt = sampling_prompt();
  prompt["6"] = node("CLIPLoader", {{"clip_name", file("qwen25_7b")}, {"type", "qwen_image"}});
  prompt["7"] =
      node("EmptyImage", {{"width", 96}, {"height", 48}, {"batch_size", 1}, {"color", 255}});
  prompt["8"] =
      node("TextEncodeQwenImageEditPlus",
           {{"clip", {"6", 0}}, {"prompt", "swap"}, {"image1", {"7", 0}}, {"image3", {"7", 0}}});
  auto item = item_of(tiny, prompt, {"8", 0});
  CHECK(item.reference_latents.empty());
  // 543 x 272 pixels each become 19 x 10 tokens.
  auto two = item.cross_attn.size(1);
  CHECK(two > 2 * 190);
  prompt["8"]["inputs"].erase("image3");
  auto one = item_of(tiny, prompt, {"8", 0}).cross_attn.size(1);
  CHECK(two - one >= 190);
  prompt["8"]["inputs"]["vae"] = {"1", 2};
  auto with_latent = item_of(tiny, prompt, {"8", 0});
  REQUIRE(with_latent.reference_latents.size() == 1);
  // 1448 x 728 pixels, eight a cell.
  CHECK(with_latent.reference_latents[0].sizes() == at::IntArrayRef({1, 4, 91, 181}));
  prompt["9"] = node("TextEncodeQwenImageEdit", {{"clip", {"6", 0}}, {"prompt", "swap"}});
  CHECK(item_of(tiny, prompt, {"9", 0}).cross_attn.size(1) < 20);
  prompt["9"]["inputs"]["image"] = {"7", 0};
  CHECK(item_of(tiny, prompt, {"9", 0}).cross_attn.size(1) > 52 * 25);
}

TEST_CASE("text encoders: wrong files name what they hold and what would fit") {
  write_all();
  TinyApp tiny;
  auto refusal = [&](const Json& loader) {
    Json prompt = {{"1", loader},
                   {"2", node("CLIPTextEncode", {{"text", "a"}, {"clip", {"1", 0}}})}};
    prompt["keep"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"2", 0}}}}};
    return tiny.run(prompt).error;
  };
  auto two = refusal(
      node("DualCLIPLoader",
           {{"clip_name1", file("clip_g")}, {"clip_name2", file("clip_l")}, {"type", "flux"}}));
  CHECK(two.find("type 'flux' takes CLIP-L and T5") != std::string::npos);
  CHECK(two.find("clip_g.safetensors") != std::string::npos);
  CHECK(refusal(node("CLIPLoader", {{"clip_name", file("t5xxl")}, {"type", "mochi"}}))
            .find("not supported yet; this file holds T5") != std::string::npos);
  CHECK(refusal(node("CLIPLoader", {{"clip_name", file("t5xxl")}, {"type", "wan"}}))
            .find("type 'wan' takes UMT5; this file holds T5") != std::string::npos);
  CHECK(refusal(node("QuadrupleCLIPLoader", {{"clip_name1", file("clip_g")},
                                             {"clip_name2", file("clip_l")},
                                             {"clip_name3", file("t5xxl")},
                                             {"clip_name4", file("qwen3_4b")}}))
            .find("'hidream' are not supported yet") != std::string::npos);
  // A diffusion model where a text encoder belongs, and the other way round.
  std::map<std::string, at::Tensor> unet;
  for (const auto& [name, value] : tiny_tensors({"unet_sd1"})) unet[name] = value;
  write_tensors(tiny_models() / "text_encoders" / "unet.safetensors", unet);
  CHECK(refusal(node("CLIPLoader", {{"clip_name", file("unet")}, {"type", "qwen_image"}}))
            .find("but a diffusion model (SD1.x)") != std::string::npos);
  fs::create_directories(tiny_models() / "diffusion_models");
  fs::copy_file(tiny_models() / "text_encoders" / file("t5xxl"),
                tiny_models() / "diffusion_models" / file("t5xxl"),
                fs::copy_options::overwrite_existing);
  Json prompt = {
      {"1", node("UNETLoader", {{"unet_name", file("t5xxl")}, {"weight_dtype", "default"}})}};
  prompt["keep"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"1", 0}}}}};
  CHECK(tiny.run(prompt).error.find("it holds the text encoder T5") != std::string::npos);
}
