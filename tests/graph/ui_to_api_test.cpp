#include "distorch/graph/ui_to_api.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "distorch/graph/json_text.h"

using namespace distorch;
using namespace distorch::graph;

namespace {

const std::filesystem::path kWorkflows =
    std::filesystem::path(DISTORCH_SOURCE_DIR) / "tests/workflows";
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
