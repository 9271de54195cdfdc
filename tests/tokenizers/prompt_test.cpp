#include "distorch/tokenizers/prompt.h"

#include <doctest/doctest.h>

#include <cmath>

#include "distorch/base/error.h"

using namespace distorch;
using namespace distorch::tokenizers;

namespace {

using Parts = std::vector<WeightedText>;

/// Weights to six digits, so that 1.1 * 1.1 can be written down.
Parts parse(std::string_view prompt) {
  auto parts = parse_prompt(prompt);
  for (auto& p : parts) p.weight = std::round(p.weight * 1e6) / 1e6;
  return parts;
}

}  // namespace

TEST_CASE("prompt: groups and weights") {
  CHECK(parse("").empty());
  CHECK(parse("a cat") == Parts{{"a cat", 1}});
  CHECK(parse("a (cat) b") == Parts{{"a ", 1}, {"cat", 1.1}, {" b", 1}});
  CHECK(parse("((cat))") == Parts{{"cat", 1.21}});
  CHECK(parse("(a:1.3)") == Parts{{"a", 1.3}});
  CHECK(parse("(a (b:2) (c):0.5)") == Parts{{"a ", 0.5}, {"b", 2}, {" ", 0.5}, {"c", 0.55}});
  CHECK(parse("(a:b:0.7)") == Parts{{"a:b", 0.7}});
}

TEST_CASE("prompt: what counts as a weight") {
  for (auto [text, weight] : std::vector<std::pair<std::string, double>>{{" 1.25 ", 1.25},
                                                                         {"+2", 2},
                                                                         {"-1", -1},
                                                                         {".5", 0.5},
                                                                         {"5.", 5},
                                                                         {"1e-1", 0.1},
                                                                         {"1_0", 10},
                                                                         {"1e-999", 0}}) {
    CAPTURE(text);
    CHECK(parse("(a:" + text + ")") == Parts{{"a", weight}});
  }
  for (const char* text : {"", " ", "b", "1.2.3", "0x10", "nan", "inf", "-Infinity", "1e999", "+-1",
                           "1__0", "_1", "1_", "1 2", "\\(1"}) {
    CAPTURE(text);
    auto parts = parse(std::string("(a:") + text + ")");
    REQUIRE(parts.size() == 1);
    CHECK(parts[0].weight == 1.1);
  }
  CHECK(parse("(:1.3)") == Parts{{":1.3", 1.1}});
}

TEST_CASE("prompt: escapes and parentheses without a partner are text") {
  CHECK(parse("\\(cat\\)") == Parts{{"(cat)", 1}});
  CHECK(parse("(cat \\(x\\):1.2)") == Parts{{"cat (x)", 1.2}});
  CHECK(parse("(a\\)") == Parts{{"(a)", 1}});
  CHECK(parse("back\\slash\\") == Parts{{"back\\slash\\", 1}});
  CHECK(parse("(cat") == Parts{{"(cat", 1}});
  CHECK(parse("cat)") == Parts{{"cat)", 1}});
  CHECK(parse("()").empty());
}

TEST_CASE("prompt: deep nesting ends in an error, not in a crash") {
  CHECK(parse_prompt(std::string(400, '(') + "a" + std::string(400, ')')).size() == 1);
  CHECK_THROWS_AS(parse_prompt(std::string(100000, '(') + "a" + std::string(100000, ')')), Error);
  CHECK(parse_prompt(std::string(100000, '(')).size() == 1);
}
