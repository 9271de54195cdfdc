#include "distorch/placement/drawing.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "distorch/placement/plan.h"
#include "machines.h"

using namespace distorch;
using namespace distorch::placement;

namespace {

int count(const std::string& text, const std::string& piece) {
  int found = 0;
  for (auto at = text.find(piece); at != std::string::npos; at = text.find(piece, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE("drawing: a bar for every interval of a lane that works, names are escaped") {
  auto system = two_cards();
  auto model = even_model(6, gib(1), 0.1);
  model.name = "<b>&\"";
  auto placement = plan(system, model, parse_full_allocation("#cuda:0;3;cpu"));
  auto report = Timeline(system, model).report(placement, 2);
  auto svg = draw_svg(model, report);
  CHECK(svg.find("<svg ") == 0);
  CHECK(svg.find("<b>") == std::string::npos);
  CHECK(svg.find("&lt;b&gt;&amp;&quot;") != std::string::npos);
  CHECK(count(svg, "<title>") == static_cast<int>(report.intervals.size()));
  CHECK(count(svg, "<title>compute") == 12);
  CHECK(svg.find(">cuda:0</text>") != std::string::npos);
  CHECK(svg.find(">cpu -&gt; cuda:0</text>") != std::string::npos);
  CHECK(svg.find(">cuda:1</text>") == std::string::npos);  // idle
  CHECK(count(svg, "<line") == 2);
}
