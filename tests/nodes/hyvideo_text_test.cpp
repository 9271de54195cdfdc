// Prompts of the HunyuanVideoWrapper on tiny encoders in folders: runs of
// tests/parity/make_nodes_hyvideo_text.py, which are the pack's own, and folders that lack something.
#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "distorch/base/error.h"
#include "distorch/nodes/hyvideo_wrapper.h"
#include "distorch/nodes/hyvideo_wrapper_prompts.h"
#include "distorch/nodes/published_model.h"
#include "tests/nodes/tiny_seeded.h"
#include "tools/make_random_model/llama_vocabulary.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::nodes::hyvideo;
using graph::Json;
using graph::Value;

namespace {

constexpr const char* kDump = "nodes_hyvideo_text";
constexpr const char *kWords = "llava-llama-3-8b-text-encoder-tokenizer",
                     *kSeeing = "llava-llama-3-8b-v1_1-transformers",
                     *kClip = "clip-vit-large-patch14";

/// The names of a dump below a prefix under another one.
std::map<std::string, at::Tensor> renamed(const std::string& dump, const std::string& prefix,
                                          const std::string& name) {
  std::map<std::string, at::Tensor> result;
  for (const auto& [full, tensor] : tiny_tensors({dump}))
    if (full.starts_with(prefix)) result[name + full.substr(prefix.size())] = tensor;
  return result;
}

class TextApp : public SeededApp {
 public:
  TextApp() : SeededApp({}, "hyvideo_text") {
    write_folder("LLM", kWords,
                 renamed("text_llama", "text_encoders.llama.transformer.model.", ""));
    auto both = renamed("text_llama", "text_encoders.llama.transformer.", "language_model.");
    both.merge(tiny_tensors({kDump}));
    write_folder("LLM", kSeeing, both);
    for (const char* folder : {kWords, kSeeing}) write_tokenizer(folder);
    write_folder("text_encoders", kClip, renamed("clip_l", "cond_stage_model.transformer.", ""));
    catalog.add(
        {.name = "Tiny8Bit",
         .inputs = {graph::integer("seed"), graph::integer("height"), graph::integer("width")},
         .outputs = {"IMAGE"},
         .run = [](graph::Call& call) {
           auto seeded = at::detail::createCPUGenerator(call.seed("seed"));
           auto bytes = at::randint(0, 256, {1, call.integer("height"), call.integer("width"), 3},
                                    seeded, at::TensorOptions(at::kLong));
           call.out(0, Value::of("IMAGE", bytes.to(at::kFloat) / 255));
         }});
  }
  fs::path place(const char* type, const char* name) { return folder() / type / name; }
  void write_folder(const char* type, const char* name,
                    const std::map<std::string, at::Tensor>& tensors) {
    fs::create_directories(place(type, name));
    write_tensors(place(type, name) / "model.safetensors", tensors);
    app.folders.add(type, folder() / type);
  }
  std::string error(Json prompt, const Json& link) {
    prompt["keep"] = node("Keep", {{"value", link}});
    auto result = run(prompt);
    std::string all = result.error;
    for (const auto& line : result.validation.lines()) all += line + "\n";
    return all;
  }

 private:
  void write_tokenizer(const char* name) {
    nlohmann::json file = {{"model", {{"vocab", nlohmann::json::object()}}}};
    int id = 0;
    for (const auto& token : random_model::llama_vocabulary()) file["model"]["vocab"][token] = id++;
    std::ofstream(place("LLM", name) / "tokenizer.json") << file.dump();
  }
};

Json loader(bool sees, bool clip, std::int64_t skip = 2, bool normed = false) {
  return node("DownloadAndLoadHyVideoTextEncoder",
              {{"llm_model", std::string(sees ? "xtuner/" : "Kijai/") + (sees ? kSeeing : kWords)},
               {"clip_model", clip ? std::string("openai/") + kClip : "disabled"},
               {"precision", "fp32"},
               {"apply_final_norm", normed},
               {"hidden_state_skip_layer", skip},
               {"quantization", "disabled"},
               {"load_device", "main_device"}});
}

/// A case with its result in node "run".
Json prompt_of(const Json& one) {
  Json prompt = {{"load", loader(one["kind"] == "vlm", one["clip"], one["skip"], one["normed"])}};
  Json inputs = one["inputs"];
  inputs["text_encoders"] = {"load", 0};
  inputs["prompt"] = one["prompt"];
  for (const auto& picture : one["pictures"]) {
    const auto name = picture[0].get<std::string>();
    prompt[name] = node("Tiny8Bit", {{"seed", one["name"].get<std::string>().size()},
                                     {"height", picture[1][0]},
                                     {"width", picture[1][1]}});
    inputs[name] = {name, 0};
  }
  if (one["guidance"].is_string()) {
    prompt["cfg"] = node("HyVideoCFG", {{"negative_prompt", one["guidance"]},
                                        {"cfg", 2.0},
                                        {"start_percent", 0.0},
                                        {"end_percent", 1.0},
                                        {"batched_cfg", true},
                                        {"use_cfg_zero_star", false}});
    inputs["hyvid_cfg"] = {"cfg", 0};
  }
  if (one["frame"].is_array()) {
    prompt["frame"] =
        node("HyVideoCustomPromptTemplate",
             {{"custom_prompt_template", one["frame"][0]}, {"crop_start", one["frame"][1]}});
    inputs["custom_prompt_template"] = {"frame", 0};
  }
  prompt["run"] = node(one["node"], inputs);
  return prompt;
}

Json case_of(const std::string& name) { return workflow_case(kDump, name); }

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("prompts of the HunyuanVideoWrapper are what the pack's own code makes of them") {
  TextApp tiny;
  Dump dump(kDump);
  double worst = 0;
  for (const auto& one : workflow_cases(kDump)) {
    const auto title = one["name"].get<std::string>();
    const auto embeds = tiny.value_of(prompt_of(one), {"run", 0}).as<Embeds>();
    const std::map<std::string, at::Tensor> made = {{"states", embeds.states},
                                                    {"negative", embeds.negative},
                                                    {"pooled", embeds.pooled},
                                                    {"negative pooled", embeds.negative_pooled}};
    for (const auto& [name, tensor] : made) {
      INFO(title << ": " << name);
      REQUIRE(tensor.defined() == one["tokens"].contains(name));
      if (!tensor.defined()) continue;
      REQUIRE(tensor.size(-2) == one["tokens"][name].get<std::int64_t>());
      const bool thinned = tensor.dim() == 3 && tensor.size(1) > 40;
      const auto error = difference(thinned ? tensor.slice(1, 0, tensor.size(1), 5) : tensor,
                                    dump[title + "/" + name]);
      CHECK(error < 1e-4);
      worst = std::max(worst, error);
    }
  }
  MESSAGE("prompts of the HunyuanVideoWrapper: largest difference " << worst);
}

TEST_CASE("HunyuanVideoEmbeddingsAdapter hands prompts to native nodes, and the bridge back") {
  TextApp tiny;
  auto prompt = prompt_of(case_of("negative"));
  prompt["adapt"] = node("HunyuanVideoEmbeddingsAdapter", {{"hyvid_embeds", {"run", 0}}});
  const auto item = tiny.value_of(prompt, {"adapt", 0}).as<sampling::Conditioning>().front();
  CHECK(difference(item.pooled_output, Dump(kDump)["negative/pooled"]) < 1e-4);
  CHECK(item.cross_attn.size(1) == 132);
  CHECK(item.numbers.at("guidance") == 2.0);
  CHECK(item.start_percent == 0.0);
  CHECK(item.end_percent == 1.0);
  CHECK(item.tensors.empty());
  prompt["bridge"] = node("HyVideoTextEmbedBridge", {{"positive", {"adapt", 0}},
                                                     {"cfg", 3.0},
                                                     {"start_percent", 0.2},
                                                     {"end_percent", 0.7},
                                                     {"batched_cfg", false},
                                                     {"use_cfg_zero_star", false}});
  const auto embeds = tiny.value_of(prompt, {"bridge", 0}).as<Embeds>();
  CHECK(at::equal(embeds.states, item.cross_attn));
  REQUIRE(embeds.guidance);
  CHECK(embeds.guidance->scale == 3.0);
  CHECK_FALSE(embeds.guidance->zero_star);
}

TEST_CASE("HyVideoTextEmbedsSave: what it writes is read again") {
  TextApp tiny;
  auto prompt = prompt_of(case_of("negative"));
  prompt["save"] = node("HyVideoTextEmbedsSave",
                        {{"hyvid_embeds", {"run", 0}}, {"filename_prefix", "hyvid_embeds/cat"}});
  const auto path = tiny.value_of(prompt, {"save", 0}).as<Json>().get<std::string>();
  REQUIRE(fs::is_regular_file(path));
  const auto before = tiny.value_of(prompt, {"run", 0}).as<Embeds>();
  Json again = {
      {"load", node("HyVideoTextEmbedsLoad", {{"embeds", fs::path(path).filename().string()}})}};
  const auto after = tiny.value_of(again, {"load", 0}).as<Embeds>();
  CHECK(at::equal(after.states, before.states));
  CHECK(at::equal(after.negative_pooled, before.negative_pooled));
  REQUIRE(after.guidance);
  CHECK(after.guidance->scale == 2.0);
  CHECK(after.guidance->together);
}

TEST_CASE("text encoders of the HunyuanVideoWrapper: what a folder lacks is told by name") {
  TextApp tiny;
  auto told = [&](const Json& load) {
    tiny.forget_results();
    return tiny.error({{"load", load}}, {"load", 0});
  };
  const auto words = tiny.place("LLM", kWords);
  fs::rename(words / "tokenizer.json", words / "away");
  CHECK(
      contains(told(loader(false, false)), (words / "tokenizer.json").string() + ": is not there"));
  fs::rename(words / "away", words / "tokenizer.json");
  fs::rename(words / "model.safetensors", words / "away");
  CHECK(contains(told(loader(false, false)), (words / "model.safetensors").string()));
  fs::rename(words / "away", words / "model.safetensors");
  CHECK(contains(told(loader(false, false, 9)), "'hidden_state_skip_layer' is 9, and"));
  const auto clip = tiny.place("text_encoders", kClip);
  fs::rename(clip, clip.string() + "_away");
  CHECK(contains(told(loader(false, true)),
                 "models/text_encoders/clip-vit-large-patch14: is not there"));
  fs::rename(clip.string() + "_away", clip);
  fs::remove_all(words);
  const auto missing = told(loader(false, false));
  CHECK(contains(missing, std::string("models/LLM/") + kWords + ": is not there"));
  CHECK(contains(missing, (tiny.folder() / "LLM").string()));
  CHECK(contains(missing, "--allow-downloads"));
  tiny.write_folder("LLM", kSeeing, tiny_tensors({"clip_l"}));
  CHECK(contains(told(loader(true, false)), "holds no Llama 3 with tensors such as"));
}

TEST_CASE("text encoders of the HunyuanVideoWrapper: folders are brought where that is allowed") {
  TextApp tiny;
  struct Fake final : nodes::Downloads {
    void fetch(const std::string& model, const Wanted&, const fs::path& folder,
               const Progress&) override {
      models.push_back(model);
      fs::create_directories(folder.parent_path());
      fs::rename(away.string() + folder.filename().string(), folder);
      brought.push_back(folder);
    }
    fs::path away;
    std::vector<std::string> models;
    std::vector<fs::path> brought;
  } fake;
  fake.away = tiny.folder() / "away_";
  fs::rename(tiny.place("LLM", kWords), fake.away.string() + kWords);
  fs::rename(tiny.place("text_encoders", kClip), fake.away.string() + kClip);
  auto context = tiny.app.context();
  context.set<nodes::Downloads>(fake);
  struct Silent : graph::EventSink {
    void send(const graph::Event&) override {}
  } silent;
  graph::RunRequest request;
  request.prompt = {{"load", loader(false, true)},
                    {"keep", node("Keep", {{"value", {"load", 0}}})}};
  request.outputs = {"keep"};
  request.context = &context;
  CHECK(graph::Executor(tiny.catalog).run(request, silent).status == graph::RunStatus::Success);
  CHECK(fake.models ==
        std::vector<std::string>{std::string("Kijai/") + kWords, std::string("openai/") + kClip});
  // Other tests look into the same folders.
  for (const auto& folder : fake.brought) fs::remove_all(folder);
}

TEST_CASE("prompts with pictures: what does not fit is told") {
  TextApp tiny;
  auto told = [&](const char* name, const std::function<void(Json&)>& change) {
    auto prompt = prompt_of(case_of(name));
    change(prompt);
    return tiny.error(prompt, {"run", 0});
  };
  CHECK(contains(told("picture", [](Json& prompt) { prompt["load"] = loader(false, false); }),
                 std::string(kWords) + " reads only text"));
  CHECK(contains(
      told("picture", [](Json& prompt) { prompt["run"]["inputs"]["prompt"] = "no place"; }),
      "got 1 pictures, and the prompt has \"<image>\" 0 times"));
  CHECK(contains(
      told("picture",
           [](Json& prompt) { prompt["run"]["inputs"]["image_token_selection_expr"] = "1:x"; }),
      "\"1:x\" is no list of slices and indices"));
  CHECK(
      contains(told("picture",
                    [](Json& prompt) { prompt["run"]["inputs"]["prompt_template"] = "disabled"; }),
               "needs a prompt_template for a LLaVA"));
  CHECK(contains(
      told("own frame", [](Json& prompt) { prompt["frame"]["inputs"]["crop_start"] = 900; }),
      "its frame leaves nothing of the prompt"));
  CHECK(contains(
      told("own frame",
           [](Json& prompt) { prompt["frame"]["inputs"]["custom_prompt_template"] = "no place"; }),
      "has a prompt template without \"{}\""));
  tiny.forget_results();
  tiny.write_folder("LLM", kSeeing,
                    renamed("text_llama", "text_encoders.llama.transformer.", "language_model."));
  const auto blind = told("picture", [](Json&) {});
  CHECK(contains(blind, tiny.place("LLM", kSeeing).string() + ": has no vision half"));
  // Without a picture it reads turns as ever.
  auto prompt = prompt_of(case_of("picture"));
  prompt["run"]["inputs"].erase("image1");
  prompt["run"]["inputs"]["prompt"] = "us";
  const auto states = tiny.value_of(prompt, {"run", 0}).as<Embeds>().states;
  // The empty line behind the header, "us", and the end of the turn.
  CHECK(states.size(1) == 3);
}

TEST_CASE("which places of a picture a list of slices names") {
  auto places = [](const char* slices) {
    std::string text;
    for (bool one : selected(slices, 8)) text += one ? '1' : '0';
    return text;
  };
  CHECK(places("::4") == "10001000");
  CHECK(places("") == "00000000");
  CHECK(places("2:4, -1,99") == "00110001");
  CHECK(places("-3:") == "00000111");
  CHECK(places(":2,4::2") == "11001010");
  CHECK_THROWS_AS(places("1:2:3:4"), Error);
  CHECK_THROWS_AS(places("all"), Error);
  CHECK_THROWS_AS(places("::0"), Error);
}
