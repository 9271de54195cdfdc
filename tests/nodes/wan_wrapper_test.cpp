// The WanVideoWrapper's nodes on the tiny models: runs of tests/parity/make_nodes_wan_wrapper.py,
// which are the pack's own, and what is not possible.
#include <cmath>

#include "distorch/device/sim/sim.h"
#include "distorch/graph/older_widgets.h"
#include "distorch/models/t5/config.h"
#include "distorch/nodes/vae_coding.h"
#include "distorch/nodes/wan_wrapper_guidance.h"
#include "distorch/nodes/wan_wrapper_prompts.h"
#include "distorch/nodes/wan_wrapper_windows.h"
#include "tests/nodes/simulated.h"
#include "tests/nodes/tiny_wan_wrapper.h"
#include "tests/support/devices.h"
#include "tests/support/told.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::nodes::wan_wrapper;
using graph::Json;
using graph::Value;

namespace {

Json case_of(const std::string& name) { return workflow_case("nodes_wan_wrapper", name); }

}  // namespace

TEST_CASE("any device: the wrapper's sampler gives what its own code gives") {
  streaming::EngineOptions options;
  options.default_device = test_device_or("cpu");
  WrapperApp tiny(options);
  Dump dump("nodes_wan_wrapper");
  double worst = 0;
  for (const auto& one : workflow_cases("nodes_wan_wrapper")) {
    auto title = one["name"].get<std::string>();
    INFO(title);
    auto error = difference(tiny.samples(prompt_of(one), {"run", 0}), dump[title]);
    // Of deis, whose formulae lose digits where nearly all is noise.
    CHECK(error < (title == "scheduler deis" ? 1e-3 : 1e-4));
    if (title != "scheduler deis") worst = std::max(worst, error);
  }
  MESSAGE("the wrapper's sampler: largest difference " << worst);
}

TEST_CASE("the wrapper's sampler: a second one goes on with the first one's random numbers") {
  WrapperApp tiny;
  Dump dump("nodes_wan_wrapper");
  auto prompt = prompt_of(case_of("first half"));
  auto second = prompt["run"];
  second["inputs"].erase("end_step");
  second["inputs"]["cfg"] = 1.0;
  second["inputs"]["seed"] = 99;
  second["inputs"]["start_step"] = 2;
  second["inputs"]["samples"] = {"run", 0};
  prompt["second"] = second;
  CHECK(difference(tiny.samples(prompt, {"second", 0}), dump["second half"]) < 1e-4);
  CHECK(difference(tiny.samples(prompt, {"run", 1}), dump["first half denoised"]) < 1e-4);
}

TEST_CASE("block swap: so many layers stream, the log says so, and the bits are the same") {
  auto one = case_of("enhance");
  at::Tensor whole;
  for (std::int64_t swapped : {0, 1, 2}) {
    WrapperApp tiny(simulated());
    auto prompt = prompt_of(one);
    prompt["model"]["class_type"] = "WanVideoModelLoaderMultiGPU";
    prompt["model"]["inputs"]["compute_device"] = "sim:0";
    prompt["swap"] = node("WanVideoBlockSwapMultiGPU", {{"blocks_to_swap", swapped},
                                                        {"offload_img_emb", false},
                                                        {"offload_txt_emb", false},
                                                        {"swap_device", "sim:1"}});
    prompt["set"] =
        node("WanVideoSetBlockSwap", {{"model", {"model", 0}}, {"block_swap_args", {"swap", 0}}});
    prompt["run"]["class_type"] = "WanVideoSamplerMultiGPU";
    prompt["run"]["inputs"]["model"] = {"set", 0};
    prompt["run"]["inputs"]["compute_device"] = {"model", 1};
    Told told;
    auto samples = tiny.samples(prompt, {"run", 0});
    if (!whole.defined()) whole = samples;
    CHECK(at::equal(samples, whole));
    CHECK(told.has(std::to_string(swapped) + " of 2 layers") == (swapped > 0));
    auto model = tiny.value_of(prompt, {"set", 0}).as<WanModel>();
    const auto* placed = tiny.app.engine.placement_of(*model.model.loaded->weights);
    REQUIRE(placed);
    const auto& names = model.model.loaded->weights->manifest().blocks();
    std::int64_t streamed = 0;
    for (std::size_t i = 0; i < names.size(); ++i)
      streamed +=
          names[i].starts_with("blocks.") && placed->blocks[i].how == placement::How::Streamed;
    CHECK(streamed == swapped);
  }
  CHECK(difference(whole, Dump("nodes_wan_wrapper")["enhance"]) < 1e-4);
}

TEST_CASE("VRAM management moves its part of the weights, and the bits are the same") {
  auto one = case_of("picture");
  at::Tensor whole;
  for (double part : {0.0, 0.5, 1.0}) {
    WrapperApp tiny(simulated());
    auto prompt = prompt_of(one);
    prompt["offload"] = node("WanVideoVRAMManagement", {{"offload_percent", part}});
    prompt["model"]["inputs"]["vram_management_args"] = {"offload", 0};
    Told told;
    auto samples = tiny.samples(prompt, {"run", 0});
    CHECK(told.has("rest on cpu and stream to sim:0") == (part > 0));
    if (!whole.defined()) whole = samples;
    CHECK(at::equal(samples, whole));
  }
}

TEST_CASE("the wrapper's guidance gives way where both passes differ much") {
  const auto negative = at::ones({1, 2, 1, 2, 2});
  // They differ by as much as the negative one is: the ratio is 1.
  const auto got = guided(negative * 2, negative, 3.0, {.raag = 0.7});
  const double scale = 1 + 2 * std::exp(-0.7);
  CHECK((got - (1 + scale)).abs().max().item<double>() < 1e-5);
}

TEST_CASE("the wrapper's LoRAs: over the loader and behind it the same, by step another strength") {
  WrapperApp tiny;
  auto factor = [](const char* name, std::vector<std::int64_t> shape) {
    return tiny_weight(name, shape);
  };
  const std::string layer = "blocks.1.self_attn.q";
  tiny.write_lora("style",
                  {{"diffusion_model." + layer + ".lora_A.weight", factor("a", {4, 256})},
                   {"diffusion_model." + layer + ".lora_B.weight", factor("b", {256, 4})}});
  tiny.write_lora("underscores",
                  {{"lora_unet__blocks_1_self_attn_q.lora_down.weight", factor("a", {4, 256})},
                   {"lora_unet__blocks_1_self_attn_q.lora_up.weight", factor("b", {256, 4})}});
  auto one = case_of("no guidance");
  auto plain = tiny.samples(prompt_of(one), {"run", 0});
  auto with = [&](const char* file, const Json& strength, bool loader) {
    auto prompt = prompt_of(one);
    prompt["lora"] = node("WanVideoLoraSelect", {{"lora", file}, {"strength", strength}});
    if (strength.is_array()) {
      prompt["list"] = node("TinyList", {{"numbers", strength.dump()}});
      prompt["lora"]["inputs"]["strength"] = {"list", 0};
    }
    if (loader) {
      prompt["model"]["inputs"]["lora"] = {"lora", 0};
    } else {
      prompt["set"] = node("WanVideoSetLoRAs", {{"model", {"model", 0}}, {"lora", {"lora", 0}}});
      prompt["run"]["inputs"]["model"] = {"set", 0};
    }
    return tiny.samples(prompt, {"run", 0});
  };
  auto styled = with("style.safetensors", 1.0, false);
  CHECK(difference(styled, plain) > 1e-3);
  CHECK(at::equal(with("style.safetensors", 1.0, true), styled));
  CHECK(at::equal(with("underscores.safetensors", 1.0, false), styled));
  CHECK(at::equal(with("style.safetensors", 0.0, false), plain));
  const Json list = {1.0, 1.0, 0.0, 0.0};
  auto half = with("style.safetensors", list, false);
  CHECK(difference(half, styled) > 1e-4);
  CHECK(difference(half, plain) > 1e-4);
}

TEST_CASE("the wrapper: a LoRA of a wider model is refused by both files") {
  WrapperApp tiny;
  tiny.write_lora("wide",
                  {{"diffusion_model.blocks.0.self_attn.q.lora_A.weight", at::randn({4, 512})},
                   {"diffusion_model.blocks.0.self_attn.q.lora_B.weight", at::randn({512, 4})}});
  auto prompt = prompt_of(case_of("no guidance"));
  prompt["lora"] = node("WanVideoLoraSelect", {{"lora", "wide.safetensors"}, {"strength", 1.0}});
  prompt["model"]["inputs"]["lora"] = {"lora", 0};
  auto error = tiny.error(prompt, {"run", 0});
  CHECK(contains(error, "wide.safetensors: fits nothing in wan_t2v.safetensors, which is Wan"));
}

TEST_CASE("the wrapper: what does not go together is refused in one sentence") {
  WrapperApp tiny;
  auto prompt = prompt_of(case_of("no guidance"));
  prompt["vae"] = node("WanVideoVAELoader", {{"model_name", "wan_vae22.safetensors"}});
  prompt["decode"] = node("WanVideoDecode", {{"vae", {"vae", 0}},
                                             {"samples", {"run", 0}},
                                             {"enable_vae_tiling", false},
                                             {"tile_x", 272},
                                             {"tile_y", 272},
                                             {"tile_stride_x", 144},
                                             {"tile_stride_y", 128}});
  auto error = tiny.error(prompt, {"decode", 0});
  CHECK(contains(error,
                 "wan_vae22.safetensors: decodes latents of 48 channels, and the samples "
                 "have 16"));
  CHECK(contains(error, "wan_2.1_vae"));
  prompt["decode"]["inputs"]["tile_stride_x"] = 272;
  CHECK(contains(tiny.error(prompt, {"decode", 0}), "tile_x is 272, which has to be more than"));

  auto picture = prompt_of(case_of("picture"));
  picture["model"]["inputs"]["model"] = "wan_t2v.safetensors";
  CHECK(contains(tiny.error(picture, {"run", 0}),
                 "wan_t2v.safetensors: makes videos from text alone"));
  auto blind = prompt_of(case_of("no guidance"));
  blind["model"]["inputs"]["model"] = "wan_i2v.safetensors";
  CHECK(contains(tiny.error(blind, {"run", 0}), "wan_i2v.safetensors: makes videos from pictures"));

  auto alone = prompt_of(case_of("enhance"));
  alone["text"]["inputs"]["negative"] = false;
  CHECK(contains(tiny.error(alone, {"run", 0}), "needs a negative prompt where 'cfg' is not 1"));
}

TEST_CASE("the wrapper: a picture encoded by the other VAE is refused by the model's file") {
  WrapperApp tiny;
  auto prompt = prompt_of(case_of("picture"));
  prompt["vae"] = node("WanVideoVAELoader", {{"model_name", "wan_vae22.safetensors"}});
  prompt["image"] = node("TinyVideo", {{"frames", 1}, {"height", 64}, {"width", 64}});
  prompt["size"] = node("WanVideoImageToVideoEncode", {{"width", 64},
                                                       {"height", 64},
                                                       {"num_frames", 9},
                                                       {"noise_aug_strength", 0.0},
                                                       {"start_latent_strength", 1.0},
                                                       {"end_latent_strength", 1.0},
                                                       {"force_offload", true},
                                                       {"vae", {"vae", 0}},
                                                       {"start_image", {"image", 0}}});
  auto error = tiny.error(prompt, {"run", 0});
  CHECK(contains(error,
                 "wan_i2v.safetensors: works on latents of 16 channels, and the pictures "
                 "were encoded to 48"));
}

TEST_CASE("the wrapper: lengths that are not 4n + 1 are told and cut") {
  WrapperApp tiny;
  auto prompt = prompt_of(case_of("no guidance"));
  prompt["size"] = node("WanVideoEmptyEmbeds", {{"width", 64}, {"height", 64}, {"num_frames", 9}});
  auto whole = tiny.samples(prompt, {"run", 0});
  prompt["size"]["inputs"]["num_frames"] = 11;
  Told told;
  CHECK(at::equal(tiny.samples(prompt, {"run", 0}), whole));
  CHECK(told.has("a video of 11 frames has 9 in its latent, as lengths are 4n + 1"));
}

TEST_CASE("the wrapper: pictures of a video as channels beside its latent") {
  WrapperApp tiny;
  Json prompt = {{"vae", node("WanVideoVAELoader", {{"model_name", "wan_vae.safetensors"}})},
                 {"first", node("TinyVideo", {{"frames", 1}, {"height", 64}, {"width", 80}})},
                 {"last", node("TinyVideo", {{"frames", 2}, {"height", 64}, {"width", 64}})}};
  prompt["encode"] = node("WanVideoImageToVideoEncode", {{"width", 80},
                                                         {"height", 64},
                                                         {"num_frames", 9},
                                                         {"noise_aug_strength", 0.0},
                                                         {"start_latent_strength", 0.5},
                                                         {"end_latent_strength", 1.0},
                                                         {"force_offload", true},
                                                         {"vae", {"vae", 0}},
                                                         {"start_image", {"first", 0}},
                                                         {"end_image", {"last", 0}}});
  auto whole = tiny.value_of(prompt, {"encode", 0}).as<ImageEmbeds>();
  CHECK(whole.latent.sizes() == at::IntArrayRef{16, 3, 8, 10});
  CHECK(whole.mask.sizes() == at::IntArrayRef{4, 3, 8, 10});
  auto frames = whole.mask.transpose(0, 1).flatten(0, 1).select(1, 0).select(1, 0);
  CHECK(
      at::equal(frames, at::tensor({1.F, 1.F, 1.F, 1.F, 0.F, 0.F, 0.F, 0.F, 0.F, 0.F, 1.F, 1.F})));
  // The first frame as VAEEncode and the model's scale have it.
  prompt["native"] = node("VAELoader", {{"vae_name", "wan_vae.safetensors"}});
  prompt["pixels"] = node("VAEEncode", {{"pixels", {"first", 0}}, {"vae", {"native", 0}}});
  prompt["scaled"] = node("WanVideoLatentReScale",
                          {{"samples", {"pixels", 0}}, {"direction", "comfy_to_wrapper"}});
  auto first = tiny.samples(prompt, {"scaled", 0}).select(0, 0);
  CHECK(difference(whole.latent.narrow(1, 0, 1), first * 0.5) < 1e-5);
  // An end of its own is one more latent frame.
  prompt["encode"]["inputs"]["fun_or_fl2v_model"] = false;
  auto apart = tiny.value_of(prompt, {"encode", 0}).as<ImageEmbeds>();
  CHECK(apart.latent.size(1) == 4);
  CHECK(apart.mask.size(1) == 4);
}

TEST_CASE("the wrapper: frames that VACE follows, with a picture before them") {
  WrapperApp tiny;
  Json prompt = {{"vae", node("WanVideoVAELoader", {{"model_name", "wan_vae.safetensors"}})},
                 {"video", node("TinyVideo", {{"frames", 9}, {"height", 32}, {"width", 48}})},
                 {"picture", node("TinyVideo", {{"frames", 1}, {"height", 32}, {"width", 48}})},
                 {"encode", node("WanVideoVACEEncode", {{"vae", {"vae", 0}},
                                                        {"width", 72},
                                                        {"height", 64},
                                                        {"num_frames", 9},
                                                        {"strength", 1.0},
                                                        {"vace_start_percent", 0.0},
                                                        {"vace_end_percent", 1.0},
                                                        {"input_frames", {"video", 0}},
                                                        {"ref_images", {"picture", 0}}})}};
  auto embeds = tiny.value_of(prompt, {"encode", 0}).as<ImageEmbeds>();
  REQUIRE(embeds.vace.size() == 1);
  const auto& context = embeds.vace.front().context;
  CHECK(context.sizes() == at::IntArrayRef{96, 4, 8, 8});
  CHECK(embeds.has_reference);
  // Everything behind the picture is made anew, and of the picture nothing.
  CHECK(at::equal(context.narrow(0, 32, 64).narrow(1, 1, 3), at::ones({64, 3, 8, 8})));
  CHECK(at::equal(context.narrow(0, 16, 80).narrow(1, 0, 1), at::zeros({80, 1, 8, 8})));
}

TEST_CASE("the wrapper: frames are what VAEDecode makes, whole and in tiles") {
  WrapperApp tiny;
  auto prompt = prompt_of(case_of("no guidance"));
  Json tiles = {{"samples", {"run", 0}}, {"enable_vae_tiling", false}, {"tile_x", 40},
                {"tile_y", 40},          {"tile_stride_x", 32},        {"tile_stride_y", 32}};
  prompt["vae"] = node("WanVideoVAELoader", {{"model_name", "wan_vae.safetensors"}});
  prompt["native"] = node("VAELoader", {{"vae_name", "wan_vae.safetensors"}});
  prompt["scaled"] =
      node("WanVideoLatentReScale", {{"samples", {"run", 0}}, {"direction", "wrapper_to_comfy"}});
  prompt["theirs"] = node("VAEDecode", {{"samples", {"scaled", 0}}, {"vae", {"native", 0}}});
  prompt["ours"] = node("WanVideoDecode", tiles);
  prompt["ours"]["inputs"]["vae"] = {"vae", 0};
  auto frames = tiny.value_of(prompt, {"ours", 0}).as<at::Tensor>();
  CHECK(frames.sizes() == at::IntArrayRef{kFrames, kHeight, kWidth, 3});
  CHECK(difference(frames, tiny.value_of(prompt, {"theirs", 0}).as<at::Tensor>()) < 1e-6);
  prompt["ours"]["inputs"]["enable_vae_tiling"] = true;
  auto tiled = tiny.value_of(prompt, {"ours", 0}).as<at::Tensor>();
  CHECK(tiled.sizes() == frames.sizes());
  CHECK((tiled - frames).abs().mean().item<double>() < 0.1);
  // Two tiles, cells 0 to 4 and 4 and 5, which share eight pixels.
  nodes::VaeCoding coding(tiny.value_of(prompt, {"native", 0}).as<nodes::Vae>(), tiny.app.engine);
  const auto latent = tiny.samples(prompt, {"scaled", 0});
  const auto left = coding.decode(latent.narrow(4, 0, 5).contiguous()),
             right = coding.decode(latent.narrow(4, 4, 2).contiguous());
  const auto rising = at::arange(1, 9, at::kFloat).view({1, 1, 8, 1});
  const auto seam = (left.narrow(2, 32, 8) * rising.flip(2) + right.narrow(2, 0, 8) * rising) / 9;
  const auto wanted = at::cat({left.narrow(2, 0, 32), seam, right.narrow(2, 8, 8)}, 2).clamp(0, 1);
  CHECK(difference(tiled, wanted) < 1e-5);
}

TEST_CASE("the wrapper reads prompts") {
  CHECK(split_prompts(" a cat | a dog|") == std::vector<std::string>{"a cat", "a dog", ""});
  auto weighted = without_weights("a (red:1.3) (big fat:0.5) cat (red:1.3) (here)");
  CHECK(weighted.text == "a red big fat cat red (here)");
  CHECK(weighted.weights == std::vector<double>{1.3, 0.5});
  CHECK(without_weights("(((((").text == "(((((");
  CHECK(cleaned_prompt("  a &amp;lt; b\n\tc\xef\xbc\x8c d\xe2\x80\x9d&#33; ") == "a < b c, d\"!");
}

TEST_CASE("the wrapper's list of scales") {
  WrapperApp tiny;
  auto scales = [&](Json inputs) {
    return tiny
        .value_of({{"list", node("CreateCFGScheduleFloatList", std::move(inputs))}}, {"list", 0})
        .as<Json>();
  };
  Json inputs = {{"steps", 6},           {"cfg_scale_start", 2.0},
                 {"cfg_scale_end", 2.0}, {"interpolation", "linear"},
                 {"start_percent", 0.0}, {"end_percent", 0.01}};
  CHECK(scales(inputs) == Json({2.0, 1.0, 1.0, 1.0, 1.0, 1.0}));
  inputs["cfg_scale_end"] = 6.0;
  inputs["end_percent"] = 1.0;
  CHECK(scales(inputs) == Json({2.0, 2.8, 3.6, 4.4, 5.2, 6.0}));
  inputs["interpolation"] = "ease_in";
  inputs["start_percent"] = 0.5;
  CHECK(scales(inputs) == Json({1.0, 1.0, 1.0, 2.0, 3.0, 6.0}));
}

TEST_CASE("windows of a long video cover all of its frames") {
  for (const char* schedule : {"uniform_standard", "uniform_looped", "static_standard"})
    for (std::int64_t frames : {3, 21, 25, 40, 61})
      for (std::int64_t step : {0, 1, 5}) {
        const ContextChoice choice{.schedule = schedule};
        std::set<std::int64_t> covered;
        for (const auto& window : windows_of(choice, step, frames)) {
          CHECK(static_cast<std::int64_t>(window.size()) <= 21);
          covered.insert(window.begin(), window.end());
        }
        CHECK(static_cast<std::int64_t>(covered.size()) == frames);
        CHECK(*covered.begin() == 0);
        CHECK(*covered.rbegin() == frames - 1);
      }
}

TEST_CASE("UMT5 under the names of Wan's own files") {
  TemporaryFolder folder("umt5_names");
  auto one = at::zeros({1});
  write_tensors(folder.path() / "umt5.safetensors",
                {{"token_embedding.weight", one},
                 {"norm.weight", one},
                 {"blocks.0.norm1.weight", one},
                 {"blocks.0.attn.k.weight", one},
                 {"blocks.0.ffn.gate.0.weight", one},
                 {"blocks.0.pos_embedding.embedding.weight", one},
                 {"blocks.1.pos_embedding.embedding.weight", one},
                 {"blocks.1.ffn.fc2.weight", one}});
  weights::Checkpoint file(std::make_shared<const formats::TensorFile>(
      formats::open_tensor_file(folder.path() / "umt5.safetensors")));
  auto part = models::t5::umt5_text_part(file);
  for (const char* name : {"shared.weight", "encoder.final_layer_norm.weight",
                           "encoder.block.0.layer.0.layer_norm.weight",
                           "encoder.block.0.layer.0.SelfAttention.k.weight",
                           "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
                           "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight",
                           "encoder.block.1.layer.1.DenseReluDense.wo.weight"})
    CHECK_MESSAGE(part.has(name), name);
}

TEST_CASE("widgets in the order that nodes once had") {
  auto now = graph::without_older_order;
  const Json resize = {1024, 1024, "nearest-exact", true, 16, 0, 0, "center"};
  CHECK(now("ImageResizeKJ", resize)["crop"] == "center");
  CHECK(now("ImageResizeKJ", {512, 512, "lanczos", false, 2, "disabled"}).is_array());
  const Json loader = {"a.safetensors", "bf16", "disabled", "cuda:0", "sageattn"};
  CHECK(now("WanVideoModelLoaderMultiGPU", loader)["compute_device"] == "cuda:0");
  const Json newer = {"a", "bf16", "disabled", "offload_device", "cuda:0", "sdpa", "default"};
  CHECK(now("WanVideoModelLoaderMultiGPU", newer) == newer);
  const Json swap = {5, "cuda:2", "cpu", false, true, false, 3};
  CHECK(now("WanVideoBlockSwapMultiGPU", swap)["swap_device"] == "cuda:2");
  CHECK(now("WanVideoBlockSwapMultiGPU", swap)["vace_blocks_to_swap"] == 3);
  const Json encode = {"cat", "dog", "cpu", true, false};
  CHECK(now("WanVideoTextEncodeMultiGPU", encode)["device"] == "cpu");
}

TEST_CASE("KJNodes: pictures in another size") {
  WrapperApp tiny;
  auto sized = [&](const char* how, std::int64_t width, std::int64_t height, std::int64_t by) {
    Json prompt = {{"image", node("TinyVideo", {{"frames", 1}, {"height", 96}, {"width", 128}})},
                   {"resize", node("ImageResizeKJv2", {{"image", {"image", 0}},
                                                       {"width", width},
                                                       {"height", height},
                                                       {"upscale_method", "lanczos"},
                                                       {"keep_proportion", how},
                                                       {"pad_color", "0, 255, 0"},
                                                       {"crop_position", "center"},
                                                       {"divisible_by", by}})},
                   {"count", node("GetImageSizeAndCount", {{"image", {"resize", 0}}})}};
    auto image = tiny.value_of(prompt, {"resize", 0}).as<at::Tensor>();
    CHECK(tiny.value_of(prompt, {"count", 1}).as<Json>() == image.size(2));
    CHECK(tiny.value_of(prompt, {"resize", 2}).as<Json>() == image.size(1));
    return image;
  };
  CHECK(sized("crop", 720, 720, 32).sizes() == at::IntArrayRef{1, 704, 704, 3});
  CHECK(sized("stretch", 50, 0, 2).sizes() == at::IntArrayRef{1, 96, 50, 3});
  CHECK(sized("resize", 64, 64, 2).sizes() == at::IntArrayRef{1, 48, 64, 3});
  auto padded = sized("pad", 64, 64, 2);
  CHECK(padded.sizes() == at::IntArrayRef{1, 64, 64, 3});
  CHECK(padded[0][0][0][1].item<float>() == 1);
  CHECK(padded[0][0][0][0].item<float>() == 0);
}
