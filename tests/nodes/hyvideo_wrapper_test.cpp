// The HunyuanVideoWrapper's sampler on the tiny models: runs of
// tests/parity/make_nodes_hyvideo_wrapper.py, which are the pack's own, and what is not possible.
#include <algorithm>
#include <functional>

#include "distorch/nodes/hyvideo_wrapper.h"
#include "distorch/nodes/vae_coding.h"
#include "tests/nodes/simulated.h"
#include "tests/nodes/tiny_seeded.h"
#include "tests/support/devices.h"
#include "tests/support/told.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::nodes::hyvideo;
using graph::Json;
using graph::Value;

namespace {

constexpr const char* kDump = "nodes_hyvideo_wrapper";
constexpr std::int64_t kTextWidth = 24, kPooledWidth = 20;

/// A file's name says how its model takes pictures.
const std::map<std::string, std::string> kModels = {{"t2v", "hunyuan_video"},
                                                    {"replace_i2v", "hunyuan_video"},
                                                    {"custom", "hunyuan_video"},
                                                    {"concat_i2v", "hunyuan_video_i2v"},
                                                    {"skyreels", "skyreels_i2v"}};

std::vector<std::int64_t> shape_of(const Json& shape) {
  return shape.get<std::vector<std::int64_t>>();
}

class HyApp : public SeededApp {
 public:
  explicit HyApp(streaming::EngineOptions engine = {}) : SeededApp(std::move(engine), "hyvideo") {
    for (const auto& [name, dump] : kModels) write("diffusion_models", name, tiny_tensors({dump}));
    write("vae", "hunyuan_vae", tiny_tensors({"hunyuan_vae"}));
    write("vae", "wan_vae", tiny_tensors({"wan_vae"}));
    add_inputs();
    add_small_sampler();
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
  at::Tensor samples(const Json& prompt) {
    return value_of(prompt, {"run", 0}).as<sampling::Latent>().samples;
  }

 private:
  /// The sampler with smaller sides than its inputs allow, as the runs of the dump have them.
  void add_small_sampler() {
    auto small = *catalog.find("HyVideoSampler");
    small.name = "SmallHyVideoSampler";
    for (auto& input : small.inputs)
      if (input.name == "width" || input.name == "height") input.options["min"] = 16;
    catalog.add(std::move(small));
  }
  void add_inputs() {
    catalog.add({.name = "TinyEmbeds",
                 .inputs = {graph::boolean("pooled"), graph::text("guidance"),
                            graph::integer("width", {.def = kTextWidth})},
                 .outputs = {"HYVIDEMBEDS"},
                 .run = [](graph::Call& call) {
                   Embeds embeds;
                   const auto width = call.integer("width");
                   embeds.states = tiny_weight("cat", {1, 9, width});
                   if (call.boolean("pooled"))
                     embeds.pooled = tiny_weight("cat pooled", {1, kPooledWidth});
                   if (const auto how = Json::parse(call.text("guidance")); !how.is_null()) {
                     embeds.negative = tiny_weight("dog", {1, 6, width});
                     embeds.negative_pooled = tiny_weight("dog pooled", {1, kPooledWidth});
                     embeds.guidance = Guidance{.negative = "",
                                                .scale = how["cfg"],
                                                .start = how["start_percent"],
                                                .end = how["end_percent"],
                                                .together = how["batched_cfg"],
                                                .zero_star = how.value("use_cfg_zero_star", true)};
                   }
                   call.out(0, Value::of("HYVIDEMBEDS", std::move(embeds)));
                 }});
    catalog.add({.name = "TinyLatents",
                 .inputs = {graph::text("name"), graph::text("shape")},
                 .outputs = {"LATENT"},
                 .run = [](graph::Call& call) {
                   auto made =
                       tiny_weight(call.text("name"), shape_of(Json::parse(call.text("shape"))));
                   call.out(0, Value::of("LATENT", sampling::Latent{made, {}, {}}));
                 }});
    catalog.add({.name = "TinyVideoMask",
                 .inputs = {graph::text("shape")},
                 .outputs = {"MASK"},
                 .run = [](graph::Call& call) {
                   auto made = tiny_weight("mask", shape_of(Json::parse(call.text("shape"))));
                   call.out(0, Value::of("MASK", (made > 0).to(at::kFloat)));
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

/// A run of the sampler in node "run".
Json prompt_of(const Json& one) {
  Json prompt = {{"model", node("HyVideoModelLoader",
                                {{"model", one["model"].get<std::string>() + ".safetensors"},
                                 {"base_precision", "fp32"},
                                 {"quantization", "disabled"},
                                 {"load_device", "main_device"}})},
                 {"text", node("TinyEmbeds", {{"pooled", one["pooled"]},
                                              {"guidance", one["guidance"].dump()},
                                              {"width", kTextWidth}})}};
  Json inputs = {{"model", {"model", 0}}, {"hyvid_embeds", {"text", 0}}, {"force_offload", false}};
  for (const auto& [name, value] : one["inputs"].items()) inputs[name] = value;
  for (const auto& [name, made] : one["links"].items()) {
    prompt[name] = made;
    inputs[name] = {name, 0};
  }
  if (one["seeded"].is_object())
    for (const auto& [name, shape] : one["seeded"].items()) {
      prompt[name] = name == "mask"
                         ? node("TinyVideoMask", {{"shape", shape.dump()}})
                         : node("TinyLatents", {{"name", name}, {"shape", shape.dump()}});
      inputs[name] = {name, 0};
    }
  prompt["run"] = node("SmallHyVideoSampler", inputs);
  return prompt;
}

Json case_of(const std::string& name) { return workflow_case(kDump, name); }

/// Of a long video the dump has every eighth frame.
at::Tensor as_kept(const at::Tensor& samples) {
  constexpr std::int64_t whole = 10, each = 8;
  return samples.size(2) > whole ? samples.slice(2, 0, samples.size(2), each) : samples;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

Json tiles(std::int64_t frames, std::int64_t side, bool automatic) {
  return {{"enable_vae_tiling", true},
          {"temporal_tiling_sample_size", frames},
          {"spatial_tile_sample_min_size", side},
          {"auto_tile_size", automatic}};
}

}  // namespace

TEST_CASE("any device: HyVideoSampler gives what the pack's own code gives") {
  streaming::EngineOptions options;
  options.default_device = test_device_or("cpu");
  HyApp tiny(options);
  Dump dump(kDump);
  double worst = 0;
  const auto all = workflow_cases(kDump);
  REQUIRE(all.size() > 25);
  for (const auto& one : all) {
    const auto title = one["name"].get<std::string>();
    INFO(title);
    const auto samples = as_kept(tiny.samples(prompt_of(one)));
    REQUIRE(samples.sizes() == dump[title].sizes());
    const auto error = difference(samples, dump[title]);
    CHECK(error < 1e-4);
    worst = std::max(worst, error);
  }
  MESSAGE("HyVideoSampler: " << all.size() << " runs, largest difference " << worst);
}

TEST_CASE("HyVideoSampler: TeaCache leaves calls out and says how many, as the pack does") {
  HyApp tiny;
  Told told;
  tiny.samples(prompt_of(case_of("tea")));
  CHECK(told.has("the blocks were left out in 3 of 8 calls"));
  tiny.samples(prompt_of(case_of("tea guided")));
  CHECK(told.has("the blocks were left out in 2 of 8 calls"));
}

TEST_CASE("HyVideoSampler: prompts one by one give what they give in one call") {
  HyApp tiny;
  auto apart = [&](const char* name) {
    auto one = case_of(name);
    one["guidance"]["batched_cfg"] = false;
    return tiny.samples(prompt_of(one));
  };
  CHECK(difference(apart("guided"), Dump(kDump)["guided"]) < 1e-4);
  // Told apart are what counts over a whole call: enhancement, and the steps that are left out.
  auto alone = apart("enhance doubles");
  CHECK(difference(alone, Dump(kDump)["enhance doubles"]) > 1e-4);
  CHECK(difference(alone, Dump(kDump)["guided"]) > 1e-3);
}

TEST_CASE("HyVideoSampler: the negative prompt without some blocks is one that never had them") {
  HyApp tiny;
  auto one = case_of("guided");
  auto with = [&](const char* doubles, const char* singles, double start, double end) {
    auto prompt = prompt_of(one);
    prompt["slg"] = node("HunyuanVideoSLG", {{"double_blocks", doubles},
                                             {"single_blocks", singles},
                                             {"start_percent", start},
                                             {"end_percent", end}});
    prompt["run"]["inputs"]["slg_args"] = {"slg", 0};
    return prompt;
  };
  const auto plain = tiny.samples(prompt_of(one));
  CHECK(difference(tiny.samples(with("", "1", 0.0, 1.0)), plain) > 1e-3);
  CHECK(difference(tiny.samples(with("0", "1", 0.0, 1.0)), tiny.samples(with("", "1", 0.0, 1.0))) >
        1e-3);
  // A part of the run in which there is no step.
  CHECK(difference(tiny.samples(with("0", "1", 0.9, 1.0)), plain) < 1e-6);
  CHECK(contains(tiny.error(with("first", "1", 0.0, 1.0), {"run", 0}),
                 "input 'double_blocks' is \"first\", and has to be numbers"));
}

TEST_CASE("HyVideoBlockSwap: the first blocks stream, the log says so, and the bits are the same") {
  const auto one = case_of("enhance");
  at::Tensor whole;
  for (auto [doubles, singles] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 0}, {2, 0}, {1, 2}}) {
    HyApp tiny(simulated());
    auto prompt = prompt_of(one);
    prompt["model"]["class_type"] = "HyVideoModelLoaderMultiGPU";
    prompt["device"] = node("DeviceSelectorMultiGPU", {{"device", "sim:0"}});
    prompt["model"]["inputs"]["device"] = {"device", 0};
    prompt["swap"] = node("HyVideoBlockSwap", {{"double_blocks_to_swap", doubles},
                                               {"single_blocks_to_swap", singles},
                                               {"offload_txt_in", false},
                                               {"offload_img_in", false}});
    prompt["model"]["inputs"]["block_swap_args"] = {"swap", 0};
    Told told;
    auto samples = tiny.samples(prompt);
    if (!whole.defined()) whole = samples;
    CHECK(at::equal(samples, whole));
    const auto count = doubles + singles;
    CHECK(told.has(std::to_string(count) + " of 4 layers") == (count > 0));
    auto model = tiny.value_of(prompt, {"model", 0}).as<HyModel>();
    const auto* placed = tiny.app.engine.placement_of(*model.model.loaded->weights);
    REQUIRE(placed);
    std::int64_t streamed = 0;
    for (const auto& block : placed->blocks) streamed += block.how == placement::How::Streamed;
    CHECK((streamed > 0) == (count > 0));
  }
  CHECK(difference(whole, Dump(kDump)["enhance"]) < 1e-4);
}

TEST_CASE("HyVideoLoraSelect: a LoRA counts, and of chosen blocks only") {
  HyApp tiny;
  std::map<std::string, at::Tensor> style;
  for (std::string block : {"double_blocks.0.img_attn_proj", "single_blocks.1.linear2"}) {
    const auto in = block.ends_with("linear2") ? 64 + 256 : 64;
    style["transformer." + block + ".lora_A.weight"] = tiny_weight(block + " a", {4, in});
    style["transformer." + block + ".lora_B.weight"] = tiny_weight(block + " b", {64, 4});
  }
  tiny.write_lora("style", style);
  auto with = [&](double strength, const std::vector<std::string>& blocks) {
    auto prompt = prompt_of(case_of("shift"));
    prompt["lora"] =
        node("HyVideoLoraSelect", {{"lora", "style.safetensors"}, {"strength", strength}});
    prompt["model"]["inputs"]["lora"] = {"lora", 0};
    if (!blocks.empty()) {
      Json chosen;
      for (const auto& input : tiny.catalog.get("HyVideoLoraBlockEdit").inputs)
        chosen[input.name] = std::ranges::find(blocks, input.name) != blocks.end();
      prompt["blocks"] = node("HyVideoLoraBlockEdit", chosen);
      prompt["lora"]["inputs"]["blocks"] = {"blocks", 0};
    }
    return tiny.samples(prompt);
  };
  const auto plain = tiny.samples(prompt_of(case_of("shift")));
  CHECK(at::equal(with(0.0, {}), plain));
  const auto whole = with(1.0, {}), first = with(1.0, {"double_blocks.0."}),
             last = with(1.0, {"single_blocks.1."});
  CHECK(difference(whole, plain) > 1e-3);
  CHECK(difference(first, plain) > 1e-4);
  CHECK(difference(last, plain) > 1e-4);
  CHECK(difference(first, last) > 1e-4);
  CHECK(at::equal(with(1.0, {"double_blocks.0.", "single_blocks.1."}), whole));
  Told told;
  CHECK(at::equal(with(1.0, {"double_blocks.1."}), plain));
  CHECK(told.has("changes none of the blocks that are chosen"));
}

TEST_CASE("HyVideoSampler: what does not fit is told with the way out") {
  HyApp tiny;
  auto told = [&](const char* name, const std::function<void(Json&)>& change) {
    auto prompt = prompt_of(case_of(name));
    change(prompt);
    return tiny.error(prompt, {"run", 0});
  };
  auto set = [](const char* input, Json value) {
    return [=](Json& prompt) { prompt["run"]["inputs"][input] = value; };
  };
  CHECK(contains(told("shift", set("num_frames", 11)), "lengths are 4n + 1: take 9 or 13"));
  CHECK(contains(told("shift", set("denoise_strength", 0.5)), "needs 'samples' to go on from"));
  CHECK(contains(told("part", set("denoise_strength", 1.0)), "count only with a denoise_strength"));
  CHECK(contains(told("part", set("width", 96)), "input 'samples' is a latent of"));
  CHECK(contains(
      told("concat", [](Json& prompt) { prompt["run"]["inputs"].erase("image_cond_latents"); }),
      "concat_i2v.safetensors: makes videos from a picture: link HyVideoEncode"));
  CHECK(contains(
      told("concat", [](Json& prompt) { prompt["model"]["inputs"]["model"] = "t2v.safetensors"; }),
      "t2v.safetensors: makes videos from text alone"));
  CHECK(contains(told("concat", set("width", 96)), "encode one picture or all frames in the size"));
  CHECK(contains(told("shift", [](Json& prompt) { prompt["text"]["inputs"]["width"] = 32; }),
                 "t2v.safetensors: takes text of width 24"));
  CHECK(contains(told("STG-A",
                      [](Json& prompt) {
                        prompt["text"]["inputs"]["guidance"] = case_of("guided")["guidance"].dump();
                      }),
                 "takes either stg_args or guidance"));
  CHECK(contains(
      told("mask", [](Json& prompt) { prompt["mask"]["inputs"]["shape"] = "[5, 32, 48]"; }),
      "input 'mask' has 5 frames, and the video has 9"));
  CHECK(contains(told("shift",
                      [](Json& prompt) {
                        prompt["swap"] =
                            node("HyVideoVAELoader", {{"model_name", "wan_vae.safetensors"}});
                        prompt["run"] = node("HyVideoDecode", tiles(64, 256, true));
                        prompt["run"]["inputs"]["vae"] = {"swap", 0};
                        prompt["samples"] =
                            node("TinyLatents", {{"name", "a"}, {"shape", "[1, 16, 1, 4, 4]"}});
                        prompt["run"]["inputs"]["samples"] = {"samples", 0};
                      }),
                 "wan_vae.safetensors: holds no autoencoder of HunyuanVideo"));
}

TEST_CASE("HyVideoDecode and HyVideoEncode: whole as the native nodes, and in tiles") {
  HyApp tiny;
  Json prompt = {
      {"vae", node("HyVideoVAELoader",
                   {{"model_name", "hunyuan_vae.safetensors"}, {"precision", "fp32"}})},
      {"samples", node("TinyLatents", {{"name", "video"}, {"shape", "[1, 16, 3, 6, 7]"}})},
      {"native", node("VAEDecode", {{"samples", {"samples", 0}}, {"vae", {"vae", 0}}})}};
  auto decoded = [&](const Json& sizes) {
    prompt["decode"] = node("HyVideoDecode", sizes);
    prompt["decode"]["inputs"]["vae"] = {"vae", 0};
    prompt["decode"]["inputs"]["samples"] = {"samples", 0};
    return tiny.value_of(prompt, {"decode", 0}).as<at::Tensor>();
  };
  const auto native = tiny.value_of(prompt, {"native", 0}).as<at::Tensor>();
  CHECK(difference(decoded(tiles(64, 256, true)), native) < 1e-6);
  // Tiles of four cells every three, blended over eight pixels: the first row as it is made.
  nodes::VaeCoding coding(tiny.value_of(prompt, {"vae", 0}).as<nodes::Vae>(), tiny.app.engine);
  const auto latent = tiny_weight("video", {1, 16, 3, 6, 7});
  auto tile = [&](std::int64_t top, std::int64_t left) {
    auto part = latent.narrow(3, top, std::min<std::int64_t>(4, 6 - top))
                    .narrow(4, left, std::min<std::int64_t>(4, 7 - left));
    return coding.decode_raw(part.contiguous());
  };
  const auto tiled = decoded(tiles(64, 32, false));
  CHECK(tiled.sizes() == native.sizes());
  auto as_image = [](const at::Tensor& x) {
    return (x / 2 + 0.5).clamp(0, 1).select(0, 0).permute({1, 2, 3, 0});
  };
  const auto first = tile(0, 0), second = tile(0, 3);
  const auto ramp = at::arange(8, at::kFloat) / 8;
  const auto seam = first.narrow(4, 24, 8) * (1 - ramp) + second.narrow(4, 0, 8) * ramp;
  auto corner = [&](std::int64_t left, std::int64_t width) {
    return tiled.narrow(1, 0, 24).narrow(2, left, width);
  };
  CHECK(difference(corner(0, 24), as_image(first.narrow(3, 0, 24).narrow(4, 0, 24))) < 1e-5);
  CHECK(difference(corner(24, 8), as_image(seam.narrow(3, 0, 24))) < 1e-5);
  CHECK(difference(corner(32, 16), as_image(second.narrow(3, 0, 24).narrow(4, 8, 16))) < 1e-5);
  // Windows of two latent frames without an overlap: the second one begins with what it forgets.
  const auto timed = decoded(tiles(8, 256, false));
  CHECK(timed.sizes() == native.sizes());
  const auto whole = coding.decode_raw(latent.narrow(2, 0, 3).contiguous());
  CHECK(difference(timed, as_image(whole)) < 1e-5);
  const auto shorter = decoded(tiles(4, 256, false));
  const auto later = coding.decode_raw(latent.narrow(2, 1, 2).contiguous());
  CHECK(difference(shorter.narrow(0, 5, 4), as_image(later.narrow(2, 1, 4))) < 1e-5);
  // The other way.
  prompt["video"] = node("TinyVideo", {{"frames", 9}, {"height", 48}, {"width", 50}});
  prompt["back"] = node("VAEEncode", {{"pixels", {"video", 0}}, {"vae", {"vae", 0}}});
  auto encode = tiles(64, 256, true);
  encode["latent_strength"] = 0.5;
  prompt["encode"] = node("HyVideoEncode", encode);
  prompt["encode"]["inputs"]["vae"] = {"vae", 0};
  prompt["encode"]["inputs"]["image"] = {"video", 0};
  auto latents = [&](const char* id) {
    return tiny.value_of(prompt, {id, 0}).as<sampling::Latent>().samples;
  };
  CHECK(difference(latents("encode"), latents("back") * 0.5) < 1e-5);
  prompt["encode"]["inputs"].update(tiles(8, 32, false));
  CHECK(latents("encode").sizes() == latents("back").sizes());
}
