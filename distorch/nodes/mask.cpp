#include "distorch/nodes/catalog.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using graph::Value;

namespace {

constexpr const char* kModule = "comfy_extras.nodes_mask";

void out(Call& call, Tensor mask) { call.out(0, Value::of("MASK", std::move(mask))); }

void run_solid(Call& call) {
  out(call, at::full({1, call.integer("height"), call.integer("width")}, call.number("value"),
                     at::kFloat));
}

void run_invert(Call& call) { out(call, 1.0 - call.get<Tensor>("mask")); }

void run_from_image(Call& call) {
  const auto& image = call.get<Tensor>("image");
  auto channel = call.text("channel");
  int index = channel == "red" ? 0 : channel == "green" ? 1 : channel == "blue" ? 2 : 3;
  if (index >= image.size(3))
    throw Error(ErrorKind::Shape, call.place(), "the image has no channel '" + channel + "'");
  out(call, image.select(3, index).contiguous());
}

void run_to_image(Call& call) {
  const auto& mask = call.get<Tensor>("mask");
  auto gray = mask.reshape({-1, mask.size(-2), mask.size(-1), 1});
  call.out(0, Value::of("IMAGE", gray.expand({-1, -1, -1, 3}).contiguous()));
}

}  // namespace

void add_mask_nodes(graph::Catalog& catalog) {
  auto side = [](const char* name) {
    return integer(name, {.def = 512, .min = 1, .max = 16384, .step = 1});
  };
  catalog.add({
      .name = "SolidMask",
      .category = "mask",
      .python_module = kModule,
      .inputs = {number("value", {.def = 1.0, .min = 0.0, .max = 1.0, .step = 0.01}), side("width"),
                 side("height")},
      .outputs = {"MASK"},
      .run = run_solid,
  });
  catalog.add({
      .name = "InvertMask",
      .category = "mask",
      .python_module = kModule,
      .inputs = {link("mask", "MASK")},
      .outputs = {"MASK"},
      .run = run_invert,
  });
  catalog.add({
      .name = "ImageToMask",
      .display_name = "Convert Image to Mask",
      .category = "mask",
      .python_module = kModule,
      .inputs = {link("image", "IMAGE"), choice("channel", {"red", "green", "blue", "alpha"})},
      .outputs = {"MASK"},
      .run = run_from_image,
  });
  catalog.add({
      .name = "MaskToImage",
      .display_name = "Convert Mask to Image",
      .category = "mask",
      .python_module = kModule,
      .inputs = {link("mask", "MASK")},
      .outputs = {"IMAGE"},
      .run = run_to_image,
  });
}

}  // namespace distorch::nodes
