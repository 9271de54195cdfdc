#include <fstream>
#include <set>

#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;

TEST_CASE("every node has exactly the signature that ComfyUI shows") {
  TinyApp tiny;
  auto reference = graph::Json::parse(std::ifstream(fs::path(DISTORCH_SOURCE_DIR) / "tests" /
                                                    "nodes" / "object_info_reference.json"));
  std::set<std::string> compared;
  for (const auto& type : tiny.catalog.all()) {
    if (type->name == "Keep") continue;
    REQUIRE_MESSAGE(reference.contains(type->name), type->name << " is not in the reference");
    for (const auto& line : graph::differences(*type, reference[type->name]))
      FAIL_CHECK(type->name << ": " << line);
    compared.insert(type->name);
  }
  for (const auto& [name, definition] : reference.items())
    CHECK_MESSAGE(compared.count(name), name << " has gone");
}

TEST_CASE("both spellings of the DisTorch2 variants are known") {
  TinyApp tiny;
  CHECK(tiny.catalog.find("CheckpointLoaderSimpleDistorch2MultiGPU") != nullptr);
  CHECK(tiny.catalog.find("UNETLoaderDistorch2MultiGPU") ==
        tiny.catalog.find("UNETLoaderDisTorch2MultiGPU"));
}
