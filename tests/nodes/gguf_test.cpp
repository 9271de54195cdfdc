// GGUF files through the nodes: they give what the numbers that they stand for give.
#include <doctest/doctest.h>

#include "distorch/streaming/contents.h"
#include "tests/nodes/simulated.h"
#include "tests/nodes/tiny_flux.h"
#include "tests/nodes/tiny_gguf.h"
#include "tools/make_random_model/gguf_spellings.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;
using graph::Value;

namespace {

fs::path model_folder(const std::string& type) {
  auto folder = tiny_models() / type;
  fs::create_directories(folder);
  return folder;
}

/// unet/TYPE.gguf and what it stands for, rounded to `through`, unet/TYPE.safetensors: SD 1.5's UNet.
std::string write_unet(const char* type, std::optional<at::ScalarType> through = {}) {
  auto numbers = write_tiny_gguf(
      model_folder("unet") / (std::string(type) + ".gguf"),
      tiny_part({"unet_sd1"}, "model.diffusion_model."), type, "sd1",
      [](std::string name) { return name; }, through);
  write_tensors(model_folder("unet") / (std::string(type) + ".safetensors"), numbers);
  return type;
}

Json prompt_of(const Json& loader) {
  auto prompt = sampling_prompt();
  prompt["9"] = loader;
  prompt["5"]["inputs"]["model"] = {"9", 0};
  return prompt;
}

Json plain_loader(const std::string& name) {
  return node("UNETLoader", {{"unet_name", name + ".safetensors"}, {"weight_dtype", "default"}});
}

Json gguf_loader(const std::string& name, const std::string& variant = "", Json more = {}) {
  Json inputs = {{"unet_name", name + ".gguf"}};
  if (!more.is_null()) inputs.update(more);
  return node("UnetLoaderGGUF" + variant, inputs);
}

at::Tensor latent_of(TinyApp& tiny, const Json& prompt) {
  return tiny.value_of(prompt, {"5", 0}).as<sampling::Latent>().samples;
}

/// What a prompt that is to fail says; "" where it does not.
std::string error_of(TinyApp& tiny, Json prompt) {
  prompt["keep"] = node("Keep", {{"value", {"5", 0}}});
  auto result = tiny.run(prompt);
  return result.validation.clean() ? result.error : result.validation.lines().at(0);
}

Json advanced(const char* dequant) {
  return {{"dequant_dtype", dequant}, {"patch_dtype", "default"}, {"patch_on_device", false}};
}

}  // namespace

TEST_CASE("gguf: a UNet in blocks of several types gives the picture of its numbers") {
  TinyApp tiny;
  for (const char* type : {"Q8_0", "Q4_0", "Q4_K"}) {
    CAPTURE(type);
    auto name = write_unet(type);
    auto wanted = latent_of(tiny, prompt_of(plain_loader(name)));
    CHECK(difference(latent_of(tiny, prompt_of(gguf_loader(name))), wanted) < 1e-5);
    // UNETLoader reads it too.
    auto other = node("UNETLoader", {{"unet_name", name + ".gguf"}, {"weight_dtype", "default"}});
    CHECK(difference(latent_of(tiny, prompt_of(other)), wanted) < 1e-5);
  }
}

TEST_CASE("gguf: dequant_dtype rounds the numbers on their way") {
  TinyApp tiny;
  const std::vector<std::pair<const char*, at::ScalarType>> names = {{"default", at::kHalf},
                                                                     {"float16", at::kHalf},
                                                                     {"target", at::kFloat},
                                                                     {"float32", at::kFloat},
                                                                     {"bfloat16", at::kBFloat16}};
  std::map<at::ScalarType, at::Tensor> latents;
  for (const auto& [dequant, dtype] : names) {
    CAPTURE(dequant);
    auto name = write_unet("Q8_0", dtype);
    auto got = latent_of(tiny, prompt_of(gguf_loader(name, "Advanced", advanced(dequant))));
    CHECK(difference(got, latent_of(tiny, prompt_of(plain_loader(name)))) < 1e-5);
    auto& first = latents.try_emplace(dtype, got).first->second;
    CHECK(at::equal(got, first));
  }
  CHECK_FALSE(at::equal(latents[at::kHalf], latents[at::kFloat]));
  CHECK_FALSE(at::equal(latents[at::kBFloat16], latents[at::kFloat]));
}

TEST_CASE("gguf: resident, streamed and spread over devices it gives the same bits") {
  auto name = write_unet("Q4_0");
  auto options = simulated();
  TinyApp tiny(options);
  auto whole = latent_of(tiny, prompt_of(gguf_loader(name, "MultiGPU", {{"device", "sim:0"}})));
  auto model =
      tiny.value_of(prompt_of(gguf_loader(name, "MultiGPU", {{"device", "sim:0"}})), {"9", 0})
          .as<nodes::Model>();
  const auto& weights = *model.loaded->weights;
  CHECK(weights.loaded());
  // It rests packed: no more than the file, and what conversion makes of the plain tensors.
  auto rounding = static_cast<std::int64_t>(weights.block_count()) * 4096;
  CHECK(weights.device_bytes("sim:0") <= weights.total_file_bytes() + rounding);
  const Json spread = {{"compute_device", "sim:0"},
                       {"virtual_vram_gb", 0.0},
                       {"donor_device", "cpu"},
                       {"expert_mode_allocations", "sim:0,10%;sim:1,30%;cpu,60%"},
                       {"eject_models", true}};
  CHECK(
      at::equal(latent_of(tiny, prompt_of(gguf_loader(name, "DisTorch2MultiGPU", spread))), whole));
  for (bool others : {false, true}) {
    const Json old = {{"device", "sim:0"},
                      {"virtual_vram_gb", 1.0},
                      {"use_other_vram", others},
                      {"expert_mode_allocations", ""}};
    CHECK(at::equal(latent_of(tiny, prompt_of(gguf_loader(name, "DisTorchMultiGPU", old))), whole));
  }
}

TEST_CASE("gguf: LoRAs are applied beside packed weights") {
  auto name = write_unet("Q8_0");
  TinyApp tiny;
  auto with_lora = [&](const Json& loader) {
    auto prompt = prompt_of(loader);
    prompt["10"] =
        node("LoraLoaderModelOnly",
             {{"model", {"9", 0}}, {"lora_name", "kohya.safetensors"}, {"strength_model", 0.7}});
    prompt["5"]["inputs"]["model"] = {"10", 0};
    return latent_of(tiny, prompt);
  };
  auto wanted = with_lora(plain_loader(name));
  auto got = with_lora(gguf_loader(name));
  CHECK(difference(got, wanted) < 1e-5);
  CHECK(difference(got, latent_of(tiny, prompt_of(gguf_loader(name)))) > 1e-3);
}

TEST_CASE("gguf: FLUX gives the picture of its numbers") {
  auto numbers = write_tiny_gguf(model_folder("unet") / "flux.gguf", tiny_tensors({"flux_dev"}),
                                 "Q4_0", "flux");
  write_tensors(model_folder("unet") / "flux.safetensors", numbers);
  TinyFluxApp tiny("gguf_flux");
  auto one = workflow_case("nodes_flux", "guidance");
  one["workflow"]["1"] = plain_loader("flux");
  auto wanted = tiny.latent(one);
  one["workflow"]["1"] = gguf_loader("flux");
  CHECK(difference(tiny.latent(one), wanted) < 1e-5);
}

namespace {

using random_model::Replacements;

/// text_encoders/NAME.gguf under llama.cpp's names, and NAME_numbers.safetensors.
void write_text(const std::string& name, const std::string& dump, const std::string& part,
                const std::string& architecture, const Replacements& replacements) {
  auto numbers = write_tiny_gguf(
      model_folder("text_encoders") / (name + ".gguf"),
      tiny_part({dump}, "text_encoders." + part + ".transformer."), "Q8_0", architecture,
      [&](const std::string& ours) { return random_model::spelled(ours, replacements); });
  write_tensors(model_folder("text_encoders") / (name + "_numbers.safetensors"), numbers);
}

at::Tensor encoded(TinyApp& tiny, const Json& loader) {
  Json prompt = {{"1", loader},
                 {"2", node("CLIPTextEncode", {{"text", "a red fox"}, {"clip", {"1", 0}}})}};
  return tiny.value_of(prompt, {"2", 0}).as<sampling::Conditioning>().at(0).cross_attn;
}

}  // namespace

TEST_CASE("gguf: text encoders under llama.cpp's names give what their numbers give") {
  write_text("t5", "text_flux", "t5xxl", "t5encoder", random_model::kT5);
  write_text("qwen3", "text_qwen3", "qwen3_4b", "qwen3", random_model::kQwen);
  write_text("qwen25", "text_qwen25", "qwen25_7b", "qwen2vl", random_model::kQwen);
  write_tensors(model_folder("text_encoders") / "l.safetensors",
                tiny_part({"text_flux"}, "text_encoders.clip_l.transformer."));
  TinyApp tiny;
  auto two = [](const std::string& loader, const std::string& t5) {
    return node(loader, {{"clip_name1", "l.safetensors"}, {"clip_name2", t5}, {"type", "flux"}});
  };
  CHECK(difference(encoded(tiny, two("DualCLIPLoaderGGUF", "t5.gguf")),
                   encoded(tiny, two("DualCLIPLoader", "t5_numbers.safetensors"))) < 1e-5);
  auto one = [](const std::string& loader, const std::string& file, const std::string& type) {
    return node(loader, {{"clip_name", file}, {"type", type}});
  };
  CHECK(difference(encoded(tiny, one("CLIPLoaderGGUF", "qwen3.gguf", "lumina2")),
                   encoded(tiny, one("CLIPLoader", "qwen3_numbers.safetensors", "lumina2"))) <
        1e-5);
  CHECK(difference(encoded(tiny, one("CLIPLoaderGGUF", "qwen25.gguf", "qwen_image")),
                   encoded(tiny, one("CLIPLoader", "qwen25_numbers.safetensors", "qwen_image"))) <
        1e-5);
}

namespace {

const std::vector<std::string> kParts = {"attn_q.", "attn_k.", "attn_v."};
const std::string kFused = "attn.qkv.";

/// The name of one of queries, keys and values where they lie apart; "" for another tensor's.
std::string part_name(const std::string& fused, const std::string& part) {
  const auto at = fused.find(kFused);
  if (at == std::string::npos) return {};
  return fused.substr(0, at) + part + fused.substr(at + kFused.size());
}

/// A vision tower as mmproj files have it: queries, keys and values apart, and the frames of patches.
TensorMap in_pieces(const TensorMap& tower) {
  TensorMap pieces;
  for (const auto& [name, value] : tower) {
    if (value.dim() == 5) {
      pieces[name] = value.select(2, 0);
      pieces[name + ".1"] = value.select(2, 1);
    } else if (part_name(name, "").empty()) {
      pieces[name] = value;
    } else {
      for (int i = 0; const auto& part : kParts)
        pieces[part_name(name, part)] = value.chunk(3)[i++];
    }
  }
  return pieces;
}

/// The tensors of `tower` from the numbers of its pieces. Matrices of queries, keys and values, which are
/// blocks, are rounded to bfloat16.
TensorMap from_pieces(const TensorMap& tower, const TensorMap& pieces) {
  TensorMap whole;
  for (const auto& [name, value] : tower) {
    if (value.dim() == 5) {
      whole[name] = at::stack({pieces.at(name), pieces.at(name + ".1")}, 2);
    } else if (part_name(name, "").empty()) {
      whole[name] = pieces.at(name);
    } else {
      std::vector<at::Tensor> parts;
      for (const auto& part : kParts) parts.push_back(pieces.at(part_name(name, part)));
      whole[name] = at::cat(parts);
      if (value.dim() == 2) whole[name] = whole[name].to(at::kBFloat16).to(at::kFloat);
    }
  }
  return whole;
}

const Replacements kVision = {{"visual.merger.mlp.", "mm."},
                              {"visual.merger.ln_q.", "v.post_ln."},
                              {"visual.patch_embed.proj", "v.patch_embd"},
                              {"visual.blocks.", "v.blk."},
                              {"mlp.up_proj", "ffn_up"},
                              {"mlp.down_proj", "ffn_down"},
                              {"mlp.gate_proj", "ffn_gate"},
                              {"attn.proj.", "attn_out."},
                              {"norm1.", "ln1."},
                              {"norm2.", "ln2."}};

Json seeing_prompt(const std::string& loader, const std::string& file) {
  return {
      {"1", node(loader, {{"clip_name", file}, {"type", "qwen_image"}})},
      {"2", node("TextEncodeQwenImageEditPlus",
                 {{"clip", {"1", 0}}, {"prompt", "go"}, {"image1", {"3", 0}}})},
      {"3", node("EmptyImage", {{"width", 96}, {"height", 64}, {"batch_size", 1}, {"color", 77}})}};
}

}  // namespace

TEST_CASE("gguf: Qwen2.5-VL sees with the tower that lies in an mmproj file beside it") {
  const auto folder = model_folder("text_encoders");
  TensorMap words, tower;
  for (const auto& [name, value] :
       tiny_part({"text_qwen25"}, "text_encoders.qwen25_7b.transformer."))
    (name.starts_with("visual.") ? tower : words)[name] = value;
  auto numbers = write_tiny_gguf(
      folder / "Seeing-7B-Q8_0.gguf", words, "Q8_0", "qwen2vl",
      [](const std::string& ours) { return random_model::spelled(ours, random_model::kQwen); });
  TinyApp tiny;
  // Without the file it cannot see; one that comes later is found.
  auto blind = seeing_prompt("CLIPLoaderGGUF", "Seeing-7B-Q8_0.gguf");
  blind["keep"] = node("Keep", {{"value", {"2", 0}}});
  CHECK(tiny.run(blind).error.find("put the 'mmproj' file beside") != std::string::npos);

  const auto pieces =
      write_tiny_gguf(folder / "seeing-7b-mmproj-q8_0.gguf", in_pieces(tower), "Q8_0", "clip",
                      [](const std::string& ours) { return random_model::spelled(ours, kVision); });
  numbers.merge(from_pieces(tower, pieces));
  write_tensors(folder / "seeing_numbers.safetensors", numbers);
  auto states = [&](const std::string& loader, const std::string& file) {
    return tiny.value_of(seeing_prompt(loader, file), {"2", 0})
        .as<sampling::Conditioning>()
        .at(0)
        .cross_attn;
  };
  CHECK(difference(states("CLIPLoaderGGUF", "Seeing-7B-Q8_0.gguf"),
                   states("CLIPLoader", "seeing_numbers.safetensors")) < 1e-5);
}

TEST_CASE("gguf: a file of several, one that holds another model, and one that is not there") {
  auto part = tiny_part({"unet_sd1"}, "model.diffusion_model.");
  TensorMap first, second;
  for (const auto& [name, value] : part) (first.size() < 300 ? first : second)[name] = value;
  write_tiny_gguf(model_folder("unet") / "two-00001-of-00002.gguf", first, "Q8_0", "sd1");
  TinyApp tiny;
  auto split = gguf_loader("two-00001-of-00002");
  CHECK(error_of(tiny, prompt_of(split)).find("one of 2 files of a model") != std::string::npos);
  write_tiny_gguf(model_folder("unet") / "two-00002-of-00002.gguf", second, "Q8_0", "sd1");
  CHECK(at::equal(latent_of(tiny, prompt_of(split)),
                  latent_of(tiny, prompt_of(gguf_loader(write_unet("Q8_0"))))));

  write_text("t5", "text_flux", "t5xxl", "t5encoder", random_model::kT5);
  fs::copy_file(model_folder("text_encoders") / "t5.gguf", model_folder("unet") / "encoder.gguf",
                fs::copy_options::overwrite_existing);
  auto wrong = error_of(tiny, prompt_of(gguf_loader("encoder")));
  CHECK(wrong.find("it holds the text encoder T5") != std::string::npos);
  auto absent = error_of(tiny, prompt_of(gguf_loader("nothing")));
  CHECK(absent.find("nothing.gguf") != std::string::npos);
}

TEST_CASE("gguf: the loaders list GGUF files, those of text encoders the others too") {
  model_folder("unet");
  write_unet("Q8_0");
  write_text("t5", "text_flux", "t5xxl", "t5encoder", random_model::kT5);
  TinyApp tiny;
  for (const auto& name : tiny.app.folders.list("unet_gguf")) CHECK(name.ends_with(".gguf"));
  auto unets = graph::definition_of(tiny.catalog.get("UnetLoaderGGUF"));
  auto names = unets["input"]["required"]["unet_name"][0].get<std::vector<std::string>>();
  CHECK(std::ranges::count(names, "Q8_0.gguf") == 1);
  CHECK(std::ranges::count(names, "Q8_0.safetensors") == 0);
  auto texts = graph::definition_of(tiny.catalog.get("CLIPLoaderGGUF"));
  names = texts["input"]["required"]["clip_name"][0].get<std::vector<std::string>>();
  CHECK(std::ranges::count(names, "t5.gguf") == 1);
  CHECK(std::ranges::count(names, "t5_numbers.safetensors") == 1);
}
