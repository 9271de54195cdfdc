#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/pictures.h"

namespace distorch::nodes {

using at::Tensor;
using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;

namespace {

constexpr const char* kModule = "comfy_extras.nodes_mask";

void run_color(Call& call) {
  auto image = match_channels(image_input(call, "image"), 3);
  auto bytes = (image.clamp(0, 1) * 255.0).round();
  auto color = call.integer("color");
  auto wanted =
      at::tensor({static_cast<float>((color >> 16) & 0xFF), static_cast<float>((color >> 8) & 0xFF),
                  static_cast<float>(color & 0xFF)});
  mask_out(call, 0, (bytes == wanted).all(-1).to(at::kFloat));
}

void run_crop(Call& call) {
  auto mask = mask_input(call, "mask");
  auto part = [&](int dim, const char* start, const char* length) {
    auto from = std::min(call.integer(start), mask.size(dim));
    return std::pair(from, std::min(call.integer(length), mask.size(dim) - from));
  };
  auto [x, width] = part(2, "x", "width");
  auto [y, height] = part(1, "y", "height");
  if (width == 0 || height == 0)
    throw Error(ErrorKind::Usage, call.place(), "the part that is cut out lies outside the mask");
  mask_out(call, 0, mask.narrow(1, y, height).narrow(2, x, width));
}

Tensor combined(const Tensor& a, const Tensor& b, const std::string& operation) {
  auto set = [](const Tensor& x) { return x.round() != 0; };
  if (operation == "multiply") return a * b;
  if (operation == "add") return a + b;
  if (operation == "subtract") return a - b;
  if (operation == "and") return set(a).logical_and(set(b)).to(at::kFloat);
  if (operation == "or") return set(a).logical_or(set(b)).to(at::kFloat);
  return set(a).logical_xor(set(b)).to(at::kFloat);
}

void run_composite(Call& call) {
  auto result = mask_input(call, "destination").clone();
  auto source = fit_batch(mask_input(call, "source"), result.size(0));
  auto x = call.integer("x"), y = call.integer("y");
  auto width = std::min(source.size(2), result.size(2) - x),
       height = std::min(source.size(1), result.size(1) - y);
  if (width > 0 && height > 0) {
    auto place = result.narrow(1, y, height).narrow(2, x, width);
    place.copy_(
        combined(place, source.narrow(1, 0, height).narrow(2, 0, width), call.text("operation")));
  }
  mask_out(call, 0, result.clamp(0, 1));
}

void run_feather(Call& call) {
  auto mask = mask_input(call, "mask").clone();
  // From a far side on, ComfyUI counts one line late: line 0 has the first share, then come the
  // last line, the last but one and so on.
  auto fade = [&](int dim, const char* name, bool far) {
    auto lines = std::min(call.integer(name), mask.size(dim));
    for (std::int64_t i = 0; i < lines; ++i) {
      auto line = far && i > 0 ? mask.size(dim) - i : i;
      mask.select(dim, far && i == 0 ? 0 : line)
          .mul_(static_cast<double>(i + 1) / static_cast<double>(lines));
    }
  };
  fade(2, "left", false);
  fade(2, "right", true);
  fade(1, "top", false);
  fade(1, "bottom", true);
  mask_out(call, 0, mask);
}

/// One pixel more in each direction: square (its corners too) or a cross.
Tensor grown_once(const Tensor& x, bool square) {
  auto beside = at::max_pool2d(x, {1, 3}, {1, 1}, {0, 1});
  if (square) return at::max_pool2d(beside, {3, 1}, {1, 1}, {1, 0});
  return at::max(beside, at::max_pool2d(x, {3, 1}, {1, 1}, {1, 0}));
}

void run_grow(Call& call) {
  auto mask = mask_input(call, "mask").unsqueeze(1);
  auto expand = call.integer("expand");
  bool square = !call.boolean("tapered_corners");
  // After as many steps as there are rows and columns nothing changes any more.
  auto steps = std::min(std::abs(expand), mask.size(2) + mask.size(3));
  if (expand < 0) mask = -mask;
  for (std::int64_t i = 0; i < steps; ++i) mask = grown_once(mask, square);
  if (expand < 0) mask = -mask;
  mask_out(call, 0, mask.squeeze(1));
}

void run_threshold(Call& call) {
  mask_out(call, 0, (mask_input(call, "mask") > call.number("value")).to(at::kFloat));
}

graph::Input pixels(const char* name, int def, int min) {
  return integer(name, {.def = def, .min = min, .max = 16384, .step = 1});
}

void add_cuts(graph::Catalog& catalog) {
  catalog.add({
      .name = "ImageColorToMask",
      .category = "mask",
      .python_module = kModule,
      .inputs = {link("image", "IMAGE"),
                 integer("color",
                         {.def = 0, .min = 0, .max = 0xFFFFFF, .step = 1, .display = "color"})},
      .outputs = {"MASK"},
      .run = run_color,
  });
  catalog.add({
      .name = "CropMask",
      .category = "mask",
      .python_module = kModule,
      .inputs = {link("mask", "MASK"), pixels("x", 0, 0), pixels("y", 0, 0),
                 pixels("width", 512, 1), pixels("height", 512, 1)},
      .outputs = {"MASK"},
      .run = run_crop,
  });
  catalog.add({
      .name = "MaskComposite",
      .category = "mask",
      .python_module = kModule,
      .inputs = {link("destination", "MASK"), link("source", "MASK"), pixels("x", 0, 0),
                 pixels("y", 0, 0),
                 choice("operation", {"multiply", "add", "subtract", "and", "or", "xor"})},
      .outputs = {"MASK"},
      .run = run_composite,
  });
}

}  // namespace

void add_mask_operation_nodes(graph::Catalog& catalog) {
  add_cuts(catalog);
  catalog.add({
      .name = "FeatherMask",
      .category = "mask",
      .python_module = kModule,
      .inputs = {link("mask", "MASK"), pixels("left", 0, 0), pixels("top", 0, 0),
                 pixels("right", 0, 0), pixels("bottom", 0, 0)},
      .outputs = {"MASK"},
      .run = run_feather,
  });
  catalog.add({
      .name = "GrowMask",
      .category = "mask",
      .python_module = kModule,
      .inputs = {link("mask", "MASK"), pixels("expand", 0, -16384),
                 boolean("tapered_corners", {.def = true})},
      .outputs = {"MASK"},
      .run = run_grow,
  });
  catalog.add({
      .name = "ThresholdMask",
      .category = "mask",
      .python_module = kModule,
      .inputs = {link("mask", "MASK"),
                 number("value", {.def = 0.5, .min = 0.0, .max = 1.0, .step = 0.01})},
      .outputs = {"MASK"},
      .run = run_threshold,
  });
}

}  // namespace distorch::nodes
