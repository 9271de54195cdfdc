#include <ATen/ATen.h>

#include "tests/serve/nodes/testing_nodes.h"

namespace distorch::testing_nodes {

using namespace graph;

namespace {

constexpr const char* kCategory = "Testing/Nodes";
constexpr std::int64_t kSide = 512;  // of pictures made of a number

Value picture(at::Tensor image) { return Value::of("IMAGE", std::move(image)); }

at::Tensor plain(double brightness) {
  return at::full({1, kSide, kSide, 3}, brightness, at::kFloat);
}

/// Smallest and largest value.
std::pair<float, float> range_of(const at::Tensor& mask) {
  return {mask.min().item<float>(), mask.max().item<float>()};
}

// --- TestLazyMixImages: image1 where the mask is 0, image2 where it is 1

std::vector<std::string> images_needed(const Call& call) {
  auto [low, high] = range_of(call.get<at::Tensor>("mask"));
  std::vector<std::string> names;
  if (low != 1 || high != 1) names.push_back("image1");
  if (low != 0 || high != 0) names.push_back("image2");
  return names;
}

void run_lazy_mix(Call& call) {
  auto mask = call.get<at::Tensor>("mask");
  auto [low, high] = range_of(mask);
  if (low == 0 && high == 0) return call.out(0, call.in("image1"));
  if (low == 1 && high == 1) return call.out(0, call.in("image2"));
  if (mask.dim() == 2) mask = mask.unsqueeze(0);
  mask = mask.unsqueeze(-1);  // [B, H, W, 1]
  const auto& first = call.get<at::Tensor>("image1");
  const auto& second = call.get<at::Tensor>("image2");
  if (first.sizes() != second.sizes())
    throw Error(ErrorKind::Shape, call.place(), "the two images differ in size");
  call.out(0, picture(first * (1 - mask) + second * mask));
}

// --- TestVariadicAverage: of input1, input2, ... as many as are linked

void run_average(Call& call) {
  std::vector<at::Tensor> images;
  for (int i = 1; call.has("input" + std::to_string(i)); ++i)
    images.push_back(call.get<at::Tensor>("input" + std::to_string(i)));
  call.out(0, picture(at::stack(images).mean(0)));
}

// --- TestCustomValidation1 to 5: a picture of the product of two numbers or pictures

at::Tensor factor(const Call& call, const char* name) {
  const auto& value = call.in(name);
  return value.is<at::Tensor>() ? value.as<at::Tensor>() : at::full({}, call.number(name));
}

void run_product(Call& call) {
  auto product = factor(call, "input1") * factor(call, "input2");
  if (product.dim() == 0) product = plain(product.item<double>());
  call.out(0, picture(product));
}

/// Only fractions are good as constants.
std::string not_a_fraction(const Call& call) {
  for (const char* name : {"input1", "input2"})
    if (call.has(name) && !call.get<Json>(name).is_number_float())
      return std::string("Invalid type of ") + name;
  return "";
}

std::string no_sevens(const Call& call) {
  bool seven = call.has("input2") && call.number("input2") == 7;
  return seven ? "7s are not allowed." : "";
}

void add_validation_nodes(Catalog& catalog) {
  auto add = [&](int number, std::vector<Input> inputs, std::vector<InputCheck> checks) {
    catalog.add({.name = "TestCustomValidation" + std::to_string(number),
                 .display_name = "Custom Validation " + std::to_string(number),
                 .category = kCategory,
                 .inputs = std::move(inputs),
                 .outputs = {"IMAGE"},
                 .run = run_product,
                 .checks = std::move(checks)});
  };
  std::vector<Input> either = {link("input1", "IMAGE,FLOAT"), link("input2", "IMAGE,FLOAT")};
  std::vector<InputCheck> fractions = {{{"input1", "input2"}, not_a_fraction}};
  add(1, either, fractions);
  add(2, either, fractions);
  add(3, either, {});
  add(4, {number("input1"), number("input2")}, fractions);
  add(5, {number("input1", {.min = 0.0, .max = 1.0}), number("input2", {.min = 0.0, .max = 1.0})},
      {{{"input1", "input2"}, no_sevens}});
}

// --- change keys

std::optional<std::string> asked_to_change(const Call& call) {
  if (call.has("should_change") && call.boolean("should_change")) return std::nullopt;
  return "same";
}

void add_changing_nodes(Catalog& catalog) {
  catalog.add({.name = "TestCustomIsChanged",
               .display_name = "Custom IsChanged",
               .category = kCategory,
               .inputs = {link("image", "IMAGE"),
                          optional(link("should_change", "BOOL", {.extra = {{"default", false}}}))},
               .outputs = {"IMAGE"},
               .run = [](Call& call) { call.out(0, call.in("image")); },
               .change_key = asked_to_change});
  catalog.add(
      {.name = "TestIsChangedWithConstants",
       .display_name = "IsChanged With Constants",
       .category = kCategory,
       .inputs = {link("image", "IMAGE"), number("value", {.def = 1.0, .min = 0.0, .max = 10.0})},
       .outputs = {"IMAGE"},
       .run =
           [](Call& call) {
             call.out(0, picture(call.get<at::Tensor>("image") * call.number("value")));
           },
       .change_key = [](const Call& call) -> std::optional<std::string> {
         return call.has("image") ? "with a picture" : std::to_string(call.number("value"));
       }});
}

// --- expansions

Json node(const char* type, Json inputs) {
  return {{"class_type", type}, {"inputs", std::move(inputs)}};
}

Json sized(Json first) {
  first.update({{"height", kSide}, {"width", kSide}, {"batch_size", 1}});
  return first;
}

/// Two mixes of which each needs the other.
void run_cycle(Call& call) {
  Json first = call.hold(call.in("input1")), second = call.hold(call.in("input2"));
  call.expand(
      {{"mask", node("StubMask", sized({{"value", 0.5}}))},
       {"mix1", node("TestLazyMixImages",
                     {{"image1", first}, {"image2", {"mix2", 0}}, {"mask", {"mask", 0}}})},
       {"mix2", node("TestLazyMixImages",
                     {{"image1", {"mix1", 0}}, {"image2", second}, {"mask", {"mask", 0}}})}});
  call.out_link(0, {"mix2", 0});
}

/// Up to 0.2 a picture, beyond it a graph that makes one.
void run_mixed_returns(Call& call) {
  double wanted = call.number("input1");
  call.out(1, picture(plain(1)));
  if (wanted <= 0.2) return call.out(0, picture(plain(wanted <= 0.1 ? 0.1 : 0.2)));
  call.expand(
      {{"mask", node("StubMask", sized({{"value", 0.3}}))},
       {"black", node("StubImage", sized({{"content", "BLACK"}}))},
       {"white", node("StubImage", sized({{"content", "WHITE"}}))},
       {"mix", node("TestLazyMixImages",
                    {{"image1", {"black", 0}}, {"image2", {"white", 0}}, {"mask", {"mask", 0}}})}});
  call.out_link(0, {"mix", 0});
}

void add_expanding_nodes(Catalog& catalog) {
  catalog.add({.name = "TestDynamicDependencyCycle",
               .display_name = "Dynamic Dependency Cycle",
               .category = kCategory,
               .inputs = {link("input1", "IMAGE"), link("input2", "IMAGE")},
               .outputs = {"IMAGE"},
               .run = run_cycle});
  catalog.add({.name = "TestMixedExpansionReturns",
               .display_name = "Mixed Expansion Returns",
               .category = kCategory,
               .inputs = {number("input1")},
               .outputs = {"IMAGE", "IMAGE"},
               .run = run_mixed_returns});
}

}  // namespace

void add_picture_nodes(Catalog& catalog) {
  catalog.add({.name = "TestLazyMixImages",
               .display_name = "Lazy Mix Images",
               .category = kCategory,
               .inputs = {link("image1", "IMAGE", {.lazy = true}),
                          link("image2", "IMAGE", {.lazy = true}), link("mask", "MASK")},
               .outputs = {"IMAGE"},
               .run = run_lazy_mix,
               .needed_lazy = images_needed});
  catalog.add({.name = "TestVariadicAverage",
               .display_name = "Variadic Average",
               .category = kCategory,
               .inputs = {link("input1", "IMAGE")},
               .outputs = {"IMAGE"},
               .takes_more_links = true,
               .run = run_average});
  catalog.add(
      {.name = "TestOutputNodeWithSocketOutput",
       .display_name = "Test Output Node With Socket Output",
       .category = "experimental",
       .inputs = {link("image", "IMAGE"), number("value", {.def = 1.0, .min = 0.0, .max = 10.0})},
       .outputs = {"IMAGE"},
       .output_node = true,
       .run = [](Call& call) {
         call.out(0, picture(call.get<at::Tensor>("image") * call.number("value")));
       }});
  add_validation_nodes(catalog);
  add_changing_nodes(catalog);
  add_expanding_nodes(catalog);
}

}  // namespace distorch::testing_nodes
