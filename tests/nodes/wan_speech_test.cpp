// FantasyTalking on the tiny models: what tests/parity/make_nodes_wan_speech.py made with the
// WanVideoWrapper's own code, where its parts are placed, and what is not possible.
#include "distorch/base/error.h"
#include "distorch/models/audio/wav2vec2.h"
#include "distorch/models/wan/speech.h"
#include "distorch/nodes/published_model.h"
#include "distorch/nodes/video.h"
#include "distorch/nodes/wan_wrapper.h"
#include "tests/nodes/simulated.h"
#include "tests/nodes/tiny_seeded.h"
#include "tests/support/told.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::nodes::wan_wrapper;
using graph::Json;
using graph::Value;

namespace {

constexpr const char *kDump = "nodes_wan_speech", *kBase = "facebook/wav2vec2-base-960h",
                     *kStable = "TencentGameMate/chinese-wav2vec2-base";
constexpr std::int64_t kTextWidth = 48, kWidth = 48, kHeight = 32;

Json dump_json() { return Json::parse(std::ifstream(parity_dir() / "nodes_wan_speech.json")); }

/// A published folder of one of the encoders.
void write_encoder(const fs::path& folder, const std::string& dump) {
  const auto encoder = dump_json()["encoders"][dump];
  fs::create_directories(folder);
  write_tensors(folder / "model.safetensors", tiny_tensors({dump}));
  std::ofstream(folder / "config.json") << encoder["config"].dump();
  std::ofstream(folder / "preprocessor_config.json") << R"({"do_normalize": true})";
}

class SpeechApp : public SeededApp {
 public:
  explicit SpeechApp(streaming::EngineOptions engine = {})
      : SeededApp(std::move(engine), "wan_speech") {
    for (std::string name : {"wan_t2v", "wan_i2v"})
      write("diffusion_models", name, tiny_tensors({name}));
    write("diffusion_models", "speech", tiny_tensors({kDump}));
    write("vae", "vae", tiny_tensors({"vae"}));
    write_file();
    write_encoder(place(kBase), "wav2vec2_base");
    write_encoder(place(kStable), "wav2vec2");
    app.folders.add("transformers", folder() / "transformers");
    add_inputs();
  }
  using SeededApp::write;

  fs::path place(const std::string& name) const { return folder() / "transformers" / name; }

  /// What a prompt says that cannot give what `link` names, also where it is not begun.
  std::string told(Json prompt, const Json& link) {
    forget_results();
    prompt["keep"] = node("Keep", {{"value", link}});
    auto result = run(prompt);
    for (const auto& line : result.validation.lines()) result.error += line + "\n";
    return result.error;
  }
  at::Tensor tokens(const Json& prompt) {
    return value_of(prompt, {"embeds", 0}).as<SpeechEmbeds>().tokens;
  }

 private:
  /// The base encoder as a file alone, with the names of older versions.
  void write_file() {
    std::map<std::string, at::Tensor> tensors;
    for (const auto& [name, tensor] : tiny_tensors({"wav2vec2_base"})) {
      auto older = "wav2vec2." + name;
      for (auto [from, to] : {std::pair("parametrizations.weight.original0", "weight_g"),
                              std::pair("parametrizations.weight.original1", "weight_v")})
        if (auto at = older.find(from); at != std::string::npos)
          older.replace(at, std::string(from).size(), to);
      tensors[older] = tensor;
    }
    write("wav2vec2", "hears", tensors);
    write("wav2vec2", "vae", tiny_tensors({"vae"}));
  }

  void add_inputs() {
    catalog.add({.name = "TinySound",
                 .inputs = {graph::integer("samples"), graph::integer("rate")},
                 .outputs = {"AUDIO"},
                 .run = [](graph::Call& call) {
                   auto wave = tiny_weight("sound", {1, 2, call.integer("samples")}) * 30;
                   nodes::Audio audio{wave, static_cast<int>(call.integer("rate"))};
                   call.out(0, Value::of("AUDIO", audio));
                 }});
    catalog.add({.name = "TinyEmbeds",
                 .inputs = {graph::text("prompts")},
                 .outputs = {"WANVIDEOTEXTEMBEDS"},
                 .run = [](graph::Call& call) {
                   TextEmbeds embeds{.negative = tiny_weight("dog", {6, kTextWidth})};
                   for (const auto& prompt : Json::parse(call.text("prompts")))
                     embeds.prompts.push_back(
                         tiny_weight(prompt[0].get<std::string>(),
                                     {prompt[1].get<std::int64_t>(), kTextWidth}));
                   call.out(0, Value::of("WANVIDEOTEXTEMBEDS", std::move(embeds)));
                 }});
    catalog.add({.name = "TinyList",
                 .inputs = {graph::text("numbers")},
                 .outputs = {"FLOAT"},
                 .run = [](graph::Call& call) {
                   call.out(0, Value::of("FLOAT", Json::parse(call.text("numbers"))));
                 }});
    catalog.add(
        {.name = "TinyVideo",
         .inputs = {graph::integer("frames"), graph::boolean("picture")},
         .outputs = {"WANVIDIMAGE_EMBEDS"},
         .run = [](graph::Call& call) {
           ImageEmbeds embeds{
               .frames = call.integer("frames"), .height = kHeight / 8, .width = kWidth / 8};
           if (call.boolean("picture")) {
             const auto frames = (embeds.frames - 1) / 4 + 1;
             embeds.latent = tiny_weight("picture", {16, frames, kHeight / 8, kWidth / 8});
             embeds.mask = at::zeros({4, frames, kHeight / 8, kWidth / 8});
             embeds.mask.select(1, 0).fill_(1);
             embeds.clip = {tiny_weight("seen", {1, 7, 1280}), tiny_weight("unseen", {1, 7, 1280})};
           }
           call.out(0, Value::of("WANVIDIMAGE_EMBEDS", std::move(embeds)));
         }});
  }
};

/// What a video hears, in node "embeds".
Json hearing(const std::string& name = kBase, std::int64_t frames = 9) {
  const auto encoder = dump_json()["encoders"][name == kStable ? "wav2vec2" : "wav2vec2_base"];
  return {
      {"hearing",
       node("DownloadAndLoadWav2VecModel",
            {{"model", name}, {"base_precision", "fp32"}, {"load_device", "main_device"}})},
      {"speech", node("FantasyTalkingModelLoader",
                      {{"model", "speech.safetensors"}, {"base_precision", "fp32"}})},
      {"sound", node("TinySound", {{"samples", encoder["samples"]}, {"rate", encoder["rate"]}})},
      {"embeds", node("FantasyTalkingWav2VecEmbeds", {{"wav2vec_model", {"hearing", 0}},
                                                      {"fantasytalking_model", {"speech", 0}},
                                                      {"audio", {"sound", 0}},
                                                      {"num_frames", frames},
                                                      {"fps", 23.0},
                                                      {"audio_scale", 1.0},
                                                      {"audio_cfg_scale", 1.0}})}};
}

/// A run of the sampler in node "run".
Json prompt_of(const Json& one) {
  auto prompt = hearing(kBase, one["frames"].get<std::int64_t>());
  prompt["embeds"]["inputs"]["audio_scale"] = one["audio_scale"];
  Json cfg = one["audio_cfg_scale"];
  if (cfg.is_array()) {
    prompt["list"] = node("TinyList", {{"numbers", cfg.dump()}});
    cfg = {"list", 0};
  }
  prompt["embeds"]["inputs"]["audio_cfg_scale"] = cfg;
  prompt["model"] =
      node("WanVideoModelLoader", {{"model", one["model"].get<std::string>() + ".safetensors"},
                                   {"base_precision", "fp32"},
                                   {"quantization", "disabled"},
                                   {"load_device", "main_device"},
                                   {"fantasytalking_model", {"speech", 0}}});
  prompt["text"] = node("TinyEmbeds", {{"prompts", one["prompts"].dump()}});
  prompt["size"] =
      node("TinyVideo", {{"frames", one["frames"]}, {"picture", one["model"] == "wan_i2v"}});
  Json inputs = {{"model", {"model", 0}},
                 {"image_embeds", {"size", 0}},
                 {"text_embeds", {"text", 0}},
                 {"fantasytalking_embeds", {"embeds", 0}},
                 {"force_offload", false}};
  inputs.update(one["inputs"]);
  for (const auto& [name, made] : one["links"].items()) {
    prompt[name] = made;
    inputs[name] = {name, 0};
  }
  prompt["run"] = node("WanVideoSampler", inputs);
  return prompt;
}

at::Tensor samples_of(SpeechApp& tiny, const Json& prompt) {
  return tiny.value_of(prompt, {"run", 0}).as<sampling::Latent>().samples;
}

}  // namespace

TEST_CASE("FantasyTalking: what frames hear is what the pack's nodes and transformers give") {
  SpeechApp tiny;
  Dump dump(kDump);
  for (auto [name, tokens] :
       {std::pair(kBase, "tokens wav2vec2_base"), std::pair(kStable, "tokens wav2vec2")}) {
    CAPTURE(tokens);
    const auto error = difference(tiny.tokens(hearing(name)), dump[tokens]);
    CHECK(error < 1e-4);
    MESSAGE(tokens << ": largest difference " << error);
  }
  auto alone = hearing();
  alone["hearing"] = node(
      "Wav2VecModelLoader",
      {{"model", "hears.safetensors"}, {"base_precision", "fp32"}, {"load_device", "main_device"}});
  CHECK(difference(tiny.tokens(alone), dump["tokens wav2vec2_base"]) < 1e-4);
}

TEST_CASE("any device: the wrapper's sampler hears speech as its own code does") {
  streaming::EngineOptions options;
  options.default_device = test_device_or("cpu");
  SpeechApp tiny(options);
  Dump dump(kDump);
  double worst = 0;
  for (const auto& one : workflow_cases(kDump)) {
    const auto title = one["name"].get<std::string>();
    INFO(title);
    Told told;
    const auto error = difference(samples_of(tiny, prompt_of(one)), dump[title]);
    CHECK(error < 1e-4);
    CHECK(told.has("speech is not heard where several prompts") == (title == "several prompts"));
    worst = std::max(worst, error);
    if (title != "heard" && title != "picture") continue;
    // It does say something.
    auto silent = prompt_of(one);
    silent["run"]["inputs"].erase("fantasytalking_embeds");
    CHECK(difference(samples_of(tiny, silent), dump[title]) > 1e-3);
  }
  MESSAGE("runs that hear speech: largest difference " << worst);
}

TEST_CASE(
    "FantasyTalking: its parts go to the devices named, each once, and the bits are the same") {
  const auto one = workflow_case(kDump, "guided by speech");
  at::Tensor whole;
  for (std::string device : {"cpu", "sim:0", "sim:1"}) {
    CAPTURE(device);
    SpeechApp tiny(simulated());
    auto prompt = prompt_of(one);
    for (const char* id : {"hearing", "speech"}) {
      auto& type = prompt[id]["class_type"];
      type = type.get<std::string>() + "MultiGPU";
      prompt[id]["inputs"]["device"] = device;
    }
    prompt["model"]["class_type"] = "WanVideoModelLoaderMultiGPU";
    prompt["model"]["inputs"]["compute_device"] = "sim:0";
    prompt["swap"] = node("WanVideoBlockSwapMultiGPU", {{"blocks_to_swap", 1},
                                                        {"offload_img_emb", false},
                                                        {"offload_txt_emb", false},
                                                        {"swap_device", "sim:1"}});
    prompt["model"]["inputs"]["block_swap_args"] = {"swap", 0};
    Told told;
    const auto samples = samples_of(tiny, prompt);
    CHECK(told.has("1 of 2 layers"));
    if (!whole.defined()) whole = samples;
    CHECK(at::equal(samples, whole));
    const auto encoder = tiny.value_of(prompt, {"hearing", 0}).as<Wav2Vec>().loaded;
    const auto speech = tiny.value_of(prompt, {"speech", 0}).as<std::shared_ptr<Speech>>();
    const auto model = tiny.value_of(prompt, {"model", 0}).as<WanModel>().model.loaded;
    CHECK(encoder->weights->options().compute == device);
    CHECK(speech->projection->weights->options().compute == device);
    CHECK(model->weights->options().compute == "sim:0");
    CHECK(model->weights->manifest().blocks() ==
          tiny.app.models.diffusion(tiny.folder() / "diffusion_models" / "wan_t2v.safetensors", {})
              ->weights->manifest()
              .blocks());
    tiny.forget_results();
    CHECK(tiny.value_of(prompt, {"hearing", 0}).as<Wav2Vec>().loaded == encoder);
    CHECK(tiny.value_of(prompt, {"speech", 0}).as<std::shared_ptr<Speech>>() == speech);
    CHECK(tiny.value_of(prompt, {"model", 0}).as<WanModel>().model.loaded == model);
  }
  CHECK(difference(whole, Dump(kDump)["guided by speech"]) < 1e-4);
}

TEST_CASE("FantasyTalking: what is missing or does not fit is told by name") {
  SpeechApp tiny;
  const auto base = tiny.place(kBase);
  auto refused = [&](const Json& prompt, const std::string& sentence, const char* id = "embeds") {
    const auto said = tiny.told(prompt, {id, 0});
    CHECK_MESSAGE(said.find(sentence) != std::string::npos, sentence << " | " << said);
  };
  // A file away, or another in its place; then back.
  auto without = [&](const std::string& file, const std::string& text,
                     const std::string& sentence) {
    fs::rename(base / file, base / "away");
    if (!text.empty()) std::ofstream(base / file) << text;
    refused(hearing(), sentence);
    fs::remove(base / file);
    fs::rename(base / "away", base / file);
  };
  without("config.json", "", (base / "config.json").string() + ": is not there");
  without("model.safetensors", "", base.string() + ": holds neither model.safetensors nor");
  without("config.json", "[", "config.json: is no JSON object");
  without("preprocessor_config.json", R"({"do_normalize": 1})", "'do_normalize' is neither true");
  for (auto [text, sentence] :
       {std::pair(R"({"num_attention_heads": 3})", "'num_attention_heads' is 3, and of the"),
        std::pair(R"({"model_type": "hubert"})", R"('model_type' is "hubert", and of the)"),
        std::pair(R"({"do_stable_layer_norm": true})",
                  "'do_stable_layer_norm' is true, and of the"),
        std::pair(R"({"conv_stride": [5]})", "'conv_stride' is [5], and of the"),
        std::pair(R"({"num_attention_heads": 2, "hidden_act": null})",
                  "'hidden_act' is null, and of the")})
    without("config.json", text, sentence);
  const auto stable = tiny.place(kStable) / "preprocessor_config.json";
  std::ofstream(stable) << R"({"do_normalize": false})";
  refused(hearing(kStable), stable.string() + ": 'do_normalize' is false, and an encoder of the");
  CHECK(difference(tiny.tokens(hearing()), Dump(kDump)["tokens wav2vec2_base"]) < 1e-4);

  auto other = hearing();
  other["hearing"] = node(
      "Wav2VecModelLoader",
      {{"model", "vae.safetensors"}, {"base_precision", "fp32"}, {"load_device", "main_device"}});
  refused(other, "vae.safetensors: holds no wav2vec 2.0 encoder");
  other = hearing();
  other["speech"]["inputs"]["model"] = "wan_t2v.safetensors";
  refused(other,
          "wan_t2v.safetensors: holds no layers of FantasyTalking: 'proj_model.proj.weight'");
  fs::rename(base, base.string() + "_away");
  refused(hearing(),
          std::string("models/transformers/") + kBase + ": is not there: put config.json");
  refused(hearing(), "--allow-downloads");
  fs::rename(base.string() + "_away", base);

  for (auto [samples, sentence] : {std::pair(0, "input 'audio' holds no sound"),
                                   std::pair(399, "needs a longer sound: 399 samples at 16000")}) {
    auto brief = hearing();
    brief["sound"]["inputs"] = {{"samples", samples}, {"rate", 16000}};
    refused(brief, sentence);
  }
  refused(hearing(kBase, 4), "num_frames: is 4: speech is shared out to videos of 5 frames");
  auto wider = tiny_tensors({kDump});
  wider["proj_model.proj.weight"] = at::randn({32, 768});
  tiny.write("diffusion_models", "wider", wider);
  other = hearing();
  other["speech"]["inputs"]["model"] = "wider.safetensors";
  refused(other, "wider.safetensors: takes what an audio encoder of width 768 hears, and");

  const auto one = workflow_case(kDump, "heard");
  auto deaf = prompt_of(one);
  deaf["model"]["inputs"].erase("fantasytalking_model");
  refused(deaf, "wan_t2v.safetensors: has no layers that hear speech, and", "run");
  auto longer = prompt_of(one);
  longer["embeds"]["inputs"]["num_frames"] = 13;
  refused(longer, "'fantasytalking_embeds' is the speech of 4: set num_frames of", "run");
  auto fewer = tiny_tensors({kDump});
  fewer.erase("blocks.1.cross_attn.v_proj.weight");
  tiny.write("diffusion_models", "fewer", fewer);
  auto misfit = prompt_of(one);
  misfit["speech"]["inputs"]["model"] = "fewer.safetensors";
  refused(misfit, "fewer.safetensors: does not fit", "run");
  refused(misfit, "'blocks.1.cross_attn.v_proj.weight' is missing", "run");
  CHECK(difference(samples_of(tiny, prompt_of(one)), Dump(kDump)["heard"]) < 1e-4);
}

TEST_CASE("wav2vec 2.0: a published folder is brought where that is allowed") {
  SpeechApp tiny;
  fs::remove_all(tiny.folder() / "transformers");
  struct Fake final : nodes::Downloads {
    void fetch(const std::string& name, const Wanted& wanted, const fs::path& place,
               const Progress& progress) override {
      model = name;
      folder = place;
      chosen =
          wanted({"config.json", "model.safetensors", "preprocessor_config.json",
                  "pytorch_model.bin", "tf_model.h5", "chinese-wav2vec2-base-fairseq-ckpt.pt"});
      write_encoder(place, "wav2vec2_base");
      progress(1, 1);
    }
    std::string model;
    fs::path folder;
    std::vector<std::string> chosen;
  } fake;
  auto context = tiny.app.context();
  context.set<nodes::Downloads>(fake);
  struct Silent : graph::EventSink {
    void send(const graph::Event&) override {}
  } silent;
  graph::RunRequest request;
  request.prompt = hearing();
  request.prompt["keep"] = node("Keep", {{"value", {"embeds", 0}}});
  request.outputs = {"keep"};
  request.context = &context;
  CHECK(graph::Executor(tiny.catalog).run(request, silent).status == graph::RunStatus::Success);
  CHECK(fake.model == kBase);
  CHECK(fake.chosen ==
        std::vector<std::string>{"config.json", "preprocessor_config.json", "model.safetensors"});
  REQUIRE(fake.folder.parent_path().filename() == "facebook");
  CHECK(fake.folder.parent_path().parent_path().filename() == "transformers");
  fs::remove_all(fake.folder.parent_path());  // other tests look into the same folder
  REQUIRE(tiny.kept.count("keep"));
  CHECK(difference(tiny.kept.at("keep").as<SpeechEmbeds>().tokens,
                   Dump(kDump)["tokens wav2vec2_base"]) < 1e-4);
}
