#include "distorch/nodes/florence2.h"

#include "distorch/base/error.h"
#include "distorch/graph/ui_to_api.h"
#include "distorch/nodes/drawing.h"
#include "distorch/nodes/florence2_answers.h"
#include "distorch/nodes/published_model.h"
#include "distorch/tokenizers/florence2_tokens.h"
#include "tests/nodes/simulated.h"
#include "tests/nodes/tiny_seeded.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::nodes::florence2;
using graph::Json;

namespace {

Json dump_json(const char* name) { return Json::parse(std::ifstream(parity_dir() / name)); }

const Task& by_token(const std::string& token) {
  for (const auto& task : tasks())
    if (task.token == "<" + token + ">") return task;
  FAIL(token);
  return tasks().front();
}

std::vector<double> numbers(const Json& list) { return list.get<std::vector<double>>(); }

/// The tiny model in a folder of its own, and pictures to show to it.
class FlorenceApp : public SeededApp {
 public:
  explicit FlorenceApp(streaming::EngineOptions engine = {})
      : SeededApp(std::move(engine), "florence") {
    add_pictures(4);
    make("tiny");
    make("Florence-2-base");
    app.folders.add("LLM", folder() / "LLM");
  }
  fs::path place(const std::string& name) const { return folder() / "LLM" / name; }
  void make(const std::string& name) { make_in(place(name)); }
  static void make_in(const fs::path& folder) {
    fs::create_directories(folder);
    write_tensors(folder / "model.safetensors", tiny_tensors({"florence2"}));
    for (const char* file : {"config.json", "vocab.json", "merges.txt"})
      fs::copy_file(parity_dir() / "florence2" / file, folder / file);
    std::ofstream(folder / "preprocessor_config.json")
        << R"({"size": {"height": 64, "width": 64}})";
  }

  static Json loader(const std::string& type, const std::string& model) {
    return {{"class_type", type},
            {"inputs", {{"model", model}, {"precision", "fp32"}, {"attention", "sdpa"}}}};
  }
  static Json prompt(const std::string& task, const std::string& text = "",
                     const Json& more = Json::object()) {
    Json run = {{"image", {"2", 0}}, {"florence2_model", {"1", 0}}, {"text_input", text},
                {"task", task},      {"fill_mask", true},           {"max_new_tokens", 24},
                {"num_beams", 2},    {"do_sample", false},          {"output_mask_select", ""},
                {"seed", 3}};
    run.update(more);
    return {{"1", loader("Florence2ModelLoader", "tiny")},
            {"2",
             {{"class_type", "TinyImage"},
              {"inputs", {{"name", "picture"}, {"height", 40}, {"width", 72}}}}},
            {"3", {{"class_type", "Florence2Run"}, {"inputs", run}}}};
  }

  struct Answer {
    at::Tensor image, mask;
    Json caption, data;
  };
  Answer answer(Json workflow) {
    for (int slot = 0; slot < 4; ++slot)
      workflow["keep" + std::to_string(slot)] = {{"class_type", "Keep"},
                                                 {"inputs", {{"value", {"3", slot}}}}};
    run_well(workflow);
    return {kept.at("keep0").as<at::Tensor>(), kept.at("keep1").as<at::Tensor>(),
            kept.at("keep2").as<Json>(), kept.at("keep3").as<Json>()};
  }
  std::string refusal(Json workflow) {
    workflow["keep"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"3", 2}}}}};
    auto result = run(workflow);
    for (const auto& line : result.validation.lines()) result.error += line;
    return result.error;
  }
};

}  // namespace

TEST_CASE("Florence-2: pictures as transformers prepares them") {
  Dump dump("florence2");
  for (auto [name, height, width] : {std::tuple("small", 30, 41), std::tuple("large", 900, 768)}) {
    CAPTURE(name);
    auto picture = at::rand({height, width, 3}, at::detail::createCPUGenerator(5));
    auto pixels = nodes::florence2_pixels(picture, 768, 768)[0];
    REQUIRE(pixels.sizes() == at::IntArrayRef({3, 768, 768}));
    auto some = pixels.slice(1, 0, std::nullopt, 41).slice(2, 0, std::nullopt, 37);
    CHECK(difference(some, dump[std::string("pixels/") + name]) < 1e-6);
  }
}

TEST_CASE("Florence-2: questions and random numbers as the model's own code makes them") {
  for (const auto& [token, words] : dump_json("florence2.json")["questions"].items()) {
    const auto& task = by_token(token);
    CHECK(question(task, task.takes_text ? "x" : "") == words.get<std::string>());
  }
  CHECK(tokenizers::florence2_tokens().size() == 1024);
  std::uint64_t seed = 1;
  for (const auto& one : dump_json("florence2_answers.json")["whole"])
    CHECK(nodes::florence2_seed(seed++) == one["random"].get<std::uint64_t>());
}

TEST_CASE("Florence-2: what answers say, as the model's own code reads them") {
  for (const auto& one : dump_json("florence2.json")["answers"]) {
    CAPTURE(one.dump());
    const auto& task = by_token(one["task"].get<std::string>());
    const auto text = one["text"].get<std::string>();
    const auto regions = regions_of(text, task.form, one["size"][0], one["size"][1]);
    if (task.form == Form::Text) {
      CHECK(caption_of(text, task.form) == one["answer"].get<std::string>());
      continue;
    }
    const auto& answer = one["answer"];
    REQUIRE(regions.size() == answer["labels"].size());
    for (std::size_t i = 0; i < regions.size(); ++i) {
      if (task.form == Form::Polygons) {
        REQUIRE(regions[i].shapes.size() == answer["polygons"][i].size());
        for (std::size_t p = 0; p < regions[i].shapes.size(); ++p)
          CHECK(regions[i].shapes[p] == numbers(answer["polygons"][i][p]));
        continue;
      }
      CHECK(regions[i].shapes.at(0) ==
            numbers(answer[task.form == Form::TextLines ? "quad_boxes" : "bboxes"][i]));
      // Without the end token that the original leaves in front of the first line.
      auto label = answer["labels"][i].get<std::string>();
      if (label.starts_with("</s>")) label = label.substr(4);
      CHECK(regions[i].label == label);
    }
  }
  CHECK(caption_of("</s><s>A<loc_1><loc_2>B</s>", Form::TextLines) == "\nA\nB\n");
  CHECK(regions_of("</s><s>a\nb<loc_1><loc_2><loc_3><loc_4>", Form::Boxes, 10, 10).empty());
  CHECK_THROWS_WITH_AS(task_named("paint", "node 3"), doctest::Contains("ocr_with_region"), Error);
}

TEST_CASE("drawing: polygons as Pillow fills them, but for pixels on edges") {
  for (const auto& one : dump_json("florence2.json")["polygons"]) {
    CAPTURE(one["points"].dump());
    auto mask = at::zeros({40, 64});
    nodes::fill_polygon(mask, numbers(one["points"]));
    int differ = 0, filled = 0;
    for (std::int64_t y = 0; y < 40; ++y)
      for (std::int64_t x = 0; x < 64; ++x) {
        const bool wanted = one["rows"][static_cast<std::size_t>(y)]
                                .get<std::string>()[static_cast<std::size_t>(x)] == '#';
        filled += wanted;
        differ += wanted != (mask[y][x].item<float>() > 0);
      }
    CHECK(differ <= 4 + filled / 50);
  }
}

TEST_CASE("drawing: rectangles, outlines, labels, and what lies outside") {
  auto mask = at::zeros({6, 8});
  nodes::fill_rectangle(mask, {5.9, 4.2, 2.1, 1.7});
  CHECK(mask.sum().item<float>() == 4 * 4);
  CHECK(mask[1][2].item<float>() == 1);
  CHECK(mask[4][5].item<float>() == 1);
  nodes::fill_rectangle(mask, {-1e30, -5, 1e30, 100});
  CHECK(mask.sum().item<float>() == 48);
  auto two = at::zeros({6, 8});
  nodes::fill_polygon(two, {1, 1, 4, 4});
  CHECK(two.sum().item<float>() == 0);

  const auto black = at::zeros({20, 40, 3});
  nodes::Drawing drawing(black);
  drawing.outline({1, 1, 10, 1, 10, 8, 1, 8}, {1, 0, 0}, 1);
  CHECK(drawing.picture().select(2, 0).sum().item<float>() == 2 * 10 + 2 * 6);
  CHECK(drawing.picture().select(2, 1).sum().item<float>() == 0);
  drawing.label("1.a", 12, 4, {0, 0, 1});
  // The digit 1 of two by two pixels a dot, white on half blue.
  CHECK(drawing.picture()[4][14][1].item<float>() == 1);
  CHECK(drawing.picture()[4][12][2].item<float>() == doctest::Approx(0.5));
  CHECK(nodes::Drawing::label_width("1.a") == 24);
  CHECK(black.sum().item<float>() == 0);
}

TEST_CASE("Florence2Run: every task gives what its kind gives") {
  FlorenceApp tiny;
  for (const auto& task : tasks()) {
    CAPTURE(task.name);
    auto answer = tiny.answer(FlorenceApp::prompt(task.name, task.takes_text ? "a cat" : ""));
    CHECK(answer.caption.is_string());
    CHECK(answer.caption.get<std::string>().find("<s>") == std::string::npos);
    REQUIRE(answer.data.is_array());
    const bool pictured = task.form != Form::Text || task.name == "docvqa";
    const std::vector<std::int64_t> picture = {1, 40, 72, 3}, none = {1, 64, 64, 3};
    CHECK(answer.image.sizes() == (pictured ? picture : none));
    const std::vector<std::int64_t> mask = {1, 40, 72}, no_mask = {1, 64, 64};
    CHECK(answer.mask.sizes() == (task.form != Form::Text ? mask : no_mask));
    if (task.form == Form::Boxes || task.form == Form::Proposals) {
      REQUIRE(answer.data.size() == 1);
      for (const auto& box : answer.data[0]) CHECK(box.size() == 4);
      CHECK((answer.mask.sum().item<float>() > 0) == !answer.data[0].empty());
    } else if (task.form == Form::Grounding) {
      CHECK(answer.data[0]["bboxes"].size() == answer.data[0]["labels"].size());
    } else if (task.form != Form::TextLines) {
      CHECK(answer.data.empty());
    }
  }
  // Masks of none.
  auto unfilled = tiny.answer(FlorenceApp::prompt("region_proposal", "", {{"fill_mask", false}}));
  CHECK(unfilled.mask.sizes() == at::IntArrayRef({1, 64, 64}));
  auto none = tiny.answer(
      FlorenceApp::prompt("region_proposal", "", {{"output_mask_select", "nobody,900"}}));
  CHECK(none.mask.sum().item<float>() == 0);
}

TEST_CASE("Florence2Run: batches, seeds, and the same answer on every device") {
  FlorenceApp tiny(simulated());
  const auto base = tiny.answer(FlorenceApp::prompt("caption")).caption;
  auto drawn = FlorenceApp::prompt("caption", "", {{"do_sample", true}});
  const auto first = tiny.answer(drawn).caption;
  tiny.forget_results();
  CHECK(tiny.answer(drawn).caption == first);
  drawn["3"]["inputs"]["seed"] = 4;
  CHECK(tiny.answer(drawn).caption != first);
  for (const std::string device : {"cpu", "sim:0", "sim:1"}) {
    CAPTURE(device);
    auto placed = FlorenceApp::prompt("caption");
    placed["1"] =
        FlorenceApp::loader("DownloadAndLoadFlorence2ModelMultiGPU", "microsoft/Florence-2-base");
    placed["1"]["inputs"]["device"] = device;
    // What newer versions of the add-on write as well.
    placed["1"]["inputs"]["offload_device"] = "cpu";
    placed["1"]["inputs"]["convert_to_safetensors"] = true;
    CHECK(tiny.answer(placed).caption == base);
    placed["keep"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"1", 0}}}}};
    tiny.run_well(placed);
    CHECK(tiny.kept.at("keep").as<nodes::Florence2>().loaded->weights->options().compute == device);
  }
  auto batch = FlorenceApp::prompt("region_caption");
  batch["4"] = {{"class_type", "RepeatImageBatch"},
                {"inputs", {{"image", {"2", 0}}, {"amount", 2}}}};
  batch["3"]["inputs"]["image"] = {"4", 0};
  auto both = tiny.answer(batch);
  REQUIRE(both.caption.size() == 2);
  CHECK(both.caption[0] == both.caption[1]);
  CHECK(both.image.size(0) == 2);
  CHECK(both.data.size() == 2);
}

TEST_CASE("Florence-2 nodes: a published model is brought where that is allowed") {
  FlorenceApp tiny;
  struct Fake final : nodes::Downloads {
    void fetch(const std::string& model, const Wanted& wanted, const fs::path& folder,
               const Progress& progress) override {
      models.push_back(model);
      chosen = wanted({"README.md", "config.json", "merges.txt", "model.safetensors",
                       "modeling_florence2.py", "onnx/model.safetensors", "pytorch_model.bin",
                       "vocab.json"});
      if (!error.empty()) throw Error(ErrorKind::Format, model, error);
      CHECK(folder.filename() == "Florence-2-large");
      FlorenceApp::make_in(folder);
      this->folder = folder;
      progress(1, 2);
    }
    fs::path folder;
    std::vector<std::string> models, chosen;
    std::string error;
  } fake;
  auto context = tiny.app.context();
  context.set<nodes::Downloads>(fake);
  /// The caption, or what went wrong.
  auto said = [&](const std::string& type, const std::string& model) -> std::string {
    struct Silent : graph::EventSink {
      void send(const graph::Event&) override {}
    } silent;
    graph::RunRequest request;
    request.prompt = FlorenceApp::prompt("caption");
    request.prompt["1"] = FlorenceApp::loader(type, model);
    request.prompt["keep"] = node("Keep", {{"value", {"3", 2}}});
    request.outputs = {"keep"};
    request.context = &context;
    auto result = graph::Executor(tiny.catalog).run(request, silent);
    if (!result.exception) return tiny.kept.at("keep").as<Json>().get<std::string>();
    try {
      std::rethrow_exception(result.exception);
    } catch (const std::exception& problem) {
      return problem.what();
    }
  };
  const auto wanted = said("Florence2ModelLoader", "tiny");
  const std::string type = "DownloadAndLoadFlorence2Model", model = "microsoft/Florence-2-large";
  fake.error = "does not answer";
  const auto refused = said(type, model);
  CHECK(refused.starts_with("microsoft/Florence-2-large: does not answer ("));
  CHECK(refused.ends_with("models/LLM/Florence-2-large)"));
  fake.error = "";
  CHECK(said(type, model) == wanted);
  CHECK(fake.models == std::vector<std::string>(2, model));
  CHECK(fake.chosen ==
        std::vector<std::string>{"config.json", "merges.txt", "vocab.json", "model.safetensors"});
  // A file more, and one replaced, are another folder.
  std::set<std::string> seen = {nodes::folder_identity(fake.folder)};
  for (const char* file : {"generation_config.json", "added_tokens.json", "config.json"}) {
    std::ofstream(fake.folder / file, std::ios::app) << " ";
    CHECK(seen.insert(nodes::folder_identity(fake.folder)).second);
  }
  fs::remove(fake.folder / "generation_config.json");
  fs::remove(fake.folder / "added_tokens.json");
  // It is there now.
  CHECK(said(type, model) == wanted);
  CHECK(fake.models.size() == 2);
  const auto brought = fake.folder;
  REQUIRE(!brought.empty());
  fs::remove_all(brought);  // other tests look into the same folder
  // Nobody downloads what is no published model.
  CHECK(said("Florence2ModelLoader", "none").find("is not there") != std::string::npos);
  CHECK(fake.models.size() == 2);
  CHECK(nodes::transformers_files({"config.json", "pytorch_model-1.bin", "pytorch_model-2.bin"}) ==
        std::vector<std::string>{"config.json", "pytorch_model-1.bin", "pytorch_model-2.bin"});
  CHECK(nodes::transformers_files({"config.json"}).empty());
}

TEST_CASE("Florence-2 nodes: what is missing or asked wrongly is told") {
  FlorenceApp tiny;
  auto missing = FlorenceApp::prompt("caption");
  missing["1"] = FlorenceApp::loader("DownloadAndLoadFlorence2Model", "microsoft/Florence-2-large");
  auto sentence = tiny.refusal(missing);
  CHECK(sentence.find("models/LLM/Florence-2-large") != std::string::npos);
  CHECK(sentence.find("--allow-downloads") != std::string::npos);
  CHECK(sentence.find("tokenizer.json") != std::string::npos);
  CHECK(tiny.refusal(FlorenceApp::prompt("caption", "a cat")).find("takes no 'text_input'") !=
        std::string::npos);
  CHECK(tiny.refusal(FlorenceApp::prompt("docvqa")).find("wants a question") != std::string::npos);
  CHECK(tiny.refusal(FlorenceApp::prompt("paint")).find("paint") != std::string::npos);
  auto without = [&](const char* file) {
    const auto name = std::string("no_") + file;
    tiny.make(name);
    fs::remove(tiny.place(name) / file);
    auto prompt = FlorenceApp::prompt("caption");
    prompt["1"]["inputs"]["model"] = name;
    return tiny.refusal(prompt);
  };
  CHECK(without("config.json").find("config.json") != std::string::npos);
  CHECK(without("vocab.json").find("has no tokenizer") != std::string::npos);
  CHECK(without("model.safetensors").find("pytorch_model.bin") != std::string::npos);
  tiny.make("other");
  write_tensors(tiny.place("other") / "model.safetensors", tiny_tensors({"vae"}));
  auto other = FlorenceApp::prompt("caption");
  other["1"]["inputs"]["model"] = "other";
  CHECK(tiny.refusal(other).find("no Florence-2 model") != std::string::npos);
}

TEST_CASE("Florence-2: an adapter of PEFT changes what is written") {
  FlorenceApp tiny;
  const auto place = tiny.place("Florence-2-pixelprose");
  fs::create_directories(place);
  const std::string layer = "base_model.model.language_model.model.decoder.layers.1.fc2";
  write_tensors(place / "adapter_model.safetensors",
                {{layer + ".lora_A.weight", tiny_weight("lora_a", {4, 64})},
                 {layer + ".lora_B.weight", tiny_weight("lora_b", {32, 4}) * 20}});
  std::ofstream(place / "adapter_config.json") << R"({"r": 4, "lora_alpha": 8})";
  auto prompt = FlorenceApp::prompt("caption");
  const auto plain = tiny.answer(prompt).caption;
  prompt["5"] = {{"class_type", "DownloadAndLoadFlorence2Lora"},
                 {"inputs", {{"model", "NikshepShetty/Florence-2-pixelprose"}}}};
  prompt["1"]["inputs"]["lora"] = {"5", 0};
  CHECK(tiny.answer(prompt).caption != plain);
  // What was loaded before is not taken for what is there now.
  const auto before = nodes::folder_identity(place);
  fs::remove(place / "adapter_config.json");
  CHECK(nodes::folder_identity(place) != before);
  CHECK(tiny.refusal(prompt).find("adapter_config.json") != std::string::npos);
}

TEST_CASE("Florence-2 and helper nodes: a workflow as the page saved it in 2025") {
  FlorenceApp tiny;
  auto node = [](int id, const char* type, Json inputs, Json values, const char* output) {
    return Json{{"id", id},
                {"type", type},
                {"mode", 0},
                {"inputs", std::move(inputs)},
                {"outputs", Json::array({{{"name", output}, {"type", output}}})},
                {"widgets_values", std::move(values)}};
  };
  auto socket = [](const char* name, const char* type, Json link) {
    Json made = {{"name", name}, {"type", type}, {"link", std::move(link)}};
    if (std::string(type) != "PEFTLORA") made["widget"] = {{"name", name}};
    return made;
  };
  Json page = {
      {"nodes",
       {node(1, "DownloadAndLoadFlorence2ModelMultiGPU",
             Json::array({socket("lora", "PEFTLORA", nullptr)}),
             {"microsoft/Florence-2-base", "fp16", "sdpa", "cpu"}, "FL2MODEL"),
        node(2, "Int", Json::array(), Json::array({"129"}), "INT"),
        node(3, "easy mathInt", Json::array({socket("a", "INT", 11)}),
             Json::array({0, 25, "divide"}), "INT"),
        node(4, "Int2String", Json::array({socket("Int", "INT", 12)}), Json::array({0}), "STRING"),
        node(5, "DF_Text_Box", Json::array(), {"seconds: "}, "STRING"),
        node(6, "Text Concatenate",
             Json::array({socket("text_a", "STRING", 14), socket("text_b", "STRING", 13)}),
             {" ", "true", "", "", "", ""}, "STRING"),
        node(7, "ShowText|pysssss", Json::array({socket("text", "STRING", 15)}), {"", "of before"},
             "STRING")}},
      {"links",
       {{11, 2, 0, 3, 0, "INT"},
        {12, 3, 0, 4, 0, "INT"},
        {13, 4, 0, 6, 1, "STRING"},
        {14, 5, 0, 6, 0, "STRING"},
        {15, 6, 0, 7, 0, "STRING"}}}};
  const graph::Definitions definitions(tiny.catalog.object_info());
  auto prompt = graph::ui_to_api(page, definitions).nodes;
  CHECK(prompt["1"]["inputs"]["device"] == "cpu");
  CHECK(prompt["1"]["inputs"]["precision"] == "fp16");
  // Newer versions of the add-on have a switch in front of the device.
  page["nodes"][0]["widgets_values"] = {
      "microsoft/Florence-2-base", "bf16", "sdpa", true, "cuda:1", "cpu"};
  auto newer = graph::ui_to_api(page, definitions).nodes["1"]["inputs"];
  CHECK(newer["device"] == "cuda:1");
  CHECK(newer["precision"] == "bf16");
  CHECK(tiny.value_of(prompt, {"7", 0}).as<Json>() == "seconds: 5");
}
