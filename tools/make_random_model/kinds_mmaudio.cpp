#include "tools/make_random_model/kinds_mmaudio.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "distorch/models/mmaudio/network.h"
#include "distorch/models/mmaudio/sound.h"
#include "distorch/models/mmaudio/synchformer.h"
#include "tools/make_random_model/shapes.h"

namespace distorch::random_model {
namespace {

namespace mmaudio = models::mmaudio;

// Of the tiny files, which go together; a head has 64 numbers.
constexpr std::int64_t kTinyWidth = 64, kTinyJoint = 32, kTinyNetwork = 128;

Shapes network(Size size) {
  mmaudio::Config c;
  // The last block in which all attend together has less than those before it.
  if (size != Size::Full) c.joint = c.fused = 2;
  if (size == Size::Tiny) {
    c.width = c.frequencies = c.sync = kTinyNetwork;
    c.heads = 2;
    c.mlp_width = 512;
    c.clip = kTinyJoint;
    c.text = kTinyWidth;
  }
  mmaudio::Network model(c);
  return declared(model.manifest());
}

Shapes synchformer(Size size) {
  mmaudio::SynchformerConfig c;
  if (size != Size::Full) c.layers = 2;
  if (size == Size::Tiny) {
    c.width = kTinyNetwork;
    c.heads = 2;
    c.mlp_width = 512;
  }
  mmaudio::Synchformer model(c);
  return declared(model.manifest(), "vfeat_extractor.");
}

/// The decoder alone; the encoder of the published file is not used.
Shapes spectrograms(Size size) {
  mmaudio::MelConfig c;
  if (size == Size::Tiny) c.width = kTinyWidth;
  constexpr std::int64_t blocks = 3;
  c.levels = {{c.width / 4, blocks, false}, {c.width / 2, blocks, true}, {c.width, blocks, false}};
  mmaudio::MelDecoder model(c);
  return declared(model.manifest());
}

/// As torch's older weight norm names a direction and a length.
Shapes vocoder(Size size) {
  mmaudio::VocoderConfig c;
  if (size == Size::Tiny) c.width = kTinyWidth;
  c.steps = {{8, 16}, {4, 8}, {2, 4}, {2, 4}, {2, 4}, {2, 4}};
  for (std::int64_t kernel : {3, 7, 11}) c.kernels.push_back({kernel});
  c.tanh_at_end = c.bias_at_end = false;
  mmaudio::Vocoder model(c);
  auto shapes = declared(model.manifest(), "generator.");
  for (auto& shape : shapes)
    for (auto [newer, older] : {std::pair("parametrizations.weight.original0", "weight_g"),
                                std::pair("parametrizations.weight.original1", "weight_v")})
      if (shape.name.ends_with(newer))
        shape.name.replace(shape.name.find(newer), std::string(newer).size(), older);
  return shapes;
}

std::map<std::string, std::string> vocoder_settings(Size) {
  const std::vector<std::int64_t> near = {1, 3, 5};
  const nlohmann::json config = {{"resblock", "1"},
                                 {"upsample_rates", {8, 4, 2, 2, 2, 2}},
                                 {"resblock_dilation_sizes", {near, near, near}},
                                 {"activation", "snakebeta"},
                                 {"snake_logscale", true},
                                 {"use_tanh_at_final", false},
                                 {"use_bias_at_final", false},
                                 {"num_mels", 128},
                                 {"hop_size", 512},
                                 {"sampling_rate", 44100}};
  return {{"config.json", config.dump(1) + "\n"}};
}

/// One of CLIP's towers under OpenCLIP's names.
Shapes tower(const std::string& prefix, std::int64_t width, std::int64_t layers) {
  Shapes shapes;
  for (std::int64_t i = 0; i < layers; ++i) {
    const auto at = fmt::format("{}transformer.resblocks.{}.", prefix, i);
    for (const char* norm : {"ln_1", "ln_2"})
      for (const char* end : {"weight", "bias"})
        shapes.push_back({fmt::format("{}{}.{}", at, norm, end), {width}});
    for (auto [name, out, in] :
         {std::tuple("attn.in_proj_", 3 * width, width), std::tuple("attn.out_proj.", width, width),
          std::tuple("mlp.c_fc.", 4 * width, width), std::tuple("mlp.c_proj.", width, 4 * width)}) {
      shapes.push_back({at + name + "weight", {out, in}});
      shapes.push_back({at + name + "bias", {out}});
    }
  }
  return shapes;
}

/// DFN5B ViT-H-14 for pictures of 378 pixels, both halves. Tokens of the tiny one are 63 pixels wide:
/// there are fewer.
Shapes clip(Size size) {
  const bool tiny = size == Size::Tiny;
  const std::int64_t seen = tiny ? kTinyWidth : 1280, read = tiny ? kTinyWidth : 1024;
  const std::int64_t joint = tiny ? kTinyJoint : 1024, patch = tiny ? 63 : 14;
  const std::int64_t places = 378 / patch * (378 / patch) + 1, words = 49408, length = 77;
  Shapes shapes = {{"positional_embedding", {length, read}},
                   {"text_projection", {read, joint}},
                   {"logit_scale", {}},
                   {"token_embedding.weight", {words, read}},
                   {"ln_final.weight", {read}},
                   {"ln_final.bias", {read}},
                   {"visual.class_embedding", {seen}},
                   {"visual.positional_embedding", {places, seen}},
                   {"visual.proj", {seen, joint}},
                   {"visual.conv1.weight", {seen, 3, patch, patch}}};
  for (const char* norm : {"visual.ln_pre", "visual.ln_post"})
    for (const char* end : {".weight", ".bias"})
      shapes.push_back({std::string(norm) + end, {seen}});
  const bool full = size == Size::Full;
  return shapes + tower("visual.", seen, full ? 32 : 2) + tower("", read, full ? 24 : 2);
}

}  // namespace

std::vector<Kind> mmaudio_kinds() {
  constexpr const char* folder = "mmaudio";
  return {
      {"mmaudio-large-44k", "MMAudio large for 44.1 kHz, version 2, the network", folder, "F16",
       network},
      {"mmaudio-vae-44k", "the spectrogram decoder of MMAudio for 44.1 kHz", folder, "F16",
       spectrograms},
      {"mmaudio-synchformer", "Synchformer, which sees when something happens", folder, "F16",
       synchformer},
      {"mmaudio-clip", "CLIP DFN5B ViT-H-14 with both halves, for MMAudio", folder, "F16", clip},
      {.name = "bigvgan-44k",
       .description = "BigVGAN v2 for 44.1 kHz with its config.json (tensors as safetensors)",
       .folder = folder,
       .dtype = "F32",
       .shapes = vocoder,
       .beside = vocoder_settings},
  };
}

}  // namespace distorch::random_model
