#include "distorch/nodes/math_expression.h"
#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

/// What validation says about a node, one line a problem.
std::string problems_of(TinyApp& tiny, Json prompt, const Json& link) {
  prompt["keep"] = node("Keep", {{"value", link}});
  std::string all;
  for (const auto& line : tiny.run(std::move(prompt)).validation.lines()) all += line + "\n";
  return all;
}

}  // namespace

TEST_CASE("a switch computes only the branch that it takes") {
  TinyApp tiny;
  Json prompt = {
      {"good", node("PrimitiveInt", {{"value", 5}})},
      {"bad", node("ComfyMathExpression", {{"expression", "1 / 0"}, {"values.a", {"good", 0}}})},
      {"switch", node("ComfySwitchNode",
                      {{"switch", true}, {"on_true", {"good", 0}}, {"on_false", {"bad", 0}}})}};
  CHECK(tiny.value_of(prompt, {"switch", 0}).as<Json>() == 5);
  prompt["switch"]["inputs"]["switch"] = false;
  prompt["keep"] = node("Keep", {{"value", {"switch", 0}}});
  CHECK(tiny.run(prompt).error.find("division by zero") != std::string::npos);
}

TEST_CASE("inputs of growing lists and choices are validated under their whole names") {
  TinyApp tiny;
  Json image = {
      {"1", node("EmptyImage", {{"width", 8}, {"height", 8}, {"batch_size", 1}, {"color", 0}})}};
  auto with = [&](Json inputs) {
    auto prompt = image;
    prompt["2"] = node("ResizeImageMaskNode", std::move(inputs));
    return problems_of(tiny, prompt, {"2", 0});
  };
  Json good = {{"input", {"1", 0}},
               {"scale_method", "area"},
               {"resize_type", "scale width"},
               {"resize_type.width", 4}};
  CHECK(with(good).empty());
  auto missing = good;
  missing.erase("resize_type.width");
  CHECK(with(missing).find("resize_type.width") != std::string::npos);
  auto too_wide = good;
  too_wide["resize_type.width"] = 99999;
  CHECK(with(too_wide).find("bigger than max") != std::string::npos);
  auto unknown = good;
  unknown["resize_type"] = "scale by luck";
  CHECK(with(unknown).find("scale by luck") != std::string::npos);
  auto mistyped = good;
  mistyped["input"] = {"3", 0};
  image["3"] = node("EmptyLatentImage", {{"width", 64}, {"height", 64}, {"batch_size", 1}});
  CHECK(with(mistyped).find("IMAGE,MASK") != std::string::npos);
  Json empty = {{"1", node("ComfyMathExpression", {{"expression", "a"}})}};
  CHECK(problems_of(tiny, empty, {"1", 0}).find("values.a") != std::string::npos);
}

TEST_CASE("CreateList hands a list on, one call for each element") {
  TinyApp tiny;
  Json prompt = {
      {"1", node("PrimitiveInt", {{"value", 5}})},
      {"2", node("PrimitiveInt", {{"value", 6}})},
      {"3", node("CreateList", {{"inputs.input0", {"1", 0}}, {"inputs.input1", {"2", 0}}})},
      {"4", node("ComfyMathExpression", {{"expression", "a * 2"}, {"values.a", {"3", 0}}})}};
  // The last call of Keep is what it keeps.
  CHECK(tiny.value_of(prompt, {"4", 1}).as<Json>() == 12);
}

TEST_CASE("CustomCombo takes any choice and the place that the page sends") {
  TinyApp tiny;
  Json prompt = {
      {"1", node("CustomCombo", {{"choice", "blue"}, {"index", 2}, {"option1", "red"}})}};
  CHECK(tiny.value_of(prompt, {"1", 0}).as<Json>() == "blue");
  CHECK(tiny.value_of(prompt, {"1", 1}).as<Json>() == 2);
}

TEST_CASE("expressions that are none say where and why") {
  auto value = [](const char* text) { return nodes::evaluate(text, {{"a", std::int64_t{3}}}); };
  CHECK(std::get<std::int64_t>(value("((((((((((a))))))))))")) == 3);
  for (auto text : {"",
                    "a +",
                    "(a",
                    "a a",
                    "b + 1",
                    "1 / 0",
                    "a % 0",
                    "10 ** 30",
                    "9223372036854775807 + 1",
                    "sqrt(-1)",
                    "log(0)",
                    "sin()",
                    "sin(1, 2)",
                    "values",
                    "values[4]",
                    "1 if a",
                    "a[0]",
                    "1.2.3",
                    "0 ** -1",
                    "(-2) ** 0.5",
                    "1 << 64",
                    "~1.5",
                    "99999999999999999999"})
    CHECK_THROWS_AS(value(text), Error);
  CHECK_THROWS_AS(value(std::string(300, '(').c_str()), Error);
  CHECK_THROWS_AS(value(("1" + std::string(20000, '0')).c_str()), Error);
}
