#include "distorch/server/node_listing.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "distorch/nodes/catalog.h"
#include "tests/support/temporary_folder.h"

using namespace distorch;
using namespace distorch::test;
using server::Json;
using server::listed_definition;

namespace {

struct AllNodes {
  AllNodes() { nodes::add_all(catalog, app); }
  Json of(const std::string& name) { return listed_definition(catalog.get(name)); }
  nodes::App app{nodes::Settings{}};
  graph::Catalog catalog;
};

}  // namespace

TEST_CASE("node listing: every node has the fields that a page of today reads, of their types") {
  AllNodes nodes;
  for (const auto& type : nodes.catalog.all()) {
    auto info = listed_definition(*type);
    INFO(type->name);
    CHECK(info["is_input_list"] == type->input_is_list);
    CHECK(info["has_intermediate_output"].is_boolean());
    CHECK((info["search_aliases"].is_array() || info["search_aliases"].is_null()));
    CHECK(info["category"].is_string());
    if (!info.contains("dev_only")) continue;
    for (const char* field : {"dev_only", "api_node", "deprecated", "experimental"})
      CHECK(info[field].is_boolean());
    for (const char* field : {"price_badge", "essentials_category", "output_matchtypes"})
      CHECK(info.contains(field));
  }
}

TEST_CASE("node listing: categories, names, words and flags of today") {
  AllNodes nodes;
  auto save = nodes.of("SaveImage");
  CHECK(save["search_aliases"][0] == "save");
  CHECK(save["essentials_category"] == "Basics");
  CHECK_FALSE(save.contains("dev_only"));
  auto socket = nodes.of("SaveImageWebsocket");
  CHECK(socket["category"] == "image");
  CHECK(socket["display_name"] == "Save Image (Websocket)");
  CHECK(socket["search_aliases"].dump() == "[]");
  auto guidance = nodes.of("APG");
  CHECK(guidance["input"]["required"]["eta"][1]["advanced"] == true);
  CHECK_FALSE(guidance["input"]["required"]["model"][1].contains("advanced"));
  CHECK(guidance["search_aliases"].is_null());
  // Its inputs have the form of the newer schema, which the catalog's have not.
  CHECK(nodes.of("BasicScheduler")["input"]["required"]["scheduler"][0] == "COMBO");
  CHECK(nodes.of("GetImageSize")["input"]["hidden"]["unique_id"].dump() == R"(["UNIQUE_ID"])");
  CHECK(nodes.of("ImageCropV2")["has_intermediate_output"] == true);
  CHECK(nodes.of("ImageBatch")["deprecated"] == true);
  // Not ComfyUI's own: listed as the catalog has it.
  auto loader = nodes.of("CheckpointLoaderSimpleDisTorch2MultiGPU");
  CHECK(loader["category"] == nodes.catalog.get(loader["name"]).category);
  CHECK(loader["search_aliases"].dump() == "[]");
}

TEST_CASE("node listing: the table is sorted and lists only what exists") {
  AllNodes nodes;
  const auto& list = server::listed_types();
  for (std::size_t i = 0; i < list.size(); ++i) {
    CHECK_MESSAGE(nodes.catalog.find(list[i].type), list[i].type);
    if (i > 0) CHECK(std::string(list[i - 1].type) < list[i].type);
  }
}
