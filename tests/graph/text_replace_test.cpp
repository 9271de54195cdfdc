#include "distorch/graph/text_replace.h"

#include <doctest/doctest.h>

using namespace distorch::graph;

namespace {

std::tm some_time() {
  std::tm time{};
  time.tm_year = 125;  // 2025-03-07 09:04:05
  time.tm_mon = 2;
  time.tm_mday = 7;
  time.tm_hour = 9;
  time.tm_min = 4;
  time.tm_sec = 5;
  return time;
}

}  // namespace

TEST_CASE("dates: single letters are not padded, doubled ones are") {
  CHECK(format_date("yyyy-MM-dd_hhmmss", some_time()) == "2025-03-07_090405");
  CHECK(format_date("d.M.yy h:m:s", some_time()) == "7.3.25 9:4:5");
}

TEST_CASE("placeholders: known ones are replaced and made safe, others stay") {
  auto widget = [](const std::string& node, const std::string& name) -> std::optional<std::string> {
    if (node == "K" && name == "seed") return "42";
    if (node == "K" && name == "path") return "a/b:c";
    return std::nullopt;
  };
  CHECK(replace_placeholders("%date:yyyy/MM%/%K.seed%_%K.path%", some_time(), widget) ==
        "2025/03/42_a_b_c");
  CHECK(replace_placeholders("%K.nosuch%_%width%_100%", some_time(), widget) ==
        "%K.nosuch%_%width%_100%");
}

TEST_CASE("dynamic prompts: comments go, escapes stay literal, an open brace ends with the text") {
  bool chose = true;
  CHECK(choose_dynamic("keep \\{this\\} {only} /* gone */ end // c\nnext", 1, &chose) ==
        "keep {this} only  end \nnext");
  CHECK_FALSE(chose);
  CHECK(choose_dynamic("a | b } c", 1) == "a | b } c");
  CHECK(choose_dynamic("x {open", 1) == "x open");
  std::string deep(5000, '{');
  CHECK(choose_dynamic(deep, 1).empty());
}
