#include "tools/make_random_model/kinds_wan.h"

#include <fmt/format.h>

#include <string_view>

#include "distorch/models/audio/wav2vec2.h"
#include "distorch/models/causal_vae/autoencoder.h"
#include "distorch/models/clip_vision/vision_model.h"
#include "distorch/models/t5/text_model.h"
#include "distorch/models/wan/control_net.h"
#include "distorch/models/wan/speech.h"
#include "distorch/models/wan/transformer.h"
#include "distorch/models/wan/uni3c.h"
#include "tools/make_random_model/shapes.h"

namespace distorch::random_model {
namespace {

using models::causal_vae::Layer;
using models::wan::Config;
/// What differs from text to video.
struct Form {
  std::int64_t in_channels = 16;
  std::int64_t vision_width = 0;
  std::int64_t vace_layers = 0;
};

Config small_14b(Size size) {
  Config c;
  if (size != Size::Full) c.layers = 2;
  if (size == Size::Tiny) {
    c.width = 256;
    c.mlp_width = 512;
  }
  return c;
}

Config sized_1_3b(Size size) {
  Config c = small_14b(size);
  if (size != Size::Tiny) {
    c.width = 1536;
    c.mlp_width = 8960;
  }
  if (size == Size::Full) c.layers = 30;
  return c;
}

Shapes transformer(Config c, const Form& form) {
  c.in_channels = form.in_channels;
  c.vision_width = form.vision_width;
  if (form.vace_layers > 0) {
    c.vace_layers = std::min(form.vace_layers, c.layers);
    c.vace_channels = 96;
  }
  models::wan::Transformer model(c);
  return declared(model.manifest());
}

Shapes second_5b(Size size) {
  Config c = small_14b(size);
  if (size != Size::Tiny) {
    c.width = 3072;
    c.mlp_width = 14336;
  }
  if (size == Size::Full) c.layers = 30;
  c.in_channels = c.out_channels = 48;
  models::wan::Transformer model(c);
  return declared(model.manifest());
}

Shapes control_net(Size size) {
  const auto model_width = small_14b(size).width;
  models::wan::ControlNetConfig c;
  c.layers = sized_1_3b(size);
  c.layers.layers = size == Size::Full ? 8 : 2;
  c.layers.norm_before_text = false;
  c.encoder_widths = {3, 192, 96, 48};
  c.layers.in_channels = c.latent_channels + c.encoder_widths.back();
  c.model_width = model_width;
  models::wan::ControlNet model(c);
  return declared(model.manifest());
}

Shapes uni3c(Size size) {
  models::wan::Uni3CConfig c;
  c.patch_width = c.time_width = c.model_width = small_14b(size).width;
  if (size != Size::Full) c.layers = 2;
  if (size == Size::Tiny) {
    c.width = 128;
    c.mlp_width = 256;
  }
  models::wan::Uni3C model(c);
  return declared(model.manifest());
}

Shapes umt5(Size size) {
  models::t5::TextConfig config;
  config.bias_everywhere = true;
  config.vocabulary = size == Size::Full ? 256384 : 512;
  if (size != Size::Full) config.layers = 2;
  if (size == Size::Tiny) {
    config.inner = config.heads = 64;
    config.mlp_width = 128;
  }
  models::t5::TextModel model(config);
  return declared(model.manifest());
}

/// One field of a protocol buffer.
void add_bytes(std::string& to, int field, const std::string& bytes) {
  to += static_cast<char>(field << 3 | 2);
  to += static_cast<char>(bytes.size());
  to += bytes;
}

/// A SentencePiece model that spells every text letter by letter: what a text encoder's file brings
/// along. Its pieces: the padding, the end, what is not known, the beginning of a word, ASCII.
std::string letters() {
  constexpr int piece_text = 1, piece_kind = 3, unknown = 2, control = 3;
  std::string model;
  auto add = [&](const std::string& text, int kind) {
    std::string piece;
    add_bytes(piece, piece_text, text);
    if (kind != 0) {
      piece += static_cast<char>(piece_kind << 3);
      piece += static_cast<char>(kind);
    }
    add_bytes(model, 1, piece);
  };
  add("<pad>", control);
  add("</s>", control);
  add("<unk>", unknown);
  add("\u2581", 0);
  for (char letter = '!'; letter <= '~'; ++letter) add(std::string(1, letter), 0);
  return model;
}

/// Wan 2.2's own autoencoder.
Shapes second_vae(Size size) {
  const std::int64_t first = size == Size::Tiny ? 16 : 160, base = size == Size::Tiny ? 16 : 256;
  models::causal_vae::Config c;
  c.first = first;
  c.middle = 4 * base;
  c.latent_channels = 48;
  c.patch = 2;
  auto in = first;
  for (std::int64_t level = 0; level < 4; ++level) {
    const auto out = first * std::min<std::int64_t>(4, 1 << level);
    const bool resizes = level < 3, time = resizes && level > 0;
    c.down.push_back({.in = in, .out = out});
    c.down.push_back({.in = out, .out = out});
    if (resizes)
      c.down.push_back({.kind = Layer::Kind::Resample, .in = out, .out = out, .time = time});
    c.down_groups.push_back({resizes ? 3 : 2, in, out, time ? 2 : 1, resizes ? 2 : 1, true});
    in = out;
  }
  in = c.middle;
  for (std::int64_t level = 0; level < 4; ++level) {
    const auto out = level == 0 ? in : base * (4 >> (level - 1));
    const bool resizes = level < 3, time = level < 2;
    c.up.push_back({.in = in, .out = out});
    c.up.push_back({.in = out, .out = out});
    c.up.push_back({.in = out, .out = out});
    if (resizes)
      c.up.push_back({.kind = Layer::Kind::Resample, .in = out, .out = out, .time = time});
    c.up_groups.push_back({resizes ? 4 : 3, in, out, time ? 2 : 1, resizes ? 2 : 1, resizes});
    in = out;
  }
  models::causal_vae::CausalAutoencoder vae(c);
  return declared(vae.manifest());
}

/// A LoRA of the layers' matrices (4-step LoRAs are such).
Shapes lora_14b(Size size) {
  const std::int64_t rank = size == Size::Full ? 64 : 4;
  Shapes shapes;
  for (const auto& weight : transformer(small_14b(size), {})) {
    constexpr std::string_view ending = ".weight";
    if (!weight.name.starts_with("blocks.") || weight.dims.size() != 2) continue;
    const auto layer =
        "diffusion_model." + weight.name.substr(0, weight.name.size() - ending.size());
    shapes.push_back({layer + ".lora_down.weight", {rank, weight.dims[1]}});
    shapes.push_back({layer + ".lora_up.weight", {weight.dims[0], rank}});
  }
  return shapes;
}

/// Loaders know it by its number of layers.
Shapes clip_vision_h(Size size) {
  models::clip_vision::VisionConfig c;
  c.kind = models::clip_vision::VisionKind::ClipH;
  c.width = 1280;
  c.layers = 32;
  c.mlp_width = size == Size::Tiny ? 64 : 5120;
  c.projection = 1024;
  models::clip_vision::VisionModel model(c);
  return declared(model.manifest());
}

Shapes wav2vec2(Size size) {
  models::audio::Wav2Vec2Config c;
  if (size != Size::Full) c.layers = 2;
  if (size == Size::Tiny) c.mlp_width = 64;
  models::audio::Wav2Vec2 model(c);
  return declared(model.manifest());
}

Shapes wav2vec2_base(Size size) {
  models::audio::Wav2Vec2Config c;
  c.large = c.conv_bias = false;
  c.width = 768;
  c.mlp_width = size == Size::Tiny ? 64 : 3072;
  c.layers = size == Size::Full ? 12 : 2;
  models::audio::Wav2Vec2 model(c);
  return declared(model.manifest(), "wav2vec2.");
}

std::map<std::string, std::string> settings_of_base(Size) {
  return {{"config.json", "{\"model_type\": \"wav2vec2\", \"num_attention_heads\": 12}\n"},
          {"preprocessor_config.json", "{\"do_normalize\": true}\n"}};
}

/// FantasyTalking's layers for small_14b().
Shapes speech(Size size) {
  const auto model = small_14b(size);
  const models::wan::SpeechConfig c;
  models::wan::SpeechProjection projection(c);
  auto shapes = declared(projection.manifest());
  for (std::int64_t i = 0; i < model.layers; ++i)
    for (const char* part : {"k", "v"})
      shapes.push_back(
          {fmt::format("blocks.{}.cross_attn.{}_proj.weight", i, part), {model.width, c.width}});
  return shapes;
}

}  // namespace

std::vector<Kind> wan_kinds() {
  constexpr const char* folder = "diffusion_models";
  return {
      {"wan-t2v-1.3b", "Wan 2.1 text to video 1.3B, the diffusion model", folder, "F16",
       [](Size size) { return transformer(sized_1_3b(size), {}); }},
      {"wan-t2v-14b", "Wan 2.1 or 2.2 text to video 14B, the diffusion model", folder, "F16",
       [](Size size) { return transformer(small_14b(size), {}); }},
      {"wan-i2v-14b", "Wan 2.1 picture to video 14B, the diffusion model", folder, "F16",
       [](Size size) {
         return transformer(small_14b(size), {.in_channels = 36, .vision_width = 1280});
       }},
      {"wan2.2-i2v-14b", "Wan 2.2 picture to video 14B, the diffusion model", folder, "F16",
       [](Size size) { return transformer(small_14b(size), {.in_channels = 36}); }},
      {"wan2.2-ti2v-5b", "Wan 2.2 text and picture to video 5B, the diffusion model", folder, "F16",
       second_5b},
      {"wan-vace-1.3b", "Wan 2.1 VACE 1.3B, the diffusion model", folder, "F16",
       [](Size size) { return transformer(sized_1_3b(size), {.vace_layers = 15}); }},
      {"wan-vace-14b", "Wan 2.1 VACE 14B, the diffusion model", folder, "F16",
       [](Size size) { return transformer(small_14b(size), {.vace_layers = 8}); }},
      {"wan-control-14b", "a ControlNet of Wan 2.1 14B for the wrapper's nodes", "controlnet",
       "F16", control_net},
      {"wan-uni3c-14b", "Uni3C, a control network of Wan 2.1 14B", "controlnet", "F16", uni3c},
      {"umt5-xxl", "UMT5-XXL, a text encoder with its tokenizer (letters)", "text_encoders", "F16",
       umt5, letters},
      {"wan-lora-14b", "a LoRA of Wan 14B, text or picture to video", "loras", "BF16", lora_14b},
      {"clip-vision-h", "CLIP ViT-H, the picture encoder of Wan 2.1", "clip_vision", "F16",
       clip_vision_h},
      {"wav2vec2-large", "wav2vec 2.0 large, the audio encoder of Wan 2.2 S2V", "audio_encoders",
       "F16", wav2vec2},
      {.name = "wav2vec2-base",
       .description =
           "wav2vec 2.0 base, the audio encoder of FantasyTalking, with its folder's files",
       .folder = "transformers",
       .dtype = "F32",
       .shapes = wav2vec2_base,
       .beside = settings_of_base},
      {"wav2vec2-base-file", "the same as a file alone", "wav2vec2", "F16", wav2vec2_base},
      {"fantasytalking", "FantasyTalking's layers for Wan 14B", folder, "F16", speech},
      {"wan2.2-vae", "the autoencoder of Wan 2.2 5B", "vae", "F16", second_vae},
  };
}

}  // namespace distorch::random_model
