#include "distorch/server/node_replacements.h"

#include <doctest/doctest.h>

using namespace distorch;
using namespace distorch::server;

namespace {

graph::NodeType type_named(const std::string& name) {
  return {.name = name, .run = [](graph::Call&) {}};
}

graph::Catalog catalog_with(std::initializer_list<const char*> names) {
  graph::Catalog catalog;
  for (const char* name : names) catalog.add(type_named(name));
  return catalog;
}

}  // namespace

TEST_CASE("node replacements: inputs are renamed, set, or left out") {
  auto catalog = catalog_with({"ImageScaleToMaxDimension", "ControlNetLoader"});
  Json prompt = {{"1",
                  {{"class_type", "ResizeImagesByLongerEdge"},
                   {"inputs", {{"images", {"2", 0}}, {"longer_edge", 100}, {"other", 1}}},
                   {"_meta", {{"title", "small"}}}}},
                 {"2", {{"class_type", "T2IAdapterLoader"}, {"inputs", Json::object()}}},
                 {"3", {{"class_type", "SaveImage"}, {"inputs", {{"images", {"1", 0}}}}}}};
  replace_nodes(prompt, node_replacements(catalog));
  CHECK(prompt["1"].dump() ==
        R"({"class_type":"ImageScaleToMaxDimension","inputs":{"image":["2",0],"largest_size":100,)"
        R"("upscale_method":"lanczos"},"_meta":{"title":"small"}})");
  CHECK(prompt["2"].dump() == R"({"class_type":"ControlNetLoader","inputs":{}})");
  CHECK(prompt["3"].dump() == R"({"class_type":"SaveImage","inputs":{"images":["1",0]}})");
}

TEST_CASE(
    "node replacements: without a mapping the inputs stay, with one of outputs links follow") {
  Json replacements = node_replacements(catalog_with({"ConditioningAverage"}));
  replacements["Old"] = Json::array(
      {{{"new_node_id", "New"},
        {"input_mapping", nullptr},
        {"output_mapping", {{{"new_idx", 0}, {"old_idx", 1}}, {{"new_idx", 1}, {"old_idx", 0}}}}}});
  Json prompt = {
      {"1", {{"class_type", "ConditioningAverage "}, {"inputs", {{"strength", 0.5}}}}},
      {"2", {{"class_type", "Old"}, {"inputs", Json::object()}}},
      {"3", {{"class_type", "Any"}, {"inputs", {{"a", {"2", 0}}, {"b", {"2", 1}}, {"c", 1}}}}}};
  replace_nodes(prompt, replacements);
  CHECK(prompt["1"].dump() == R"({"class_type":"ConditioningAverage","inputs":{"strength":0.5}})");
  CHECK(prompt["2"]["class_type"] == "New");
  CHECK(prompt["3"]["inputs"].dump() == R"({"a":["2",1],"b":["2",0],"c":1})");
}

TEST_CASE("node replacements: types that exist stay, and so does what is no prompt") {
  auto replacements = node_replacements(catalog_with({"ImageBatch", "BatchImagesNode"}));
  CHECK(replacements.dump() == "{}");
  replacements = node_replacements(catalog_with({"ControlNetLoader"}));
  for (const char* text : {"5", "[]", R"({"1":5})", R"({"1":{"class_type":"T2IAdapterLoader"}})",
                           R"({"1":{"class_type":7,"inputs":{}}})",
                           R"({"1":{"class_type":"T2IAdapterLoader","inputs":[1]}})"}) {
    auto prompt = Json::parse(text);
    replace_nodes(prompt, replacements);
    CHECK(prompt.dump() == text);
  }
}
