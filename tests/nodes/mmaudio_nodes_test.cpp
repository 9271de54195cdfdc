#include "distorch/nodes/mmaudio.h"
#include "distorch/nodes/video.h"
#include "tests/nodes/simulated.h"
#include "tests/nodes/tiny_seeded.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

/// MMAudio's nodes: tests/parity/mmaudio.json.
namespace {

constexpr const char* kVocoder = "nvidia/bigvgan_v2_44khz_128band_512x";

/// Frames of 8 bits away from black and white, as tests/parity/make_mmaudio.py makes them.
at::Tensor frames(std::int64_t count, std::int64_t height, std::int64_t width) {
  auto values = tiny_weight("frames", {count * height * width * 3}).view({count, height, width, 3});
  return ((values + 0.5).clamp(0.25, 0.75) * 255).round() / 255;
}

class SoundApp : public SeededApp {
 public:
  explicit SoundApp(streaming::EngineOptions engine = {})
      : SeededApp(std::move(engine), "mmaudio") {
    for (const char* name :
         {"network", "network_16k", "vae_44k", "vae_16k", "synchformer", "clip", "vocoder_16k"})
      write("mmaudio", name, tiny_tensors({std::string("mmaudio_") + name}));
    const auto place = vocoder();
    fs::create_directories(place);
    write_tensors(place / "bigvgan_generator.pt", tiny_tensors({"mmaudio_vocoder_44k"}));
    std::ofstream(place / "config.json") << R"({"resblock": "1", "upsample_rates": [4, 2],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 4]], "use_tanh_at_final": false})";
    catalog.add(
        {.name = "TinyFrames",
         .inputs = {graph::integer("count"), graph::integer("height"), graph::integer("width")},
         .outputs = {"IMAGE"},
         .run = [](graph::Call& call) {
           call.out(0,
                    graph::Value::of("IMAGE", frames(call.integer("count"), call.integer("height"),
                                                     call.integer("width"))));
         }});
  }
  fs::path vocoder() const { return folder() / "mmaudio" / kVocoder; }
  using SeededApp::write;

  /// The workflow of a case of the dump: loaders 1 and 2, frames 3, the sampler 4.
  static Json workflow_of(const Json& one) {
    const auto mode = one.value("mode", "44k");
    Json features = {{"vae_model", "vae_" + mode + ".safetensors"},
                     {"synchformer_model", "synchformer.safetensors"},
                     {"clip_model", "clip.safetensors"},
                     {"mode", mode},
                     {"precision", "fp32"}};
    Json inputs = {{"mmaudio_model", {"1", 0}},
                   {"feature_utils", {"2", 0}},
                   {"duration", one["duration"]},
                   {"steps", 3},
                   {"cfg", one.value("cfg", 4.5)},
                   {"seed", 7},
                   {"prompt", one["prompt"]},
                   {"negative_prompt", one["negative"]},
                   {"mask_away_clip", one.value("mask", false)},
                   {"force_offload", true}};
    Json all;
    if (mode == "16k") {
      all["5"] = node("MMAudioVoCoderLoader", {{"vocoder_model", "vocoder_16k.safetensors"}});
      features["bigvgan_vocoder_model"] = {"5", 0};
    }
    if (one.contains("images")) {
      const auto& size = one["images"];
      all["3"] = node("TinyFrames", {{"count", size[0]}, {"height", size[1]}, {"width", size[2]}});
      inputs["images"] = {"3", 0};
    }
    const std::string network = mode == "16k" ? "network_16k" : "network";
    all["1"] = node("MMAudioModelLoader",
                    {{"mmaudio_model", network + ".safetensors"}, {"base_precision", "fp32"}});
    all["2"] = node("MMAudioFeatureUtilsLoader", features);
    all["4"] = node("MMAudioSampler", inputs);
    return all;
  }
  static Json workflow(const std::string& name) {
    return workflow_of(workflow_case("mmaudio", name));
  }

  nodes::Audio sound(const Json& all) { return value_of(all, {"4", 0}).as<nodes::Audio>(); }
  /// What the case says with one input of a node changed.
  std::string refusal(const std::string& name, const std::string& id, const Json& inputs) {
    auto all = workflow(name);
    all[id]["inputs"].update(inputs);
    return error(all, {"4", 0});
  }
};

Json on_device(Json all, const std::string& id, const std::string& device) {
  auto& one = all[id];
  one["class_type"] = one["class_type"].get<std::string>() + "MultiGPU";
  one["inputs"]["device"] = device;
  return all;
}

bool says(const std::string& error, const std::string& part) {
  CAPTURE(error);
  return error.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("MMAudioSampler: sounds as the pack's own code makes them") {
  SoundApp tiny;
  Dump dump("mmaudio");
  for (const auto& one : workflow_cases("mmaudio")) {
    const auto name = one["name"].get<std::string>();
    CAPTURE(name);
    const auto sound = tiny.sound(SoundApp::workflow_of(one));
    const auto error = difference(sound.waveform, dump["sound/" + name]);
    MESSAGE(name << ": " << error);
    CHECK(error < 1e-4);
    CHECK(sound.rate == (one.contains("mode") ? 16000 : 44100));
  }
}

TEST_CASE("MMAudioSampler: what is asked for is heard, and can be saved") {
  SoundApp tiny;
  const auto all = SoundApp::workflow("video");
  const auto sound = tiny.sound(all).waveform;
  for (const auto& [key, value] :
       {std::pair<std::string, Json>("prompt", "a cat"), std::pair<std::string, Json>("seed", 8),
        std::pair<std::string, Json>("negative_prompt", "rain"),
        std::pair<std::string, Json>("mask_away_clip", true)}) {
    auto other = all;
    other["4"]["inputs"][key] = value;
    CHECK(difference(tiny.sound(other).waveform, sound) > 1e-3);
  }
  auto without = all;
  without["4"]["inputs"].erase("images");
  CHECK(difference(tiny.sound(without).waveform, sound) > 1e-3);
  auto saved = all;
  saved["save"] = node("SaveAudio", {{"audio", {"4", 0}}, {"filename_prefix", "sound"}});
  tiny.run_well(saved);
  CHECK(fs::is_regular_file(tiny.app.settings.output_folder / "sound_00001_.flac"));
}

TEST_CASE("MMAudio nodes: every part computes on the device that is named, and is there once") {
  SoundApp tiny(simulated(small_rig(2)));
  Dump dump("mmaudio");
  const auto plain = SoundApp::workflow("video");
  auto opened = [&](const Json& all, const std::string& device) {
    auto model = tiny.value_of(all, {"1", 0}).as<nodes::MMAudioModel>().at(device);
    auto parts = tiny.value_of(all, {"2", 0}).as<nodes::MMAudioFeatures>().at(device);
    return std::pair(model, parts);
  };
  auto computes = [](const nodes::MMAudioParts& parts) {
    return std::vector<std::string>{
        parts.vision->weights->options().compute, parts.text->weights->options().compute,
        parts.synchformer->weights->options().compute, parts.decoder->weights->options().compute,
        parts.vocoder->weights->options().compute};
  };
  for (const std::string device : {"cpu", "sim:0", "sim:1"})
    for (const std::string beside : {"cpu", "sim:1"}) {
      CAPTURE(device);
      CAPTURE(beside);
      const auto all = on_device(on_device(plain, "1", device), "2", beside);
      CHECK(difference(tiny.sound(all).waveform, dump["sound/video"]) < 1e-4);
      auto [model, parts] = opened(all, "");
      CHECK(model->weights->options().compute == device);
      CHECK(computes(parts) == std::vector<std::string>(5, beside));
      CHECK(model->weights->loaded());
      // The same file for the same device is the same model.
      tiny.forget_results();
      CHECK(opened(all, "").first == model);
      CHECK(opened(all, "").second.vocoder == parts.vocoder);
    }
  // A sampler that names a device computes everything there, whatever the loaders say.
  const auto moved = on_device(on_device(on_device(plain, "1", "cpu"), "2", "sim:0"), "4", "sim:1");
  CHECK(difference(tiny.sound(moved).waveform, dump["sound/video"]) < 1e-4);
  auto [model, parts] = opened(moved, "sim:1");
  CHECK(model->weights->options().compute == "sim:1");
  CHECK(model->weights->loaded());
  CHECK(computes(parts) == std::vector<std::string>(5, "sim:1"));
  CHECK(opened(moved, "sim:1").first == model);
}

TEST_CASE("MMAudio nodes: weights that find no room stream, and a plan needs none of them") {
  auto options = simulated(small_rig(1));
  const auto all = SoundApp::workflow("text");
  const auto wanted = Dump("mmaudio")["sound/text"];
  std::int64_t whole = 0;
  for (bool ample : {true, false}) {
    CAPTURE(ample);
    // Three quarters of the network are less than it and more than any other part.
    if (!ample) options.budgets["sim:0"] = whole * 3 / 4;
    SoundApp tiny(options);
    sim::reset_peak(0);
    CHECK(difference(tiny.sound(all).waveform, wanted) < 1e-4);
    const auto network = tiny.value_of(all, {"1", 0}).as<nodes::MMAudioModel>().at("");
    const auto streamed = network->weights->streamed_bytes();
    if (ample) {
      CHECK(streamed == 0);
      whole = network->weights->device_bytes("sim:0");
      continue;
    }
    CHECK(network->weights->device_bytes("sim:0") < whole);
    CHECK(streamed > 0);
    CHECK(sim::memory(0).peak <= options.budgets["sim:0"]);
  }
  options.budgets.clear();
  options.plan_only = true;
  SoundApp plans(options);
  auto sound = plans.sound(SoundApp::workflow("video"));
  CHECK(sound.waveform.sizes() == at::IntArrayRef({1, 1, 704}));
  CHECK(plans.app.engine.planned_runs().size() == 6);
}

TEST_CASE("MMAudio nodes: what does not go together is told with its file and tensor") {
  SoundApp tiny;
  tiny.write("mmaudio", "other", tiny_tensors({"vae"}));
  const Json other = "other.safetensors";
  CHECK(says(tiny.refusal("video", "1", {{"mmaudio_model", other}}),
             "other.safetensors: holds no network of MMAudio"));
  CHECK(says(tiny.refusal("video", "2", {{"synchformer_model", other}}), "holds no Synchformer"));
  CHECK(
      says(tiny.refusal("video", "2", {{"vae_model", other}}), "holds no autoencoder of MMAudio"));
  CHECK(says(tiny.refusal("video", "2", {{"clip_model", other}}), "both halves of CLIP"));
  CHECK(says(tiny.refusal("first version, 16 kHz", "5", {{"vocoder_model", other}}),
             "holds no BigVGAN vocoder"));

  // Halves of CLIP.
  for (bool sees : {true, false}) {
    std::map<std::string, at::Tensor> half;
    for (const auto& [name, tensor] : tiny_tensors({"mmaudio_clip"}))
      if (name.starts_with("visual.") == sees) half[name] = tensor;
    tiny.write("mmaudio", "half", half);
    CHECK(says(tiny.refusal("video", "2", {{"clip_model", "half.safetensors"}}),
               sees ? "lacks the half that reads" : "lacks the half that sees"));
  }
  // A tensor that is not there, of every file.
  for (auto [id, input, dump, lost] :
       {std::tuple("1", "mmaudio_model", "network", "fused_blocks.0.attn.k_norm.weight"),
        std::tuple("2", "vae_model", "vae_44k", "decoder.mid.block_2.conv2.weight"),
        std::tuple("2", "synchformer_model", "synchformer", "blocks.1.norm3.bias"),
        std::tuple("2", "clip_model", "clip", "layers.1.mlp.fc2.bias")}) {
    auto tensors = tiny_tensors({std::string("mmaudio_") + dump});
    std::erase_if(tensors, [lost = std::string(lost)](const auto& entry) {
      return entry.first.ends_with(lost) ||
             (lost == "layers.1.mlp.fc2.bias" &&
              entry.first == "transformer.resblocks.1.mlp.c_proj.bias");
    });
    tiny.write("mmaudio", "broken", tensors);
    const auto told = tiny.refusal("video", id, {{input, "broken.safetensors"}});
    CHECK(says(told, "broken.safetensors"));
    CHECK(says(told, lost));
  }
  // Files of two kinds.
  CHECK(says(tiny.refusal("video", "1", {{"mmaudio_model", "network_16k.safetensors"}}),
             "16k goes with 20, 44k with 40"));
  CHECK(says(tiny.refusal("video", "2", {{"vae_model", "vae_16k.safetensors"}}),
             "vae_16k.safetensors: takes latents of 20 numbers"));
  auto mode = SoundApp::workflow("first version, 16 kHz");
  mode["2"]["inputs"].erase("bigvgan_vocoder_model");
  CHECK(says(tiny.error(mode, {"4", 0}), "mode 16k wants a vocoder"));
  // Numbers.
  CHECK(says(tiny.refusal("video", "4", {{"steps", 0}}), "'steps' is 0"));
  CHECK(says(tiny.refusal("video", "4", {{"duration", 0.6}}), "at least 0.64 seconds"));
  CHECK(says(tiny.refusal("video", "4", {{"duration", 1e6}}), "'duration' is 1000000 seconds"));
  CHECK(says(tiny.refusal("video", "3", {{"count", 15}}), "of 15 frames"));
  // The vocoder's folder.
  fs::remove(tiny.vocoder() / "config.json");
  tiny.forget_results();
  CHECK(says(tiny.refusal("video", "4", Json::object()), "config.json: is not there"));
  fs::remove_all(tiny.vocoder());
  tiny.forget_results();
  const auto told = tiny.refusal("video", "4", Json::object());
  CHECK(says(told, std::string("models/mmaudio/") + kVocoder));
  CHECK(says(told, "--allow-downloads"));
}
