#include <ATen/ATen.h>

#include "tests/serve/nodes/testing_nodes.h"

namespace distorch::testing_nodes {

using namespace graph;

namespace {

constexpr const char* kCategory = "Testing/Stub Nodes";

std::vector<Input> with_size(Input first) {
  auto size = [](const char* name, int def) {
    return integer(name, {.def = def, .min = 1, .max = 1 << 30, .step = 1});
  };
  return {std::move(first), size("height", 512), size("width", 512), size("batch_size", 1)};
}

Input fraction(const char* name) {
  return number(name, {.def = 0.5, .min = 0.0, .max = 1.0, .step = 0.01});
}

/// [batch, height, width] as the call asks for.
std::vector<std::int64_t> size_of(const Call& call) {
  return {call.integer("batch_size"), call.integer("height"), call.integer("width")};
}

void run_image(Call& call) {
  auto size = size_of(call);
  size.push_back(3);
  auto content = call.text("content");
  auto image = content == "WHITE"   ? at::ones(size)
               : content == "BLACK" ? at::zeros(size)
                                    : at::rand(size);
  call.out(0, Value::of("IMAGE", image));
}

void run_constant_image(Call& call) {
  auto size = size_of(call);
  size.push_back(3);
  call.out(0, Value::of("IMAGE", at::full(size, call.number("value"), at::kFloat)));
}

void run_mask(Call& call) {
  call.out(0, Value::of("MASK", at::full(size_of(call), call.number("value"), at::kFloat)));
}

}  // namespace

void add_stub_nodes(Catalog& catalog) {
  catalog.add({.name = "StubImage",
               .display_name = "Stub Image",
               .category = kCategory,
               .inputs = with_size(choice("content", {"WHITE", "BLACK", "NOISE"})),
               .outputs = {"IMAGE"},
               .run = run_image});
  catalog.add({.name = "StubConstantImage",
               .display_name = "Stub Constant Image",
               .category = kCategory,
               .inputs = with_size(fraction("value")),
               .outputs = {"IMAGE"},
               .run = run_constant_image});
  catalog.add({.name = "StubMask",
               .display_name = "Stub Mask",
               .category = kCategory,
               .inputs = with_size(fraction("value")),
               .outputs = {"MASK"},
               .run = run_mask});
  catalog.add(
      {.name = "StubInt",
       .display_name = "Stub Int",
       .category = kCategory,
       .inputs = {integer("value", {.def = 0, .min = -4294967295, .max = 4294967295, .step = 1})},
       .outputs = {"INT"},
       .run = [](Call& call) { call.out(0, Value::constant(call.integer("value"))); }});
  catalog.add({.name = "StubFloat",
               .display_name = "Stub Float",
               .category = kCategory,
               .inputs = {number("value", {.def = 0.0, .min = -1e38, .max = 1e38, .step = 0.01})},
               .outputs = {"FLOAT"},
               .run = [](Call& call) { call.out(0, Value::constant(call.number("value"))); }});
}

}  // namespace distorch::testing_nodes
