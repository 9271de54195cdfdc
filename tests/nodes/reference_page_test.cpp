#include <fstream>

#include "tests/nodes/tiny_app.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::test;

TEST_CASE("docs/reference_nodes.md says yes of what the catalogue has, and of nothing else") {
  TinyApp tiny;
  std::ifstream page(test::source_dir() / "docs" / "reference_nodes.md");
  int rows = 0;
  for (std::string line; std::getline(page, line);) {
    if (!line.starts_with("| `")) continue;
    auto name = line.substr(3, line.find('`', 3) - 3);
    // A broken bar stands for the upright line, which would end a cell.
    const std::string bar = "\xc2\xa6";
    if (auto at = name.find(bar); at != std::string::npos) name.replace(at, bar.size(), "|");
    const bool yes = line.ends_with("| yes |");
    CHECK_MESSAGE((tiny.catalog.find(name) != nullptr) == yes,
                  name << ": run docs/scripts/reference_nodes.py");
    ++rows;
  }
  CHECK(rows > 150);
}
