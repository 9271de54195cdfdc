#include "distorch/nodes/audio_encoder.h"
#include "distorch/nodes/audio_states.h"
#include "distorch/nodes/video.h"
#include "tests/nodes/simulated.h"
#include "tests/nodes/tiny_seeded.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

class AudioApp : public SeededApp {
 public:
  explicit AudioApp(streaming::EngineOptions engine = {}) : SeededApp(std::move(engine), "audio") {
    write("audio_encoders", "hears", tiny_tensors({"wav2vec2"}));
    write("audio_encoders", "other", tiny_tensors({"vae"}));
    catalog.add({.name = "TinySound",
                 .inputs = {graph::integer("samples"), graph::integer("rate")},
                 .outputs = {"AUDIO"},
                 .run = [](graph::Call& call) {
                   auto wave = tiny_weight("sound", {1, 2, call.integer("samples")}) * 30;
                   nodes::Audio audio{wave, static_cast<int>(call.integer("rate"))};
                   call.out(0, graph::Value::of("AUDIO", audio));
                 }});
  }
  Json prompt(int samples, int rate, const std::string& file = "hears") const {
    return {
        {"1",
         {{"class_type", "AudioEncoderLoader"},
          {"inputs", {{"audio_encoder_name", file + ".safetensors"}}}}},
        {"2", {{"class_type", "TinySound"}, {"inputs", {{"samples", samples}, {"rate", rate}}}}},
        {"3",
         {{"class_type", "AudioEncoderEncode"},
          {"inputs", {{"audio_encoder", {"1", 0}}, {"audio", {"2", 0}}}}}},
        {"keep", {{"class_type", "Keep"}, {"inputs", {{"value", {"3", 0}}}}}}};
  }
};

}  // namespace

TEST_CASE("audio: another rate, as torchaudio resamples") {
  Dump dump("resampled");
  auto sound = tiny_weight("sound", {1, 2, 3000}) * 30;
  for (std::int64_t rate : {8000, 22050, 44100, 48000}) {
    CAPTURE(rate);
    auto wanted = dump[std::to_string(rate)];
    auto got = nodes::resampled(sound, rate, 16000);
    CHECK(got.size(2) == (16000 * 3000 + rate - 1) / rate);
    CHECK(difference(got.narrow(2, 0, wanted.size(2)), wanted) < 1e-4);
  }
  CHECK(at::equal(nodes::resampled(sound, 16000, 16000), sound));
}

TEST_CASE("audio encoder nodes: what every layer hears, and what cannot be heard") {
  AudioApp tiny;
  tiny.run_well(tiny.prompt(4000, 16000));
  const auto& heard = tiny.kept.at("keep").as<nodes::AudioStates>();
  Dump dump("wav2vec2");
  REQUIRE(heard.layers.size() == 3);
  for (std::size_t i = 0; i < heard.layers.size(); ++i)
    CHECK(difference(heard.layers[i], dump["states/" + std::to_string(i)]) < 1e-4);
  CHECK(heard.samples == 4000);
  CHECK(tiny.run(tiny.prompt(900, 48000)).error.find("too short to be heard") != std::string::npos);
  CHECK(tiny.run(tiny.prompt(4000, 16000, "other")).error.find("holds no audio encoder") !=
        std::string::npos);
}

TEST_CASE(
    "audio encoder nodes: one file is one model, which is placed and makes way as others do") {
  std::int64_t bytes = 0;
  for (const auto& [name, tensor] : tiny_tensors({"wav2vec2"})) bytes += tensor.numel() * 4;
  auto options = simulated(small_rig(1));
  // Its weights, with what a sound needs beside them.
  options.budgets["sim:0"] = bytes + 8 * kMiB;
  AudioApp tiny(options);
  Dump dump("wav2vec2");
  sim::reset_peak(0);
  tiny.run_well(tiny.prompt(4000, 16000));
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(difference(tiny.kept.at("keep").as<nodes::AudioStates>().layers[i],
                     dump["states/" + std::to_string(i)]) < 1e-4);
  CHECK(sim::memory(0).peak <= options.budgets["sim:0"]);
  auto loader = tiny.prompt(4000, 16000);
  auto first = tiny.value_of(loader, {"1", 0}).as<nodes::AudioEncoder>().loaded;
  tiny.forget_results();
  auto path = tiny.folder() / "audio_encoders" / "hears.safetensors";
  CHECK(tiny.app.models.audio_encoder(path, {}) == first);
  CHECK(first->weights->loaded());
  CHECK(first->weights->options().compute == "sim:0");
  CHECK(tiny.app.engine.make_room("sim:0", 1, nullptr));
  CHECK_FALSE(first->weights->loaded());
  // Again, brought back.
  tiny.run_well(tiny.prompt(4000, 16000));
  CHECK(first->weights->loaded());
  auto on_cpu = tiny.app.models.audio_encoder(path, {.compute = "cpu"});
  CHECK(on_cpu != first);
  CHECK(on_cpu->weights->options().compute == "cpu");
}
