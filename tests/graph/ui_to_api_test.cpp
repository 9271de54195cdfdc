#include "distorch/graph/ui_to_api.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "distorch/graph/catalog.h"
#include "distorch/graph/dynamic_inputs.h"
#include "distorch/graph/json_text.h"
#include "distorch/graph/overrides.h"
#include "distorch/graph/validation.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::graph;

namespace {

const std::filesystem::path kWorkflows = test::source_dir() / "tests/workflows";
const std::filesystem::path kPairs = kWorkflows / "graph_to_prompt";
const std::filesystem::path kNewerPairs = kWorkflows / "graph_to_prompt_2026";

Json read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file.good());
  std::stringstream text;
  text << file.rdbuf();
  return parse_json(text.str(), path.string());
}

const Definitions& definitions() {
  static const Definitions all(read_file(kPairs / "object_info.json"));
  return all;
}

// Sorted by key, so that orders do not count.
nlohmann::json plain(const Json& nodes) {
  nlohmann::json result = nlohmann::json::object();
  for (auto& [id, node] : nodes.items()) {
    result[id]["class_type"] = nlohmann::json::parse(node["class_type"].dump());
    result[id]["inputs"] = nlohmann::json::parse(node["inputs"].dump());
  }
  return result;
}

// How many pairs of a folder were compared.
int compare_pairs(const std::filesystem::path& folder, const std::set<std::string>& except) {
  const Definitions own(read_file(folder / "object_info.json"));
  int compared = 0;
  for (auto& entry : std::filesystem::directory_iterator(folder)) {
    std::string name = entry.path().stem().string();
    if (entry.path().extension() != ".json" || name == "object_info" || except.count(name))
      continue;
    CAPTURE(name);
    Json pair = read_file(entry.path());
    auto ours = plain(ui_to_api(pair["ui"], own).nodes);
    auto theirs = plain(pair["api"]);
    INFO("ours: ", ours.dump(), "\ntheirs: ", theirs.dump());
    CHECK(ours == theirs);
    ++compared;
  }
  return compared;
}

Json node(int id, const char* type, Json extra = Json::object()) {
  Json result = {{"id", id}, {"type", type}};
  for (auto& [key, value] : extra.items()) result[key] = value;
  return result;
}

Json socket(const char* name, const char* type, Json link) {
  return {{"name", name}, {"type", type}, {"link", std::move(link)}};
}

std::string failure(const Json& workflow) {
  try {
    ui_to_api(workflow, definitions());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("conversion: 26 pairs made by the page agree node for node") {
  CHECK(compare_pairs(kPairs, {"groupnode", "unknown_type", "widgets_dict"}) == 26);
}

TEST_CASE("conversion: 35 pairs of newer node schema and pages agree node for node") {
  CHECK(compare_pairs(kNewerPairs, {}) == 35);
}

TEST_CASE("conversion: 17 pairs about single rules agree node for node") {
  CHECK(compare_pairs(kWorkflows / "graph_to_prompt_rules", {}) == 17);
}

TEST_CASE("conversion: a group node is refused with advice") {
  std::string text = failure(read_file(kPairs / "groupnode.json")["ui"]);
  CHECK(text.find("group node") != std::string::npos);
  CHECK(text.find("save it again") != std::string::npos);
}

TEST_CASE("conversion: an unknown type is refused by node and type, all at once") {
  Json workflow = read_file(kPairs / "unknown_type.json")["ui"];
  std::string text = failure(workflow);
  CHECK(text.find("node 2 (NoSuchNode)") != std::string::npos);
  workflow["nodes"].push_back(node(9, "PreviewImge", {{"inputs", {socket("images", "IMAGE", 2)}}}));
  text = failure(workflow);
  CHECK(text.find("node 2 (NoSuchNode)") != std::string::npos);
  CHECK(text.find("node 9 (PreviewImge)") != std::string::npos);
  CHECK(text.find("Did you mean 'PreviewImage'") != std::string::npos);
}

TEST_CASE("conversion: an unknown muted node is nobody's business, a decoration is noted") {
  Json workflow = {
      {"nodes",
       {node(1, "Strange", {{"mode", 2}, {"widgets_values", {1}}}), node(2, "Label (pack)")}},
      {"links", Json::array()}};
  Prompt prompt = ui_to_api(workflow, definitions());
  CHECK(prompt.nodes.empty());
  REQUIRE(prompt.notes.size() == 1);
  CHECK(prompt.notes[0].find("Label (pack)") != std::string::npos);
}

TEST_CASE("conversion: an unknown type that is kept has what the file says about it") {
  Json workflow = read_file(kPairs / "unknown_type.json")["ui"];
  Json strange = node(9, "Strange", {{"widgets_values", {5, "randomize", "text"}}});
  Json number = socket("seed", "INT", nullptr), text = socket("text", "STRING", nullptr);
  number["widget"] = {{"name", "seed"}};
  text["widget"] = {{"name", "text"}};
  strange["inputs"] = {socket("image", "IMAGE", 2), number, text};
  Json named = node(10, "Named", {{"widgets_values", {1}}, {"widgets_values_named", {{"w", 1}}}});
  workflow["nodes"].push_back(strange);
  workflow["nodes"].push_back(named);
  ConvertOptions options;
  options.unknown_types = UnknownTypes::Keep;
  Json nodes = ui_to_api(workflow, definitions(), options).nodes;
  CHECK(nodes["9"]["class_type"] == "Strange");
  CHECK(nodes["9"]["inputs"]["seed"] == 5);
  CHECK(nodes["9"]["inputs"]["text"] == "text");
  CHECK(nodes["10"]["inputs"] == Json{{"w", 1}});
}

TEST_CASE("conversion: an unknown type is refused with the pack that it came from") {
  Json strange = node(9, "Strange", {{"widgets_values", {5}}});
  strange["properties"] = {{"cnr_id", "some-pack"}, {"ver", "1.2.3"}};
  Json workflow = {{"nodes", Json::array({strange})}, {"links", Json::array()}};
  CHECK(failure(workflow).find("node 9 (Strange)") != std::string::npos);
  CHECK(failure(workflow).find("from the pack some-pack 1.2.3") != std::string::npos);
}

TEST_CASE("conversion: a getter goes on at the setter of its name") {
  Json set = node(2, "SetNode", {{"widgets_values", {"picture"}}});
  set["inputs"] = Json::array({socket("IMAGE", "IMAGE", 1)});
  Json get = node(3, "GetNode", {{"widgets_values", {"picture"}}});
  get["outputs"] = Json::array({socket("IMAGE", "IMAGE", nullptr)});
  Json load = node(1, "LoadImage", {{"widgets_values", {"a.png"}}});
  Json show = node(4, "PreviewImage", {{"inputs", {socket("images", "IMAGE", 2)}}});
  Json workflow = {{"nodes", {load, set, get, show}},
                   {"links", {{1, 1, 0, 2, 0, "IMAGE"}, {2, 3, 0, 4, 0, "IMAGE"}}}};
  Json nodes = ui_to_api(workflow, definitions()).nodes;
  CHECK(nodes.size() == 2);
  CHECK(nodes["4"]["inputs"]["images"] == Json{"1", 0});
}

TEST_CASE("conversion: widget values given by name are applied") {
  Json nodes = ui_to_api(read_file(kPairs / "widgets_dict.json")["ui"], definitions()).nodes;
  CHECK(nodes["1"]["inputs"]["color"] == 7);
  CHECK(nodes["1"]["inputs"]["width"] == 40);
  CHECK(nodes["1"]["inputs"]["height"] == 512);
}

TEST_CASE("conversion: seeds above 2^53 keep every digit") {
  Json workflow = parse_json(R"({"nodes":[{"id":5,"type":"KSampler","widgets_values":
      [18446744073709551615,"fixed",20,7.5,"sample_euler","karras",1]}],"links":[]})",
                             "w");
  Json inputs = ui_to_api(workflow, definitions()).nodes["5"]["inputs"];
  CHECK(inputs["seed"].get<std::uint64_t>() == 18446744073709551615ull);
  CHECK(inputs["sampler_name"] == "euler");
}

TEST_CASE("conversion: dynamic prompts follow the seed, and say so") {
  Json workflow = {
      {"nodes",
       {node(4, "CLIPTextEncode", {{"widgets_values", {"a {red|green|{dark|light} blue} cat"}}})}},
      {"links", Json::array()}};
  ConvertOptions options;
  std::set<std::string> seen;
  for (options.dynamic_seed = 0; options.dynamic_seed < 40; ++options.dynamic_seed) {
    Prompt first = ui_to_api(workflow, definitions(), options);
    CHECK(first.nodes == ui_to_api(workflow, definitions(), options).nodes);
    REQUIRE(first.notes.size() == 1);
    seen.insert(first.nodes["4"]["inputs"]["text"].get<std::string>());
  }
  CHECK(seen ==
        std::set<std::string>{"a red cat", "a green cat", "a dark blue cat", "a light blue cat"});
}

TEST_CASE("conversion: links in a circle are an error") {
  Json workflow = {
      {"nodes",
       {node(1, "Reroute",
             {{"inputs", {socket("", "*", 2)}}, {"outputs", {socket("", "IMAGE", nullptr)}}}),
        node(2, "Reroute",
             {{"inputs", {socket("", "*", 1)}}, {"outputs", {socket("", "IMAGE", nullptr)}}}),
        node(3, "PreviewImage", {{"inputs", {socket("images", "IMAGE", 3)}}})}},
      {"links", {{1, 1, 0, 2, 0, "*"}, {2, 2, 0, 1, 0, "*"}, {3, 2, 0, 3, 0, "*"}}}};
  CHECK(failure(workflow).find("circle") != std::string::npos);
}

TEST_CASE("conversion: a subgraph within itself, and subgraphs that multiply, are errors") {
  auto graph = [](const char* id, Json nodes) -> Json {
    return {{"id", id}, {"name", id}, {"nodes", std::move(nodes)}, {"links", Json::array()}};
  };
  Json within = {
      {"nodes", {node(1, "A")}},
      {"links", Json::array()},
      {"definitions", {{"subgraphs", {graph("A", {node(1, "B")}), graph("B", {node(1, "A")})}}}}};
  CHECK(failure(within).find("contains itself") != std::string::npos);

  Json many = Json::array();
  for (int i = 0; i < 40; ++i) {
    std::string outer = std::string("g").append(std::to_string(i)),
                inner = std::string("g").append(std::to_string(i + 1));
    many.push_back(graph(outer.c_str(), {node(1, inner.c_str()), node(2, inner.c_str())}));
  }
  many.push_back(graph("g40", Json::array()));
  Json explosion = {
      {"nodes", {node(1, "g0")}}, {"links", Json::array()}, {"definitions", {{"subgraphs", many}}}};
  CHECK(failure(explosion).find("more than") != std::string::npos);
}

TEST_CASE("conversion: a value missing through sixty instances is found in time") {
  // Each definition promotes the widget of the one within; the hosts store null or nothing.
  Json definitions_of_subgraphs = Json::array();
  auto promoted_socket = [](Json link) {
    Json made = socket("width", "INT", std::move(link));
    made["widget"] = {{"name", "width"}};
    return made;
  };
  auto name_of = [](int depth) { return std::string("g").append(std::to_string(depth)); };
  for (int depth = 0; depth < 60; ++depth) {
    bool last = depth == 59;
    Json inside = node(1, last ? "EmptyImage" : name_of(depth + 1).c_str());
    inside["inputs"] = Json::array({promoted_socket(1)});
    if (last) inside["widgets_values"] = {72, 64, 1, 0};
    definitions_of_subgraphs.push_back(
        {{"id", name_of(depth)},
         {"name", name_of(depth)},
         {"nodes", Json::array({inside})},
         {"inputs", {{{"name", "width"}, {"type", "INT"}, {"linkIds", {1}}}}},
         {"links", {{1, -10, 0, 1, 0, "INT"}}}});
  }
  Json host = node(1, "g0");
  host["inputs"] = Json::array({promoted_socket(nullptr)});
  Json workflow = {{"nodes", Json::array({host})},
                   {"links", Json::array()},
                   {"definitions", {{"subgraphs", definitions_of_subgraphs}}}};
  Json nodes = ui_to_api(workflow, definitions()).nodes;
  REQUIRE(nodes.size() == 1);
  CHECK(nodes.front()["inputs"]["width"] == 72);
  workflow["nodes"][0]["widgets_values"] = Json::array({nullptr});
  nodes = ui_to_api(workflow, definitions()).nodes;
  CHECK(nodes.front()["inputs"]["width"].is_null());
}

TEST_CASE("formats are told apart") {
  CHECK(detect_format(parse_json(R"({"nodes":[],"links":[]})", "a"), "a") == WorkflowFormat::Ui);
  CHECK(detect_format(parse_json(R"({"1":{"class_type":"X","inputs":{}}})", "a"), "a") ==
        WorkflowFormat::Api);
  CHECK_THROWS_AS(detect_format(parse_json(R"({"a":1})", "a"), "a"), Error);
  Prompt posted = load_prompt(R"({"prompt":{"1":{"class_type":"X","inputs":{}}},"client_id":"x"})",
                              definitions());
  CHECK(posted.nodes.contains("1"));
  CHECK(posted.workflow.is_null());
}

TEST_CASE("JSON of strangers: NaN is repaired, depth and size are limited, faults have a place") {
  CHECK(parse_json(R"({"a":[NaN,-Infinity],"b":"NaN \" NaN"})", "p").dump() ==
        R"({"a":[null,null],"b":"NaN \" NaN"})");
  CHECK_THROWS_WITH_AS(parse_json("{\"a\":", "file.json"),
                       doctest::Contains("file.json: is not JSON"), Error);
  CHECK_THROWS_WITH_AS(parse_json(std::string(1000, '['), "f"),
                       doctest::Contains("nested more than"), Error);
  std::string wide = "{";
  for (int i = 0; i < 30000; ++i) wide.append("\"").append(std::to_string(i)).append("\":0,");
  CHECK_THROWS_WITH_AS(parse_json(wide + "\"x\":0}", "f"), doctest::Contains("keys"), Error);
}

TEST_CASE("conversion: what a choice brings is taken from a file that names its values") {
  auto widget = [](const char* name, Json type, Json more) {
    return Json::array({name, std::move(type), std::move(more)});
  };
  Json formats = {{"video/a", Json::array({widget("crf", "INT", {{"default", 19}, {"max", 100}}),
                                           widget("pix_fmt", {"yuv420p", "yuv444p"}, Json())})},
                  {"video/b", Json::array()}};
  Catalog catalog;
  catalog.add({.name = "Combine",
               .inputs = {integer("rate", {.def = 8}), choice("format", {"video/a", "video/b"},
                                                              {.extra = {{"formats", formats}}})},
               .output_node = true,
               .run = [](Call&) {}});
  Json stored = {{"rate", 16}, {"format", "video/a"}, {"crf", 30}, {"videopreview", {{"a", 1}}}};
  Json workflow = {{"nodes", Json::array({node(1, "Combine", {{"widgets_values", stored}})})},
                   {"links", Json::array()}};
  auto prompt = ui_to_api(workflow, Definitions(catalog.object_info())).nodes;
  CHECK(prompt["1"]["inputs"] == Json{{"rate", 16}, {"format", "video/a"}, {"crf", 30}});
  // They are inputs of the node while that choice is made, checked as others are.
  CHECK(live_inputs(catalog.get("Combine"), prompt["1"]["inputs"])->size() == 4);
  CHECK(live_inputs(catalog.get("Combine"), {{"format", "video/b"}})->size() == 2);
  prompt["1"]["inputs"]["crf"] = 101;
  CHECK(!validate(prompt, catalog).clean());
  prompt["1"]["inputs"]["crf"] = 7;
  CHECK(validate(prompt, catalog).clean());
  apply_overrides(prompt, {"Combine.pix_fmt=yuv444p", "Combine.crf=8"}, catalog);
  CHECK(prompt["1"]["inputs"]["pix_fmt"] == "yuv444p");
  CHECK(prompt["1"]["inputs"]["crf"] == 8);
}
