#include "distorch/nodes/clip_vision.h"
#include "distorch/nodes/upscale.h"
#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

/// Writes a file of the tiny models' folder.
void write_model(const char* folder, const char* name,
                 const std::map<std::string, at::Tensor>& tensors) {
  fs::create_directories(tiny_models() / folder);
  write_tensors(tiny_models() / folder / name, tensors);
}

Json picture(int width, int height) {
  return node("EmptyImage",
              {{"width", width}, {"height", height}, {"batch_size", 2}, {"color", 0x3380C8}});
}

}  // namespace

TEST_CASE("ImageUpscaleWithModel enlarges every picture of a batch, in tiles where it is large") {
  write_model("upscale_models", "tiny.safetensors", tiny_tensors({"upscale_compact"}));
  TinyApp tiny;
  Json prompt = {
      {"1", picture(9, 7)},
      {"2", node("UpscaleModelLoader", {{"model_name", "tiny.safetensors"}})},
      {"3", node("ImageUpscaleWithModel", {{"upscale_model", {"2", 0}}, {"image", {"1", 0}}})}};
  auto image = tiny.value_of(prompt, {"3", 0}).as<at::Tensor>();
  CHECK(image.sizes().vec() == std::vector<std::int64_t>{2, 28, 36, 3});
  CHECK(image.min().item<float>() >= 0.0f);
  CHECK(image.max().item<float>() <= 1.0f);
  prompt["1"]["inputs"]["width"] = 600;
  auto wide = tiny.value_of(prompt, {"3", 0}).as<at::Tensor>();
  CHECK(wide.sizes().vec() == std::vector<std::int64_t>{2, 28, 2400, 3});
}

TEST_CASE("pictures reach a conditioning through CLIP vision and a style model") {
  write_model("clip_vision", "tiny.safetensors", tiny_tensors({"siglip"}));
  auto redux = [](std::int64_t width, std::int64_t out) {
    return std::map<std::string, at::Tensor>{{"redux_up.weight", at::randn({96, width})},
                                             {"redux_up.bias", at::zeros({96})},
                                             {"redux_down.weight", at::randn({out, 96})},
                                             {"redux_down.bias", at::zeros({out})}};
  };
  write_model("style_models", "redux.safetensors", redux(48, 64));
  write_model("style_models", "narrow.safetensors", redux(40, 64));
  write_model("style_models", "wide.safetensors", redux(48, 128));
  TinyApp tiny;
  Json prompt = sampling_prompt();
  prompt["10"] = picture(40, 30);
  prompt["11"] = node("CLIPVisionLoader", {{"clip_name", "tiny.safetensors"}});
  prompt["12"] = node("CLIPVisionEncode",
                      {{"clip_vision", {"11", 0}}, {"image", {"10", 0}}, {"crop", "center"}});
  prompt["13"] = node("StyleModelLoader", {{"style_model_name", "redux.safetensors"}});
  prompt["14"] = node("StyleModelApply", {{"conditioning", {"2", 0}},
                                          {"style_model", {"13", 0}},
                                          {"clip_vision_output", {"12", 0}},
                                          {"strength", 0.5},
                                          {"strength_type", "multiply"}});
  auto conditioning = tiny.value_of(prompt, {"14", 0}).as<sampling::Conditioning>();
  // 16 tokens for each of the two pictures behind the text's 77.
  CHECK(conditioning.at(0).cross_attn.sizes().vec() == std::vector<std::int64_t>{1, 77 + 32, 64});
  // A plan has the same shapes, and runs of both networks; none of their weights is read.
  streaming::EngineOptions plans;
  plans.plan_only = true;
  TinyApp planned(plans);
  auto blank = planned.value_of(prompt, {"14", 0}).as<sampling::Conditioning>();
  CHECK(blank.at(0).cross_attn.sizes() == conditioning.at(0).cross_attn.sizes());
  CHECK(planned.app.engine.planned_runs().size() == 3);  // and the text encoder's
  auto error_with = [&](const char* style) {
    prompt["13"]["inputs"]["style_model_name"] = style;
    prompt["keep"] = node("Keep", {{"value", {"14", 0}}});
    return tiny.run(prompt).error;
  };
  CHECK(error_with("narrow.safetensors").find("width 40") != std::string::npos);
  CHECK(error_with("wide.safetensors").find("width 128") != std::string::npos);
}

TEST_CASE("unCLIPConditioning adds a picture each time; files without encoders are told") {
  write_model("clip_vision", "unclip.safetensors", tiny_tensors({"clip_vision"}));
  write_model("clip_vision", "other.safetensors", {{"weight", at::zeros({2, 2})}});
  TinyApp tiny;
  Json prompt = sampling_prompt();
  prompt["10"] = picture(28, 28);
  prompt["11"] = node("CLIPVisionLoader", {{"clip_name", "unclip.safetensors"}});
  prompt["12"] = node("CLIPVisionEncode",
                      {{"clip_vision", {"11", 0}}, {"image", {"10", 0}}, {"crop", "none"}});
  auto more = [](const char* from, double strength) {
    return node("unCLIPConditioning", {{"conditioning", {from, 0}},
                                       {"clip_vision_output", {"12", 0}},
                                       {"strength", strength},
                                       {"noise_augmentation", 0.25}});
  };
  prompt["13"] = more("2", 1.0);
  prompt["14"] = more("13", 0.0);
  prompt["15"] = more("14", 0.5);
  auto item = tiny.value_of(prompt, {"15", 0}).as<sampling::Conditioning>().at(0);
  CHECK(item.tensors.at("unclip.0").sizes().vec() == std::vector<std::int64_t>{2, 40});
  CHECK(item.numbers.at("unclip.1.strength") == 0.5);
  CHECK(item.tensors.count("unclip.2") == 0);
  prompt["11"]["inputs"]["clip_name"] = "other.safetensors";
  prompt["keep"] = node("Keep", {{"value", {"15", 0}}});
  CHECK(tiny.run(prompt).error.find("picture encoder") != std::string::npos);
}
