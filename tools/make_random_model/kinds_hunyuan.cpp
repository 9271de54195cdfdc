#include "tools/make_random_model/kinds_hunyuan.h"

#include "distorch/models/clip_vision/vision_model.h"
#include "distorch/models/hunyuan_vae/autoencoder.h"
#include "distorch/models/hunyuan_video/transformer.h"
#include "distorch/models/qwen/text_model.h"
#include "tools/make_random_model/llama_vocabulary.h"

namespace distorch::random_model {
namespace {

using Shapes = std::vector<Shape>;

constexpr std::int64_t kTinyWidth = 256;  // of the tiny language model and what goes with it

Shapes declared(const weights::Manifest& manifest) {
  Shapes shapes;
  for (const auto& weight : manifest.weights()) shapes.push_back({weight.name, weight.shape});
  return shapes;
}

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

Shapes llava_vision(Size size) {
  models::clip_vision::VisionConfig c;
  c.positions = 577;
  c.projection = 0;
  c.shown_width = size == Size::Tiny ? kTinyWidth : 4096;
  if (size == Size::Tiny) c.mlp_width = 64;
  models::clip_vision::VisionModel model(c);
  return declared(model.manifest());
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
      {"llava-vision", "the picture encoder of LLaVA Llama 3", "clip_vision", "F16", llava_vision},
      {"hunyuan-vae", "the autoencoder of HunyuanVideo", "vae", "BF16", video_vae},
  };
}

}  // namespace distorch::random_model
