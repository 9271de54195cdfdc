#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/clip/text_model.h"
#include "distorch/models/clip_vision/vision_model.h"
#include "distorch/models/mmaudio/network.h"
#include "distorch/models/mmaudio/sound.h"
#include "distorch/models/mmaudio/synchformer.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models::mmaudio;
using at::Tensor;

namespace {

/// A tiny network of a file, with its weights; blocks run twice.
template <class Network>
struct Whole {
  template <class Part, class Shape>
  Whole(const std::map<std::string, Tensor>& tensors, Part part_of, Shape config_of)
      : file(tensors),
        part(part_of(*file)),
        net(config_of(part)),
        source(net.manifest(), part, at::kFloat) {
    check_complete(net.manifest(), part, "network");
  }
  TemporaryCheckpoint file;
  weights::Checkpoint part;
  Network net;
  TwiceSource source;
};

std::map<std::string, Tensor> tensors_of(const std::string& dump) { return tiny_tensors({dump}); }

const char* kVocoder44 = R"({"resblock": "1", "upsample_rates": [4, 2],
  "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 4]], "use_tanh_at_final": false})";

/// Those of a dump under the names that weights of older files have.
std::map<std::string, Tensor> with_older_names(const std::map<std::string, Tensor>& tensors) {
  std::map<std::string, Tensor> older;
  for (const auto& [name, tensor] : tensors) {
    auto text = "generator." + name;
    for (auto [from, to] : {std::pair("parametrizations.weight.original0", "weight_g"),
                            std::pair("parametrizations.weight.original1", "weight_v")})
      if (auto at = text.find(from); at != std::string::npos)
        text.replace(at, std::string(from).size(), to);
    older[text] = tensor;
  }
  return older;
}

/// Lengths and directions as the weights that they make.
std::map<std::string, Tensor> joined_weights(const std::map<std::string, Tensor>& tensors) {
  std::map<std::string, Tensor> joined;
  const std::string length = ".parametrizations.weight.original0";
  for (const auto& [name, tensor] : tensors) {
    if (name.ends_with("original1")) continue;
    if (!name.ends_with(length)) {
      joined[name] = tensor;
      continue;
    }
    auto place = name.substr(0, name.size() - length.size());
    const auto& direction = tensors.at(place + ".parametrizations.weight.original1");
    auto norm = direction.flatten(1).norm(2, 1).view({-1, 1, 1});
    joined[place + ".weight"] = (direction * tensor / norm).contiguous();
  }
  return joined;
}

}  // namespace

TEST_CASE("MMAudio: both versions flow as the pack's network") {
  Dump dump("mmaudio");
  for (bool second : {true, false}) {
    CAPTURE(second);
    Whole<Network> l(tensors_of(second ? "mmaudio_network" : "mmaudio_network_16k"), network_part,
                     network_config);
    const auto& config = l.net.config();
    CHECK(config.second == second);
    CHECK(config.rate() == (second ? 44100 : 16000));
    CHECK(config.frequencies == (second ? 128 : 256));
    const auto lengths = lengths_of(config, 1.0);
    CHECK(lengths.latent == (second ? 44 : 32));
    CHECK(lengths.clip == 8);
    CHECK(lengths.sync == 16);
    auto words = tiny_weight("in.text", {1, 77, 64});
    const auto told =
        l.net.conditions({tiny_weight("in.clip", {1, 8, 32}), tiny_weight("in.sync", {1, 16, 128}),
                          at::cat({words, words * 0.5})},
                         lengths);
    auto x = tiny_weight("in.latent", {1, lengths.latent, config.latent}) * 10;
    for (const char* time : {"0.0", "0.62"}) {
      auto flow = l.net.flow(x.expand({2, -1, -1}).contiguous(),
                             at::full({2}, std::stof(time), at::kFloat), told);
      const auto name = fmt::format("{}/flow {}", second ? "second" : "first", time);
      const auto error = difference(flow, dump[name]);
      MESSAGE(name << " " << error);
      CHECK(error < 1e-4);
    }
    auto scaled = l.net.scaled(x);
    const auto tensors = tensors_of(second ? "mmaudio_network" : "mmaudio_network_16k");
    CHECK(difference(scaled, x * tensors.at("latent_std") + tensors.at("latent_mean")) < 1e-6);
    CHECK(l.source.runs.size() == l.net.manifest().blocks().size());
    CHECK_THROWS_WITH_AS(l.net.conditions({{}, {}, words.narrow(1, 0, 70)}, lengths),
                         doctest::Contains("77 tokens of a text"), Error);
  }
}

TEST_CASE("MMAudio: the published networks have as many numbers as the pack's") {
  CHECK(parameters(Network(Config{}).manifest()) == 1030496760);
  CHECK(parameters(Synchformer(SynchformerConfig{}).manifest()) == 121850112);
  MelConfig mel;
  mel.levels = {{512, 3, false}, {1024, 3, true}, {2048, 3, false}};
  CHECK(parameters(MelDecoder(mel).manifest()) == 176341249);
  VocoderConfig vocoder;
  vocoder.steps = {{8, 16}, {4, 8}, {2, 4}, {2, 4}, {2, 4}, {2, 4}};
  vocoder.kernels = {{3}, {7}, {11}};
  vocoder.bias_at_end = false;
  CHECK(parameters(Vocoder(vocoder).manifest()) == 122184529);
  CHECK(vocoder.hop() == 512);
}

TEST_CASE("MMAudio: seconds as the pack counts them") {
  Config config;
  const std::vector<std::vector<double>> cases = {
      {8, 345, 64, 192}, {0.64, 28, 5, 8}, {0.63, 28, 5, 0}, {10.4, 448, 83, 248}};
  for (const auto& one : cases) {
    CAPTURE(one[0]);
    const auto lengths = lengths_of(config, one[0]);
    CHECK(lengths.latent == one[1]);
    CHECK(lengths.clip == one[2]);
    CHECK(lengths.sync == one[3]);
  }
}

TEST_CASE("MMAudio: latents to spectrograms, and those to sound") {
  Dump dump("mmaudio");
  for (std::string mode : {"44k", "16k"}) {
    CAPTURE(mode);
    auto whole = tensors_of("mmaudio_vae_" + mode);
    whole["encoder.conv_in.weight"] = at::zeros({1});  // is left in the file
    Whole<MelDecoder> l(whole, mel_part, mel_config);
    const auto& config = l.net.config();
    CHECK(config.bands == (mode == "44k" ? 128 : 80));
    auto mel = l.net.decode(tiny_weight("in.z", {1, 5, config.latent}) * 10);
    CHECK(difference(mel, dump["mel " + mode]) < 1e-4);
    CHECK(l.source.runs.size() == l.net.manifest().blocks().size());

    auto tensors = tensors_of("mmaudio_vocoder_" + mode);
    auto given = tiny_weight("in.mel", {1, 9, 128}).narrow(2, 0, config.bands).transpose(1, 2) * 10;
    for (int names : {0, 1, 2}) {
      CAPTURE(names);
      auto named = names == 0   ? tensors
                   : names == 1 ? with_older_names(tensors)
                                : joined_weights(tensors);
      Whole<Vocoder> v(named, vocoder_part, [&](const weights::Checkpoint& part) {
        return vocoder_config(part, mode == "44k" ? kVocoder44 : "", "config.json");
      });
      CHECK(v.net.config().hop() == 8);
      auto sound = v.net.sound(given.contiguous());
      CHECK(difference(sound, dump["vocoded " + mode]) < 1e-4);
      CHECK(v.source.runs.size() == v.net.manifest().blocks().size());
    }
  }
}

TEST_CASE("MMAudio: what Synchformer and CLIP say of pictures and texts") {
  Dump dump("mmaudio");
  Whole<Synchformer> l(tensors_of("mmaudio_synchformer"), synchformer_part, synchformer_config);
  CHECK(l.net.config().pixels() == 224);
  auto frames = tiny_weight("in.segments", {1, 16, 3, 224, 224}).transpose(1, 2).contiguous() * 30;
  CHECK(difference(l.net.forward(frames), dump["synchformer"]) < 1e-4);
  CHECK(l.source.runs.size() == l.net.manifest().blocks().size());
  CHECK_THROWS_WITH_AS(l.net.forward(frames.narrow(2, 0, 8)),
                       doctest::Contains("looks at 16 frames of 224 x 224"), Error);

  namespace vision = models::clip_vision;
  namespace clip = models::clip;
  Whole<vision::VisionModel> seeing(tensors_of("mmaudio_clip"), vision::vision_part,
                                    [](const weights::Checkpoint& part) {
                                      auto config = vision::vision_config(part);
                                      config.kind = vision::VisionKind::ClipL;
                                      return config;
                                    });
  // 378 of 384 pixels are looked at.
  const Tensor mean = at::tensor({0.48145466f, 0.4578275f, 0.40821073f}).view({3, 1, 1}),
               spread = at::tensor({0.26862954f, 0.26130258f, 0.27577711f}).view({3, 1, 1});
  auto pictures = tiny_weight("in.pictures", {1, 2, 3, 384, 384})[0] * 30;
  auto embeds = seeing.net.forward((pictures - mean) / spread).embeds;
  CHECK(difference((embeds / embeds.norm(2, 1).unsqueeze(1)).unsqueeze(0), dump["pictures"]) <
        1e-4);
}

TEST_CASE("MMAudio: other files and settings that do not fit are told") {
  TemporaryCheckpoint other(tensors_of("vae"));
  CHECK(network_part(*other).empty());
  CHECK(mel_part(*other).empty());
  CHECK(vocoder_part(*other).empty());
  CHECK(synchformer_part(*other).empty());

  auto tensors = tensors_of("mmaudio_network");
  tensors["audio_input_proj.0.weight"] = at::zeros({128, 30, 7});
  CHECK_THROWS_WITH_AS(network_config(*TemporaryCheckpoint(tensors)),
                       doctest::Contains("latents of 30 numbers"), Error);
  tensors["audio_input_proj.0.weight"] = at::zeros({100, 40, 7});
  CHECK_THROWS_WITH_AS(network_config(*TemporaryCheckpoint(tensors)),
                       doctest::Contains("width 100"), Error);

  TemporaryCheckpoint vocoder(tensors_of("mmaudio_vocoder_44k"));
  const auto part = vocoder_part(*vocoder);
  const std::pair<const char*, const char*> cases[] = {
      {"[1]", "is no JSON object"},
      {R"({"resblock": "2"})", "'resblock'"},
      {R"({"resblock": "1", "upsample_rates": [4]})", "1 steps, and the weights have 2"},
      {R"({"resblock": "1", "upsample_rates": [4, 0]})", "'upsample_rates'"},
      {R"({"resblock": "1", "upsample_rates": [4, 3]})", "3 where the weights reach 4"},
      {R"({"resblock": "1", "upsample_rates": [4, 2]})", "resblock_dilation_sizes"},
      {R"({"resblock": "1", "upsample_rates": [4, 2], "use_tanh_at_final": 1,
           "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]]})",
       "'use_tanh_at_final'"}};
  for (const auto& one : cases) {
    CAPTURE(one.first);
    CHECK_THROWS_WITH_AS(vocoder_config(part, one.first, "of/config.json"),
                         doctest::Contains("of/config.json"), Error);
    CHECK_THROWS_WITH_AS(vocoder_config(part, one.first, "of/config.json"),
                         doctest::Contains(one.second), Error);
  }
}
