// Llama 3 as HunyuanVideo's text encoder, against ComfyUI.
#include <unistd.h>

#include "distorch/base/error.h"
#include "distorch/formats/gguf_writer.h"
#include "distorch/models/flow_recipes.h"
#include "distorch/models/llama/encoder.h"
#include "distorch/models/qwen/config.h"
#include "tests/models/text_tiny.h"
#include "tools/make_random_model/llama_vocabulary.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using at::Tensor;
using tokenizers::LlamaBpe;
using weights::Checkpoint;

namespace {

/// CLIP's vocabulary with a folder "llama3" beside it of the one that the parity script knows: the
/// set-up's own would be found first beside its CLIP's.
std::shared_ptr<Vocabularies> with_llama() {
  static auto shared = [] {
    auto folder =
        std::filesystem::temp_directory_path() / ("distorch_llama_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder / "llama3");
    nlohmann::json file = {{"model", {{"vocab", nlohmann::json::object()}}}};
    auto& vocabulary = file["model"]["vocab"];
    int id = 0;
    for (const auto& token : random_model::llama_vocabulary()) vocabulary[token] = id++;
    std::ofstream(folder / "llama3" / "tokenizer.json") << file.dump();
    std::filesystem::remove(folder / "clip");
    std::filesystem::create_directory_symlink(source_dir() / ".deps" / "tokenizers" / "clip",
                                              folder / "clip");
    auto places = std::make_shared<Vocabularies>(folder / "clip");
    places->clip();
    places->llama({}, "");
    std::filesystem::remove_all(folder);
    return places;
  }();
  return shared;
}

Prompt prompt_of(const nlohmann::json& one) {
  Prompt prompt(one.at("text").get<std::string>());
  if (one.contains("frame")) prompt.frame = one["frame"].get<std::string>();
  if (one.contains("seen")) {
    prompt.frame = kHunyuanPictureFrame;
    prompt.seen = tiny_weight("seen", {1, 7, 32}).unbind(0);
    prompt.seen_every = one.at("every").get<std::int64_t>();
  }
  return prompt;
}

Checkpoint llama_of(const Checkpoint& file) {
  return file.part("text_encoders.llama.transformer.");
}

FoundEncoders both(const Checkpoint& clip, const Checkpoint& words) {
  FoundEncoders found;
  for (const auto& kind : encoder_kinds())
    for (const auto& file : {clip, words})
      if (auto part = kind.find(file); !part.empty()) found[kind.name] = part;
  return found;
}

}  // namespace

TEST_CASE("Llama: prompts of HunyuanVideo as ComfyUI encodes them, with weights and pictures") {
  Dump dump("text_llama");
  TemporaryCheckpoint words(tiny_tensors({"text_llama"})), clip(tiny_tensors({"clip_l"}));
  auto found = both(clip->part("cond_stage_model.transformer."), llama_of(*words));
  REQUIRE(found.size() == 2);
  LoadedRecipe loaded(hunyuan_video_recipe(found), with_llama());
  for (const auto& one : cases_of("text_llama")) {
    auto key = one["key"].get<std::string>();
    CAPTURE(key);
    auto prompt = prompt_of(one);
    auto got = loaded(prompt);
    REQUIRE(got.states.size(1) == one["tokens"].get<std::int64_t>());
    CHECK(difference(got.states.slice(1, 0, got.states.size(1), 3), dump[key]) < 1e-4);
    CHECK_FALSE(got.mask.defined());
    CHECK(got.pooled.sizes() == at::IntArrayRef({1, 64}));
    auto batch = loaded.encoder(1).tokenize(prompt, nullptr);
    CHECK(batch.tokens() == got.states.size(1));
  }
}

TEST_CASE("Llama: what a picture encoder saw has to be of its width; padding in a text is masked") {
  TemporaryCheckpoint words(tiny_tensors({"text_llama"}));
  auto part = llama::text_part_of(
      "llama", qwen::text_part(llama_of(*words), qwen::TextKind::Llama3_8B), {.frame = "{}"});
  auto encoder = part.make(with_llama());
  Prompt prompt("a <image>");
  prompt.seen = {at::zeros({7, 31})};
  CHECK_THROWS_WITH_AS(encoder->tokenize(prompt, nullptr), doctest::Contains("same LLaVA"), Error);
  auto batch = encoder->tokenize(Prompt("a<pad>b"), nullptr);
  CHECK(batch.mask.flatten().slice(0, 0, 4).equal(at::tensor({1.0f, 1.0f, 0.0f, 0.0f})));
}

TEST_CASE("Llama: which places are kept") {
  using llama::Item;
  auto turn = [](std::vector<Item> before, std::vector<Item> after) {
    std::vector<Item> items = std::move(before);
    for (auto id : {LlamaBpe::header_token, LlamaBpe::user_token, LlamaBpe::header_end_token,
                    LlamaBpe::empty_line_token})
      items.push_back({id});
    items.insert(items.end(), after.begin(), after.end());
    return items;
  };
  // A picture of five places before the turn, another of three within it.
  auto items =
      turn({{LlamaBpe::start_token}, {LlamaBpe::image_token, 5, true}, {65}},
           {{66}, {LlamaBpe::image_token, 3, true}, {67}, {LlamaBpe::end_of_turn_token}, {68}});
  auto kept = llama::kept_of(items, 2);
  REQUIRE(kept.size() == 2);
  CHECK(kept[0].first == 1);
  CHECK(kept[0].count() == 3);
  CHECK(kept[1].first == 11);
  CHECK(kept[1].end == 17);  // 66, three places, 67, the end of the turn
}

TEST_CASE("Llama: files are told, LLaVA's names and those of the real one's sizes too") {
  TemporaryCheckpoint words(tiny_tensors({"text_llama"}));
  auto part = llama_of(*words);
  auto config = qwen::text_config(qwen::text_part(part, qwen::TextKind::Llama3_8B));
  CHECK(config.heads == 2);
  CHECK(config.key_heads == 1);
  CHECK(config.theta == 500000);
  CHECK(config.norm_epsilon == 1e-5);
  CHECK_FALSE(config.neighbours);
  CHECK(encoder_title(part) == "Llama 3 8B");
  Checkpoint llava;
  for (const auto& [name, stored] : part.tensors()) llava.add("language_model." + name, stored);
  CHECK(encoder_title(llava) == "Llama 3 8B");
  CHECK_THROWS_WITH_AS(text_recipe({part}, "hunyuan_video"), doctest::Contains("CLIP-L and Llama"),
                       Error);
}

TEST_CASE(
    "Llama: a GGUF file's rearranged queries and keys give the same states, with its tokens") {
  auto tensors = tiny_tensors({"text_llama"});
  TemporaryCheckpoint words(tensors);
  const std::string prefix = "text_encoders.llama.transformer.";
  auto path = std::filesystem::temp_directory_path() /
              ("distorch_llama_" + std::to_string(::getpid()) + ".gguf");
  std::vector<Tensor> keep;
  std::vector<formats::GgufTensor> list;
  for (const auto& [name, given] : tensors) {
    auto tensor = given;
    // llama.cpp puts the numbers of a head that turn together side by side.
    for (const char* part : {"q_proj", "k_proj"})
      if (name.find(part) != std::string::npos)
        tensor = given.view({-1, 2, 64, given.size(1)}).transpose(1, 2).reshape(given.sizes());
    keep.push_back(tensor.contiguous());
    const auto& kept = keep.back();
    list.push_back(
        {.name = name.substr(prefix.size()),
         .type = formats::block_type_named("F32"),
         .shape = kept.sizes().vec(),
         .bytes = {static_cast<const std::byte*>(kept.const_data_ptr()), kept.nbytes()}});
  }
  formats::write_gguf(path, list,
                      {{"general.architecture", std::string("llama")},
                       {"tokenizer.ggml.model", std::string("gpt2")},
                       {"tokenizer.ggml.tokens", random_model::llama_vocabulary()}});
  auto file = open_checkpoint(path);
  auto config = qwen::text_config(file);
  CHECK(config.neighbours);
  auto states_of = [](const Checkpoint& one, std::shared_ptr<Vocabularies> vocabularies) {
    auto part = llama::text_part_of("llama", one, {.frame = "{}"});
    auto encoder = part.make(std::move(vocabularies));
    TwiceSource source(encoder->manifest(), one, at::kFloat);
    return encoder->encode(encoder->tokenize(Prompt("a user"), nullptr), {}, at::kCPU).states;
  };
  // The file brings its own vocabulary, so that no folder is needed.
  auto nowhere = std::make_shared<Vocabularies>("/nowhere/clip");
  CHECK(difference(states_of(file, nowhere), states_of(llama_of(*words), with_llama())) < 1e-5);
  std::filesystem::remove(path);
}
