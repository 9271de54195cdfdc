#include "distorch/nodes/python_regex.h"
#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::Value;

namespace {

/// Calls a node with lists, as the executor does for a type with input_is_list.
std::vector<Value> run_with_lists(const graph::NodeType& type,
                                  std::map<std::string, std::vector<Value>> inputs) {
  graph::Call::Inputs given;
  given.values = std::move(inputs);
  graph::Call call(type, std::move(given));
  type.run(call);
  return call.outputs().at(0).values;
}

std::string error_of(TinyApp& tiny, const std::string& type, graph::Json inputs) {
  graph::Json prompt = {
      {"1",
       {{"class_type", "EmptyImage"},
        {"inputs", {{"width", 8}, {"height", 6}, {"batch_size", 1}, {"color", 255}}}}},
      {"2",
       {{"class_type", "EmptyLatentImage"},
        {"inputs", {{"width", 64}, {"height", 64}, {"batch_size", 1}}}}},
      {"3", {{"class_type", type}, {"inputs", std::move(inputs)}}},
      {"4", {{"class_type", "Keep"}, {"inputs", {{"value", {"3", 0}}}}}}};
  return tiny.run(prompt).error;
}

}  // namespace

TEST_CASE("RebatchImages parts lists anew and keeps the order") {
  TinyApp tiny;
  std::vector<Value> images;
  for (int items : {3, 1, 2})
    images.push_back(Value::of("IMAGE", at::full({items, 2, 2, 3}, static_cast<double>(items))));
  auto batches = run_with_lists(tiny.catalog.get("RebatchImages"),
                                {{"images", images}, {"batch_size", {Value::constant(4)}}});
  REQUIRE(batches.size() == 2);
  CHECK(batches[0].as<at::Tensor>().size(0) == 4);
  CHECK(batches[1].as<at::Tensor>().size(0) == 2);
  CHECK(batches[0].as<at::Tensor>()[3][0][0][0].item<float>() == 1.0f);
}

TEST_CASE("RebatchLatents numbers latents through and begins anew at another size") {
  TinyApp tiny;
  auto latent = [](int items, int side) {
    return Value::of("LATENT", sampling::Latent{at::zeros({items, 4, side, side}), {}, {}});
  };
  auto masked = sampling::Latent{at::zeros({1, 4, 2, 2}), at::full({1, 1, 16, 16}, 0.5), {7}};
  auto batches =
      run_with_lists(tiny.catalog.get("RebatchLatents"),
                     {{"latents", {latent(3, 2), Value::of("LATENT", masked), latent(1, 3)}},
                      {"batch_size", {Value::constant(2)}}});
  REQUIRE(batches.size() == 3);
  const auto& first = batches[0].as<sampling::Latent>();
  CHECK(first.batch_index == std::vector<std::int64_t>{0, 1});
  CHECK(!first.noise_mask.defined());
  const auto& second = batches[1].as<sampling::Latent>();
  CHECK(second.batch_index == std::vector<std::int64_t>{2, 7});
  CHECK(second.noise_mask.mean().item<double>() == doctest::Approx(0.75));
  CHECK(batches[2].as<sampling::Latent>().batch_index == std::vector<std::int64_t>{4});
}

TEST_CASE("LatentBatchSeedBehavior gives all latents one number, or each its own") {
  TinyApp tiny;
  const auto& type = tiny.catalog.get("LatentBatchSeedBehavior");
  sampling::Latent latent{at::zeros({3, 4, 2, 2}), {}, {5, 6, 7}};
  auto behave = [&](const char* how) {
    return graph::run_node(type, {{"samples", Value::of("LATENT", latent)},
                                  {"seed_behavior", Value::constant(how)}})[0]
        .as<sampling::Latent>()
        .batch_index;
  };
  CHECK(behave("fixed") == std::vector<std::int64_t>{5, 5, 5});
  CHECK(behave("random").empty());
}

TEST_CASE("nodes for pictures name what they cannot do") {
  TinyApp tiny;
  CHECK(error_of(tiny, "ImageBlur", {{"image", {"1", 0}}, {"blur_radius", 6}, {"sigma", 1.0}})
            .find("radius") != std::string::npos);
  CHECK(error_of(tiny, "Canny",
                 {{"image", {"1", 0}}, {"low_threshold", 0.9}, {"high_threshold", 0.2}})
            .find("low_threshold") != std::string::npos);
  CHECK(error_of(tiny, "ImageScaleToMaxDimension",
                 {{"image", {"1", 0}}, {"upscale_method", "area"}, {"largest_size", 0}})
            .find("0x0") != std::string::npos);
}

TEST_CASE("regular expressions end where they would run for ever, and say what is wrong") {
  nodes::Regex slow(U"(a+)+b", {});
  CHECK_THROWS_WITH_AS(slow.search(std::u32string(40, U'a')), doctest::Contains("too many ways"),
                       Error);
  for (auto pattern : {U"(a", U"a)", U"[a", U"*", U"a**", U"(?<=a+)b", U"\\q", U"(?P<x>a)(?P<x>b)",
                       U"\\2", U"a{3,2}", U"(?z:a)", U"[b-a]", U"((a{1000}){1000}){1000}"})
    CHECK_THROWS_AS(nodes::Regex(pattern, {}), Error);
  CHECK(nodes::Regex(U"x{,2}y{a}", {}).search(U"xxy{a}").has_value());
}

TEST_CASE("PreviewAny shows values of every kind") {
  TinyApp tiny;
  auto shown = [&](Value value) {
    graph::Call::Inputs given;
    given.values["source"] = {std::move(value)};
    const auto& type = tiny.catalog.get("PreviewAny");
    graph::Call call(type, std::move(given));
    type.run(call);
    return call.ui_output()["text"][0].get<std::string>();
  };
  CHECK(shown(Value::constant(2.0)) == "2.0");
  CHECK(shown(Value::constant(true)) == "True");
  CHECK(shown(Value::constant("text")) == "text");
  CHECK(shown(Value::of("IMAGE", at::zeros({1, 4, 6, 3}))) == "IMAGE [1, 4, 6, 3]");
}
