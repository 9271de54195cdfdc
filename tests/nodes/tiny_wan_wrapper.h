#pragma once
#include <map>
#include <string>

#include "distorch/nodes/wan_wrapper.h"
#include "tests/nodes/tiny_seeded.h"

/// What the tests of the WanVideoWrapper's nodes share: the tiny models, and nodes that give what
/// tests/parity/make_nodes_wan_wrapper.py gives the pack's sampler.
namespace distorch::test {

using graph::Json;
using graph::Value;
using namespace distorch::nodes::wan_wrapper;

constexpr std::int64_t kTextWidth = 48, kWidth = 48, kHeight = 32, kFrames = 9;

class WrapperApp : public SeededApp {
 public:
  explicit WrapperApp(streaming::EngineOptions engine = {})
      : SeededApp(std::move(engine), "wan_wrapper") {
    for (std::string name : {"wan_t2v", "wan_i2v", "wan_vace"})
      write("diffusion_models", name, tiny_tensors({name}));
    for (std::string name : {"wan_vae", "wan_vae22"}) write("vae", name, tiny_tensors({name}));
    add_inputs();
  }

  void write_lora(const std::string& name, const std::map<std::string, at::Tensor>& tensors) {
    write("loras", name, tensors);
  }
  std::string error(Json prompt, const Json& link) {
    prompt["keep"] = node("Keep", {{"value", link}});
    auto result = run(prompt);
    std::string all = result.error;
    for (const auto& line : result.validation.lines()) all += line + "\n";
    return all;
  }
  at::Tensor samples(const Json& prompt, const Json& link) {
    return value_of(prompt, link).as<sampling::Latent>().samples;
  }

 private:
  void add_inputs() {
    catalog.add({.name = "TinyEmbeds",
                 .inputs = {graph::text("prompts"),
                            graph::optional(graph::boolean("negative", {.def = true}))},
                 .outputs = {"WANVIDEOTEXTEMBEDS"},
                 .run = [](graph::Call& call) {
                   TextEmbeds embeds;
                   for (const auto& prompt : Json::parse(call.text("prompts")))
                     embeds.prompts.push_back(
                         tiny_weight(prompt[0].get<std::string>(),
                                     {prompt[1].get<std::int64_t>(), kTextWidth}));
                   if (call.boolean("negative"))
                     embeds.negative = tiny_weight("dog", {6, kTextWidth});
                   call.out(0, Value::of("WANVIDEOTEXTEMBEDS", std::move(embeds)));
                 }});
    catalog.add(
        {.name = "TinyPicture", .outputs = {"WANVIDIMAGE_EMBEDS"}, .run = [](graph::Call& call) {
           const std::int64_t frames = (kFrames - 1) / 4 + 1;
           ImageEmbeds embeds{
               .frames = kFrames,
               .height = kHeight / 8,
               .width = kWidth / 8,
               .latent = tiny_weight("picture", {16, frames, kHeight / 8, kWidth / 8}),
               .mask = at::zeros({4, frames, kHeight / 8, kWidth / 8})};
           embeds.mask.select(1, 0).fill_(1);
           embeds.clip.positive = tiny_weight("seen", {1, 7, 1280});
           call.out(0, Value::of("WANVIDIMAGE_EMBEDS", std::move(embeds)));
         }});
    catalog.add({.name = "TinyList",
                 .inputs = {graph::text("numbers")},
                 .outputs = {"FLOAT"},
                 .run = [](graph::Call& call) {
                   call.out(0, Value::of("FLOAT", Json::parse(call.text("numbers"))));
                 }});
    catalog.add(
        {.name = "TinySize",
         .inputs = {graph::integer("frames")},
         .outputs = {"WANVIDIMAGE_EMBEDS"},
         .run = [](graph::Call& call) {
           call.out(0, Value::of("WANVIDIMAGE_EMBEDS", ImageEmbeds{.frames = call.integer("frames"),
                                                                   .height = kHeight / 8,
                                                                   .width = kWidth / 8}));
         }});
    catalog.add(
        {.name = "TinyFollowed", .outputs = {"WANVIDIMAGE_EMBEDS"}, .run = [](graph::Call& call) {
           const std::int64_t frames = (kFrames - 1) / 4 + 1;
           VaceControl control{tiny_weight("followed", {96, frames, kHeight / 8, kWidth / 8}), 0.8,
                               0.0, 0.6};
           ImageEmbeds embeds{
               .frames = kFrames, .height = kHeight / 8, .width = kWidth / 8, .vace = {control}};
           call.out(0, Value::of("WANVIDIMAGE_EMBEDS", std::move(embeds)));
         }});
    catalog.add(
        {.name = "TinyVideo",
         .inputs = {graph::integer("frames"), graph::integer("height"), graph::integer("width")},
         .outputs = {"IMAGE"},
         .run = [](graph::Call& call) {
           auto seeded = at::detail::createCPUGenerator(3);
           call.out(0, Value::of("IMAGE", at::rand({call.integer("frames"), call.integer("height"),
                                                    call.integer("width"), 3},
                                                   seeded)));
         }});
  }
};

/// What a case's video is to be like.
inline Json size_of(const Json& one) {
  if (one["name"] == "picture") return node("TinyPicture", Json::object());
  if (one["name"] == "vace") return node("TinyFollowed", Json::object());
  return node("TinySize", {{"frames", one["frames"]}});
}

/// A run of the sampler in node "run".
inline Json prompt_of(const Json& one) {
  Json prompt = {{"model", node("WanVideoModelLoader",
                                {{"model", one["model"].get<std::string>() + ".safetensors"},
                                 {"base_precision", "fp32"},
                                 {"quantization", "disabled"},
                                 {"load_device", "main_device"}})},
                 {"text", node("TinyEmbeds", {{"prompts", one["prompts"].dump()}})},
                 {"size", size_of(one)}};
  Json inputs = {{"model", {"model", 0}},
                 {"image_embeds", {"size", 0}},
                 {"text_embeds", {"text", 0}},
                 {"force_offload", false}};
  for (const auto& [name, value] : one["inputs"].items()) {
    inputs[name] = value;
    if (!value.is_array()) continue;
    prompt[name] = node("TinyList", {{"numbers", value.dump()}});
    inputs[name] = {name, 0};
  }
  for (const auto& [name, made] : one["links"].items()) {
    prompt[name] = made;
    inputs[name] = {name, 0};
  }
  prompt["run"] = node("WanVideoSampler", inputs);
  return prompt;
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace distorch::test
