#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

/// A node's first result, its inputs constants.
Json result_of(TinyApp& tiny, const std::string& type, const Json& inputs) {
  return tiny.value_of({{"1", {{"class_type", type}, {"inputs", inputs}}}}, {"1", 0}).as<Json>();
}

std::string refusal_of(TinyApp& tiny, const std::string& type, const Json& inputs) {
  auto result = tiny.run({{"1", {{"class_type", type}, {"inputs", inputs}}},
                          {"2", {{"class_type", "Keep"}, {"inputs", {{"value", {"1", 0}}}}}}});
  for (const auto& line : result.validation.lines()) result.error += line;
  return result.error;
}

Json math(TinyApp& tiny, std::int64_t a, const char* operation, std::int64_t b) {
  return result_of(tiny, "easy mathInt", {{"a", a}, {"b", b}, {"operation", operation}});
}

}  // namespace

TEST_CASE("helper nodes: whole numbers as Python computes with them") {
  TinyApp tiny;
  CHECK(math(tiny, 7, "add", -9) == -2);
  CHECK(math(tiny, 7, "subtract", 9) == -2);
  CHECK(math(tiny, -7, "multiply", 9) == -63);
  CHECK(math(tiny, 129, "divide", 25) == 5);
  CHECK(math(tiny, -7, "divide", 2) == -4);
  CHECK(math(tiny, 7, "divide", -2) == -4);
  CHECK(math(tiny, -7, "modulo", 3) == 2);
  CHECK(math(tiny, 7, "modulo", -3) == -2);
  CHECK(math(tiny, 6, "modulo", -3) == 0);
  CHECK(math(tiny, -3, "power", 3) == -27);
  CHECK(math(tiny, 2, "power", 62) == std::int64_t{1} << 62);
  CHECK(math(tiny, 5, "power", 0) == 1);
  for (const auto& [a, operation, b, sentence] :
       {std::tuple(1, "divide", 0, "divided by 0"), std::tuple(1, "modulo", 0, "divided by 0"),
        std::tuple(2, "power", -1, "no whole number"), std::tuple(10, "power", 60, "64 bits")})
    CHECK(refusal_of(tiny, "easy mathInt", {{"a", a}, {"b", b}, {"operation", operation}})
              .find(sentence) != std::string::npos);
}

TEST_CASE("helper nodes: numbers and texts") {
  TinyApp tiny;
  CHECK(result_of(tiny, "Int", {{"value", 129}}) == 129);
  // A saved workflow has the number as a text.
  CHECK(result_of(tiny, "Int", {{"value", "129"}}) == 129);
  CHECK(result_of(tiny, "DF_Text_Box", {{"Text", " a\nb "}}) == " a\nb ");
  CHECK(tiny.value_of({{"1", {{"class_type", "Int"}, {"inputs", {{"value", -5}}}}},
                       {"2", {{"class_type", "Int2String"}, {"inputs", {{"Int", {"1", 0}}}}}}},
                      {"2", 0})
            .as<Json>() == "-5");
}

TEST_CASE("helper nodes: texts joined in the order of their inputs, without empty ones") {
  TinyApp tiny;
  auto joined = [&](const char* delimiter, const char* clean) {
    Json prompt = {{"a", {{"class_type", "DF_Text_Box"}, {"inputs", {{"Text", " one "}}}}},
                   {"b", {{"class_type", "DF_Text_Box"}, {"inputs", {{"Text", "  "}}}}},
                   {"c", {{"class_type", "DF_Text_Box"}, {"inputs", {{"Text", "three"}}}}},
                   {"j",
                    {{"class_type", "Text Concatenate"},
                     {"inputs",
                      {{"delimiter", delimiter},
                       {"clean_whitespace", clean},
                       {"text_d", {"c", 0}},
                       {"text_b", {"b", 0}},
                       {"text_a", {"a", 0}}}}}}};
    return tiny.value_of(prompt, {"j", 0}).as<Json>().get<std::string>();
  };
  CHECK(joined(", ", "true") == "one, three");
  CHECK(joined("\\n", "true") == "one\nthree");
  CHECK(joined("|", "false") == " one |  |three");
  CHECK(result_of(tiny, "Text Concatenate", {{"delimiter", ","}, {"clean_whitespace", "true"}}) ==
        "");
}

TEST_CASE("helper nodes: a text is shown and goes on") {
  TinyApp tiny;
  struct Shown : graph::EventSink {
    void send(const graph::Event& event) override {
      if (const auto* executed = std::get_if<graph::Executed>(&event);
          executed && executed->node == "2")
        output = executed->output;
    }
    Json output;
  } shown;
  Json prompt = {{"1", {{"class_type", "DF_Text_Box"}, {"inputs", {{"Text", "seen"}}}}},
                 {"2", {{"class_type", "ShowText|pysssss"}, {"inputs", {{"text", {"1", 0}}}}}}};
  auto result = tiny.run(prompt, &shown);
  CHECK(result.run.status == graph::RunStatus::Success);
  CHECK(shown.output["text"] == Json::array({"seen"}));
  CHECK(tiny.value_of(prompt, {"2", 0}).as<Json>() == "seen");
}
