#include "tools/make_random_model/kinds_hunyuan.h"

#include <nlohmann/json.hpp>

#include "distorch/models/clip_vision/vision_model.h"
#include "distorch/models/hunyuan_vae/autoencoder.h"
#include "distorch/models/hunyuan_vae15/autoencoder.h"
#include "distorch/models/hunyuan_video/transformer.h"
#include "distorch/models/qwen/text_model.h"
#include "distorch/models/t5/text_model.h"
#include "tools/make_random_model/llama_vocabulary.h"
#include "tools/make_random_model/shapes.h"

namespace distorch::random_model {
namespace {

constexpr std::int64_t kTinyWidth = 256;  // of the tiny language model and what goes with it

Shapes transformer(std::int64_t in_channels, Size size) {
  models::hunyuan_video::Config c;
  c.in_channels = in_channels;
  if (size != Size::Full) c.depth = c.single_depth = 2;
  if (size == Size::Tiny) {
    c.hidden = c.text_width = kTinyWidth;
    c.mlp = 2 * kTinyWidth;
  }
  models::hunyuan_video::Transformer model(c);
  return declared(model.manifest());
}

/// The tiny one goes with what is tiny of its text encoders: Qwen2.5-VL keeps its width.
Shapes transformer15(Size size) {
  models::hunyuan_video::Config c{.hidden = 2048,
                                  .mlp = 8192,
                                  .depth = size == Size::Full ? 54 : 2,
                                  .single_depth = 0,
                                  .in_channels = 65,
                                  .out_channels = 32,
                                  .text_width = 3584,
                                  .vector_width = 0,
                                  .guidance = false,
                                  .patch = 1,
                                  .vision_width = 1152,
                                  .glyph_width = 1472,
                                  .glyph_hidden = 2048,
                                  .glyph_out = 2048,
                                  .marked_kinds = true};
  if (size == Size::Tiny) {
    c.hidden = c.glyph_width = c.glyph_hidden = c.glyph_out = kTinyWidth;
    c.mlp = 2 * kTinyWidth;
  }
  models::hunyuan_video::Transformer model(c);
  return declared(model.manifest());
}

Shapes byt5(Size size) {
  models::t5::TextConfig c{
      .width = 1472, .inner = 384, .heads = 6, .layers = 12, .mlp_width = 3584, .vocabulary = 1510};
  if (size != Size::Full) c.layers = 2;
  if (size == Size::Tiny) c.width = c.mlp_width = kTinyWidth;
  models::t5::TextModel model(c);
  return declared(model.manifest());
}

Shapes video15_vae(Size size) {
  models::hunyuan_vae15::Config c;
  if (size == Size::Tiny) c.channels = {8, 16, 32, 64, 64};
  models::hunyuan_vae15::Autoencoder vae(c);
  return declared(vae.manifest());
}

Shapes llama(Size size) {
  models::qwen::TextConfig c{
      .width = 4096, .layers = 32, .mlp_width = 14336, .vocabulary = 128320, .head_norms = false};
  // HunyuanVideo takes the output of the third layer from the end.
  if (size != Size::Full) c.layers = 4;
  if (size == Size::Tiny) {
    c.width = kTinyWidth;
    c.heads = 2;
    c.key_heads = 1;
    c.mlp_width = kTinyWidth;
  }
  weights::Manifest manifest;
  models::qwen::TextModel model(manifest, c);
  return declared(manifest);
}

Shapes video_vae(Size size) {
  models::hunyuan_vae::Config c;
  if (size == Size::Tiny) c.channels = {32, 32, 64, 64};
  models::hunyuan_vae::Autoencoder vae(c);
  return declared(vae.manifest());
}

Shapes siglip_vision(Size size) {
  models::clip_vision::VisionConfig c;
  c.kind = models::clip_vision::VisionKind::SigLip;
  c.width = 1152;
  c.layers = size == Size::Full ? 27 : 2;
  c.mlp_width = size == Size::Tiny ? 64 : 4304;
  c.positions = 729;
  c.image_size = 384;
  c.projection = 0;
  models::clip_vision::VisionModel model(c);
  return declared(model.manifest());
}

Shapes llava_vision(Size size) {
  models::clip_vision::VisionConfig c;
  c.positions = 577;
  c.projection = 0;
  c.shown_width = size == Size::Tiny ? kTinyWidth : 4096;
  if (size == Size::Tiny) c.mlp_width = 64;
  models::clip_vision::VisionModel model(c);
  return declared(model.manifest());
}

/// Llama as the folder of HunyuanVideoWrapper has it: names without a prefix.
Shapes bare_llama(Size size) {
  const std::string prefix = "model.";
  auto shapes = llama(size);
  for (auto& shape : shapes) shape.name.erase(0, prefix.size());
  return shapes;
}

/// The whole LLaVA in one file: its language model and its vision half.
Shapes whole_llava(Size size) {
  auto shapes = llama(size);
  for (auto& shape : shapes) shape.name.insert(0, "language_model.");
  models::clip_vision::VisionConfig c;
  c.image_size = 336;
  c.positions = 577;
  c.projection = 0;
  c.shown_width = size == Size::Tiny ? kTinyWidth : 4096;
  if (size != Size::Full) c.layers = 3;
  if (size == Size::Tiny) {
    c.width = 128;
    c.mlp_width = 128;
  }
  models::clip_vision::VisionModel model(c);
  for (auto shape : declared(model.manifest())) {
    if (shape.name.starts_with("vision_model.")) shape.name.insert(0, "vision_tower.");
    shapes.push_back(std::move(shape));
  }
  return shapes;
}

/// The tokenizer beside them, of bytes.
std::map<std::string, std::string> tokenizer(Size) {
  nlohmann::json file = {{"model", {{"vocab", nlohmann::json::object()}}}};
  int id = 0;
  for (const auto& token : llama_vocabulary()) file["model"]["vocab"][token] = id++;
  return {{"tokenizer.json", file.dump()}};
}

}  // namespace

std::vector<Kind> hunyuan_kinds() {
  constexpr const char* folder = "diffusion_models";
  Kind words{"llama3-8b",
             "Llama 3 8B of LLaVA, a text encoder; a .gguf file has a tokenizer (bytes)",
             "text_encoders", "F16", llama};
  words.byte_pairs = llama_vocabulary;
  return {
      {"hunyuan-video", "HunyuanVideo text to video, the diffusion model", folder, "BF16",
       [](Size size) { return transformer(16, size); }},
      {"hunyuan-video-i2v", "HunyuanVideo picture to video (concat), the diffusion model", folder,
       "BF16", [](Size size) { return transformer(33, size); }},
      {"skyreels-i2v", "SkyReels picture to video, the diffusion model", folder, "BF16",
       [](Size size) { return transformer(32, size); }},
      std::move(words),
      {.name = "llava-words",
       .description = "Llama 3 8B of LLaVA in a folder with its tokenizer, for HunyuanVideoWrapper",
       .folder = "LLM",
       .dtype = "F16",
       .shapes = bare_llama,
       .beside = tokenizer},
      {.name = "llava",
       .description = "LLaVA Llama 3 8B in a folder with its tokenizer, for HunyuanVideoWrapper",
       .folder = "LLM",
       .dtype = "F16",
       .shapes = whole_llava,
       .beside = tokenizer},
      {"llava-vision", "the picture encoder of LLaVA Llama 3", "clip_vision", "F16", llava_vision},
      {"hunyuan-vae", "the autoencoder of HunyuanVideo", "vae", "BF16", video_vae},
      {"hunyuan-video-1.5", "HunyuanVideo 1.5, the diffusion model", folder, "F16", transformer15},
      {"byt5-small", "ByT5 small, the text encoder of words that a video shows", "text_encoders",
       "F16", byt5},
      {"siglip-vision", "SigLIP, the picture encoder of HunyuanVideo 1.5", "clip_vision", "F16",
       siglip_vision},
      {"hunyuan-vae-1.5", "the autoencoder of HunyuanVideo 1.5", "vae", "F16", video15_vae},
  };
}

}  // namespace distorch::random_model
