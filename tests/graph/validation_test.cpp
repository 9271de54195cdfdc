#include "distorch/graph/validation.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "fake_nodes.h"

using namespace distorch;
using namespace distorch::graph;
using namespace distorch::graph::testing;

namespace {

const Catalog& catalog() {
  static const Catalog all = fake_catalog();
  return all;
}

Json good() {
  return prompt_of(R"({
    "1": {"class_type": "Image", "inputs": {"name": "a.png"}},
    "2": {"class_type": "Sampler", "inputs": {"image": ["1", 0], "steps": 20, "cfg": 8, "sampler_name": "euler", "flag": true}},
    "3": {"class_type": "Save", "inputs": {"images": ["2", 0], "filename_prefix": "x"}}})");
}

// The only problem of a prompt whose node 2 has `value` on `input`.
Problem problem_with(const char* input, Json value) {
  Json prompt = good();
  prompt["2"]["inputs"][input] = std::move(value);
  Validation checked = validate(prompt, catalog());
  REQUIRE(checked.nodes.size() == 1);
  REQUIRE(checked.nodes[0].problems.size() == 1);
  CHECK(checked.nodes[0].node_id == "2");
  CHECK(checked.nodes[0].dependent_outputs == std::vector<std::string>{"3"});
  CHECK_FALSE(checked.can_run());
  return checked.nodes[0].problems[0];
}

}  // namespace

TEST_CASE("validation: of very many unknown types only the first get a suggestion") {
  Json prompt = good();
  for (int i = 100; i < 300; ++i) prompt[std::to_string(i)] = {{"class_type", "Smapler"}};
  Validation checked = validate(prompt, catalog());
  CHECK(checked.nodes.size() == 200);
  auto lines = checked.lines();
  auto suggested = std::count_if(lines.begin(), lines.end(), [](const std::string& line) {
    return line.find("Did you mean 'Sampler'") != std::string::npos;
  });
  CHECK(suggested == 50);
}

TEST_CASE("validation: a choice written as a path of Windows is read with slashes") {
  Catalog all = fake_catalog();
  all.add(
      {.name = "Load",
       .inputs = {choice("file", {"SD15/model.ckpt", "odd\\name"}), graph::link("image", "IMAGE")},
       .output_node = true,
       .run = [](Call&) {}});
  auto checked = [&](Json file) {
    Json prompt = prompt_of(R"({"1": {"class_type": "Image", "inputs": {"name": "a.png"}},
      "2": {"class_type": "Load", "inputs": {"image": ["1", 0]}}})");
    prompt["2"]["inputs"]["file"] = std::move(file);
    bool clean = validate(prompt, all).clean();
    return std::pair(clean, prompt["2"]["inputs"]["file"]);
  };
  CHECK(checked("SD15\\model.ckpt") == std::pair(true, Json("SD15/model.ckpt")));
  CHECK(checked("odd\\name") == std::pair(true, Json("odd\\name")));
  CHECK_FALSE(checked("SD15\\other.ckpt").first);
}

TEST_CASE("validation: a good prompt is clean and its constants are converted in place") {
  Json prompt = good();
  prompt["2"]["inputs"]["steps"] = "32";
  prompt["2"]["inputs"]["flag"] = "false";
  prompt["2"]["inputs"]["label"] = 5.0;
  prompt["2"]["inputs"]["undeclared"] = {1, 2, 3};
  Validation checked = validate(prompt, catalog());
  CHECK(checked.clean());
  CHECK(checked.good_outputs == std::vector<std::string>{"3"});
  CHECK(prompt["2"]["inputs"]["steps"].dump() == "32");
  CHECK(prompt["2"]["inputs"]["cfg"].dump() == "8.0");
  CHECK(prompt["2"]["inputs"]["flag"] == true);  // any text is true
  CHECK(prompt["2"]["inputs"]["label"] == "5.0");
}

TEST_CASE("validation: each kind of problem, in the protocol's words") {
  CHECK(problem_with("steps", 0).message == "Value 0 smaller than min of 1");
  CHECK(problem_with("cfg", 101).message == "Value 101.0 bigger than max of 100.0");
  Problem list = problem_with("sampler_name", "eulr");
  CHECK(list.type == "value_not_in_list");
  CHECK(list.details == "sampler_name: 'eulr' not in ['euler', 'heun', 'lms']");
  CHECK(list.extra_info["input_config"].dump() == R"([["euler","heun","lms"],{}])");
  CHECK(list.extra_info["received_value"] == "eulr");
  CHECK(list.line.find("Did you mean 'euler'") != std::string::npos);
  Problem text = problem_with("steps", "many");
  CHECK(text.type == "invalid_input_type");
  CHECK(text.message == "Failed to convert an input value to a INT value");
  CHECK(problem_with("steps", nullptr).type == "invalid_input_type");
  CHECK(problem_with("image", Json::array({1, 2, 3})).type == "bad_linked_input");
  CHECK(problem_with("image", Json::array({"9", 0})).type == "exception_during_validation");
  CHECK(problem_with("image", Json::array({"1", 7})).line.find("which has 2 outputs") !=
        std::string::npos);
  Problem mismatch = problem_with("image", Json::array({"1", 1}));
  CHECK(mismatch.type == "return_type_mismatch");
  CHECK(mismatch.details == "image, received_type(MASK) mismatch input_type(IMAGE,LATENT)");
  CHECK(mismatch.extra_info["linked_node"].dump() == R"(["1",1])");
}

TEST_CASE("validation: a node's own check replaces the list test") {
  Json prompt = good();
  prompt["1"]["inputs"]["name"] = "sub/other.png [output]";
  CHECK(validate(prompt, catalog()).clean());
  prompt["1"]["inputs"]["name"] = "gone.txt";
  Validation checked = validate(prompt, catalog());
  REQUIRE(checked.nodes.size() == 1);
  CHECK(checked.nodes[0].problems[0].type == "custom_validation_failed");
  CHECK(checked.nodes[0].problems[0].details == "name - Invalid image file: gone.txt");
}

TEST_CASE("validation: everything at once, with node and input, for people and for the page") {
  Json prompt = good();
  prompt["2"]["inputs"]["steps"] = 0;
  prompt["2"]["inputs"]["sampler_name"] = "zz";
  prompt["1"]["inputs"].erase("name");
  prompt["3"]["inputs"].erase("images");
  Validation checked = validate(prompt, catalog());
  // Node 2 is not reached: the only output lacks its link.
  CHECK(checked.lines() ==
        std::vector<std::string>{"node 3 (Save) input images: Required input is missing"});
  CHECK(checked.error["type"] == "prompt_outputs_failed_validation");
  CHECK(checked.error["details"] == "Required input is missing: images");
  prompt["3"]["inputs"]["images"] = {"2", 0};
  checked = validate(prompt, catalog());
  CHECK(checked.lines().size() == 3);
  CHECK(checked.lines()[0] == "node 1 (Image) input name: Required input is missing");
  CHECK(checked.error["details"] == "");
  Json errors = checked.node_errors();
  CHECK(errors.size() == 2);
  CHECK(errors["2"]["errors"].size() == 2);
  CHECK(errors["2"]["class_type"] == "Sampler");
  CHECK(errors["2"]["dependent_outputs"].dump() == R"(["3"])");
}

TEST_CASE("validation: one good output is enough, bad nodes are still listed") {
  Json prompt = good();
  prompt["4"] = {{"class_type", "Save"}, {"inputs", Json::object()}};
  Validation checked = validate(prompt, catalog());
  CHECK(checked.can_run());
  CHECK_FALSE(checked.clean());
  CHECK(checked.good_outputs == std::vector<std::string>{"3"});
  CHECK(checked.bad_outputs == std::vector<std::string>{"4"});
  checked = validate(prompt, catalog(), {.targets = std::vector<std::string>{"4", "1"}});
  CHECK_FALSE(checked.can_run());
}

TEST_CASE("validation: structure first") {
  Json prompt = Json::array();
  CHECK(validate(prompt, catalog()).error["type"] == "no_prompt");
  prompt = Json::object();
  CHECK(validate(prompt, catalog()).error["type"] == "prompt_no_outputs");
  prompt = prompt_of(R"({"1": {"class_type": "Image", "inputs": {"name": "a.png"}}})");
  CHECK(validate(prompt, catalog()).error["type"] == "prompt_no_outputs");
  prompt = good();
  prompt["2"]["class_type"] = "Smapler";
  prompt["7"] = {{"inputs", Json::object()}};
  Validation checked = validate(prompt, catalog());
  CHECK(checked.error["type"] == "missing_node_type");
  CHECK(checked.error["details"] == "Node ID '#2'");
  CHECK(checked.node_errors().dump() == "{}");
  REQUIRE(checked.lines().size() == 2);
  CHECK(checked.lines()[0].find(
            "node 2 (Smapler): this node type is not known here. Did you mean 'Sampler'") == 0);
  CHECK(checked.lines()[1].find("node 7") == 0);
}

TEST_CASE("validation: a cycle is named, long chains do not use the stack") {
  Json prompt = prompt_of(R"({
    "1": {"class_type": "Add", "inputs": {"a": ["2", 0]}},
    "2": {"class_type": "Add", "inputs": {"a": ["1", 0]}},
    "3": {"class_type": "Show", "inputs": {"x": ["1", 0]}}})");
  Validation checked = validate(prompt, catalog());
  CHECK_FALSE(checked.can_run());
  REQUIRE(checked.nodes.size() == 1);
  CHECK(checked.nodes[0].problems[0].type == "dependency_cycle");
  CHECK(checked.nodes[0].problems[0].details == "1 (Add) -> 2 (Add) -> 1 (Add)");

  Json chain = Json::object();
  auto& nodes = chain.get_ref<Json::object_t&>();
  nodes.push_back({"0", {{"class_type", "Number"}, {"inputs", {{"value", 1}}}}});
  int length = 15000;
  for (int i = 1; i < length; ++i)
    nodes.push_back({std::to_string(i),
                     {{"class_type", "Add"}, {"inputs", {{"a", {std::to_string(i - 1), 0}}}}}});
  nodes.push_back(
      {"show", {{"class_type", "Show"}, {"inputs", {{"x", {std::to_string(length - 1), 0}}}}}});
  CHECK(validate(chain, catalog()).clean());
}

TEST_CASE("constants: 64-bit numbers, fractions, texts, truths") {
  std::string reason;
  auto integer = [&](Json value) { return convert_constant(value, "INT", reason); };
  CHECK(integer(18446744073709551615ull)->dump() == "18446744073709551615");
  CHECK(integer(Json::parse("18446744073709552000"))->dump() == "18446744073709551615");
  CHECK(integer(3.7)->dump() == "3");
  CHECK(integer(-3.7)->dump() == "-3");
  CHECK(integer(true)->dump() == "1");
  CHECK(integer(" -42 ")->dump() == "-42");
  CHECK(integer("18446744073709551615")->dump() == "18446744073709551615");
  for (Json bad :
       {Json("1.5"), Json(""), Json("-"), Json("99999999999999999999"), Json(1e30), Json::object()})
    CHECK_FALSE(integer(bad));
  CHECK(convert_constant("1e3", "FLOAT", reason)->dump() == "1000.0");
  for (Json bad : {Json("nan"), Json("inf"), Json("0x10"), Json("1e999"), Json("")})
    CHECK_FALSE(convert_constant(bad, "FLOAT", reason));
  CHECK(*convert_constant(true, "STRING", reason) == "True");
  CHECK(*convert_constant(Json::array({1, "a"}), "STRING", reason) == "[1, 'a']");
  CHECK(*convert_constant(0, "BOOLEAN", reason) == false);
  CHECK(*convert_constant("false", "BOOLEAN", reason) == true);
}
