#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/models/florence2/generate.h"
#include "distorch/models/florence2/model.h"
#include "distorch/tokenizers/byte_bpe.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models::florence2;
using at::Tensor;
using Ids = std::vector<std::int64_t>;
using Json = nlohmann::json;

namespace {

const std::filesystem::path& folder() {
  static const auto path = parity_dir() / "florence2";
  return path;
}

Json dump_json(const char* name) { return Json::parse(std::ifstream(parity_dir() / name)); }

std::string config_json() { return read_file(folder() / "config.json"); }

template <class Source = PlainSource>
struct Loaded {
  explicit Loaded(const std::map<std::string, Tensor>& tensors = tiny_tensors({"florence2"}))
      : file(tensors),
        part(florence2_part(*file)),
        net(read_config(config_json(), "config.json", part)),
        source(net.manifest(), part, at::kFloat) {
    check_complete(net.manifest(), part, "Florence-2");
  }
  TemporaryCheckpoint file;
  weights::Checkpoint part;
  Model net;
  Source source;
};

Tensor picture(int number) {
  return tiny_weight("picture/" + std::to_string(number), {1, 3, 64, 64}) * 100;
}

Tensor one_row(const Ids& ids) { return at::tensor(ids, at::kLong).unsqueeze(0); }

std::uint32_t crc_of(const Ids& ids) {
  std::string text;
  for (auto id : ids) text += (text.empty() ? "" : " ") + std::to_string(id);
  return crc32(text);
}

/// The tiny model's questions, as numbers.
class Questions {
 public:
  Questions() {
    const auto json = dump_json("florence2.json");
    std::vector<std::string> more = {"<od>", "</od>", "<ocr>", "</ocr>"};
    for (int i = 0; i < 1000; ++i) more.push_back("<loc_" + std::to_string(i) + ">");
    tokenizer_ = tokenizers::ByteBpe::load(folder(), more);
    for (const auto& [task, words] : json["questions"].items())
      tasks_.emplace_back(task, words.get<std::string>());
  }
  /// "x" in a question stands for the text.
  Ids ids(const std::string& task, const std::string& text) const {
    for (const auto& [name, words] : tasks_) {
      if (name != task) continue;
      auto asked = words;
      if (!text.empty()) {
        const auto at = asked.rfind('x');
        asked = asked.substr(0, at) + text + asked.substr(at + 1);
      }
      auto ids = tokenizer_->encode(asked);
      ids.insert(ids.begin(), 0);
      ids.push_back(2);
      return ids;
    }
    FAIL(task);
    return {};
  }

 private:
  std::shared_ptr<const tokenizers::ByteBpe> tokenizer_;
  std::vector<std::pair<std::string, std::string>> tasks_;
};

const std::vector<std::string> kTasks = {"OD",
                                         "DENSE_REGION_CAPTION",
                                         "REGION_PROPOSAL",
                                         "CAPTION",
                                         "DETAILED_CAPTION",
                                         "MORE_DETAILED_CAPTION",
                                         "CAPTION_TO_PHRASE_GROUNDING",
                                         "REFERRING_EXPRESSION_SEGMENTATION",
                                         "OCR",
                                         "OCR_WITH_REGION",
                                         "DocVQA",
                                         "GENERATE_TAGS",
                                         "MIXED_CAPTION",
                                         "ANALYZE",
                                         "MIXED_CAPTION_PLUS"};
const std::vector<std::string> kTexts = {"a red car", "the cat's ear",
                                         "Gr\xc3\xbc\xc3\x9f"
                                         "e, 12 dogs",
                                         "an image"};

bool takes_text(const std::string& task) {
  return task == kTasks[6] || task == kTasks[7] || task == "DocVQA";
}

/// What random numbers of a seed begin with is the node's affair: these are its results.
std::uint64_t seed_from(const Json& one) { return one.at("random").get<std::uint64_t>(); }

}  // namespace

TEST_CASE("Florence-2: every part computes what transformers' does") {
  Loaded<TwiceSource> l;
  Dump dump("florence2");
  const auto json = dump_json("florence2.json");
  CHECK(difference(l.net.vision().tower(picture(0)).permute({0, 3, 1, 2}), dump["tower"]) < 1e-4);
  auto features = l.net.vision().forward(picture(0));
  CHECK(difference(features, dump["features"]) < 1e-4);
  auto wide = tiny_weight("wide", {1, 3, 96, 128}) * 100;
  CHECK(difference(l.net.vision().forward(wide), dump["features/wide"]) < 1e-4);
  auto encoded = l.net.language().encode(features, one_row(json["ids"].get<Ids>()));
  CHECK(difference(encoded, dump["encoded"]) < 1e-4);
  // Token by token, with what the decoder knows handed on.
  auto state = l.net.language().begin(encoded);
  std::vector<Tensor> logits;
  for (auto id : json["given"].get<Ids>()) {
    logits.push_back(l.net.language().next(one_row({id}), state));
    CHECK(state.keys[0].size(1) == state.length);
  }
  CHECK(difference(at::cat(logits).slice(1, 0, std::nullopt, 5), dump["logits"]) < 1e-4);
  CHECK(l.source.runs.size() == l.net.manifest().blocks().size());
}

TEST_CASE("Florence-2: rows of the decoder do not see each other, and can change places") {
  Loaded<> l;
  auto encoded = l.net.language().encode(l.net.vision().forward(picture(1)), one_row({0, 40, 2}));
  auto both = l.net.language().begin(encoded), one = both;
  auto ids = at::tensor(Ids{2, 7}, at::kLong).unsqueeze(1);
  l.net.language().next(ids, both);
  l.net.language().next(one_row({7}), one);
  both = both.rows(at::tensor(Ids{1, 0}, at::kLong));
  auto scores = l.net.language().next(ids.flip(0), both);
  CHECK(difference(scores.narrow(0, 0, 1), l.net.language().next(one_row({7}), one)) < 1e-5);
}

TEST_CASE("Florence-2: a bias of the scores counts where a file has one") {
  auto tensors = tiny_tensors({"florence2"});
  Loaded<> plain(tensors);
  const auto count = tensors.at("language_model.model.shared.weight").size(0);
  auto bias = tiny_weight("bias", {1, count});
  tensors["language_model.final_logits_bias"] = bias;
  // A file may name the table after the scores.
  auto table = tensors.extract("language_model.model.shared.weight");
  table.key() = "language_model.lm_head.weight";
  tensors.insert(std::move(table));
  Loaded<> biased(tensors);
  auto scores = [](Loaded<>& l) {
    auto encoded = l.net.language().encode(l.net.vision().forward(picture(0)), one_row({0, 2}));
    auto state = l.net.language().begin(encoded);
    return l.net.language().next(one_row({2}), state);
  };
  CHECK(difference(scores(biased) - scores(plain), bias) < 1e-4);
}

TEST_CASE(
    "Florence-2: 50 pictures and every task, the tokens that transformers writes with beams") {
  Loaded<> l;
  const Questions questions;
  const auto json = dump_json("florence2_answers.json");
  auto config = read_generation_config(config_json(), "config.json");
  auto generator = at::detail::createCPUGenerator(1);
  std::size_t case_number = 0;
  int different = 0;
  for (int i = 0; i < 50; ++i) {
    auto features = l.net.vision().forward(picture(i));
    const auto& text = kTexts[static_cast<std::size_t>(i) % kTexts.size()];
    config.end = json["ends"][static_cast<std::size_t>(i) % json["ends"].size()];
    for (const auto& task : kTasks) {
      auto ids = questions.ids(task, takes_text(task) ? text : "");
      auto encoded = l.net.language().encode(features, one_row(ids));
      auto got =
          generate(l.net.language(), encoded, config, {.new_tokens = 10, .beams = 3}, generator);
      different += crc_of(got) != json["beams"][case_number++].get<std::uint32_t>();
    }
  }
  CHECK(case_number == json["beams"].size());
  CHECK(different == 0);
}

TEST_CASE(
    "Florence-2: greedy, sampling, beams and sampling with beams write transformers' tokens") {
  Loaded<> l;
  const Questions questions;
  const auto json = dump_json("florence2_answers.json");
  auto config = read_generation_config(config_json(), "config.json");
  for (const auto& one : json["whole"]) {
    CAPTURE(one.dump());
    auto ids = questions.ids(one["task"], one["text"]);
    auto encoded =
        l.net.language().encode(l.net.vision().forward(picture(one["picture"])), one_row(ids));
    config.end = one["end"];
    auto generator = at::detail::createCPUGenerator(seed_from(one));
    std::int64_t told = -1;
    auto got = generate(
        l.net.language(), encoded, config,
        {.new_tokens = one["max_new_tokens"], .beams = one["num_beams"], .draws = one["do_sample"]},
        generator, [&](std::int64_t written) { CHECK(written == ++told); });
    CHECK(got == one["ids"].get<Ids>());
  }
}

TEST_CASE("Florence-2: too much text, too large a picture") {
  Loaded<> l;
  auto features = l.net.vision().forward(picture(0));
  CHECK_THROWS_WITH_AS(l.net.language().encode(features, one_row(Ids(92, 7))),
                       doctest::Contains("97 tokens"), Error);
  CHECK_THROWS_WITH_AS(l.net.vision().forward(at::zeros({1, 3, 64, 256})),
                       doctest::Contains("8 columns"), Error);
}

TEST_CASE("Florence-2: what is wrong with a config.json is told by its entry") {
  TemporaryCheckpoint file(tiny_tensors({"florence2"}));
  const auto part = florence2_part(*file);
  auto refused = [&](const std::function<void(Json&)>& change, const std::string& sentence) {
    auto json = Json::parse(config_json());
    change(json);
    CHECK_THROWS_WITH_AS(read_config(json.dump(), "c.json", part),
                         doctest::Contains(sentence.c_str()), Error);
  };
  refused([](Json& j) { j.erase("vision_config"); }, "c.json: has no object 'vision_config'");
  refused([](Json& j) { j["vision_config"]["num_heads"] = {2, 2, 3}; }, "has 3 numbers");
  refused([](Json& j) { j["vision_config"]["num_heads"][0] = 3; }, "do not share out");
  refused([](Json& j) { j["vision_config"]["depths"] = "x"; }, "'vision_config.depths'");
  refused([](Json& j) { j["vision_config"]["patch_prenorm"][1] = 1; }, "neither true nor false");
  refused([](Json& j) { j["text_config"].erase("d_model"); }, "'text_config.d_model' is missing");
  refused([](Json& j) { j["text_config"]["d_model"] = -4; }, "holds -4");
  refused([](Json& j) { j["text_config"]["encoder_attention_heads"] = 5; }, "32 wide");
  CHECK_THROWS_WITH_AS(read_config("{", "c.json", part), doctest::Contains("is no JSON"), Error);
  auto json = Json::parse(config_json());
  json["text_config"]["eos_token_id"] = "two";
  CHECK_THROWS_WITH_AS(read_generation_config(json.dump(), "c.json"),
                       doctest::Contains("'eos_token_id'"), Error);
  CHECK(florence2_part(*TemporaryCheckpoint(tiny_tensors({"wav2vec2"}))).empty());
}

TEST_CASE("Florence-2: the published sizes") {
  Model base(Config::base()), large(Config::large());
  // In millions; what texts and scores share counts once.
  CHECK(parameters(base.manifest()) / 1000000 == 231);
  CHECK(parameters(large.manifest()) / 1000000 == 776);
}
