#include "distorch/nodes/catalog.h"
#include "distorch/nodes/pictures.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using graph::Value;

namespace {

void out(Call& call, Tensor image) { call.out(0, Value::of("IMAGE", std::move(image))); }

void run_scale(Call& call) {
  const auto& image = call.get<Tensor>("image");
  auto width = call.integer("width"), height = call.integer("height");
  auto have_height = static_cast<double>(image.size(1)),
       have_width = static_cast<double>(image.size(2));
  if (width == 0 && height == 0) return out(call, image);
  if (width == 0)
    width = std::max<std::int64_t>(
        1, round_half_even(have_width * static_cast<double>(height) / have_height));
  if (height == 0)
    height = std::max<std::int64_t>(
        1, round_half_even(have_height * static_cast<double>(width) / have_width));
  out(call, resize_image(image, {width, height, call.text("upscale_method"),
                                 call.text("crop") == "center"}));
}

void run_scale_by(Call& call) {
  const auto& image = call.get<Tensor>("image");
  auto by = call.number("scale_by");
  auto scaled = [&](int dim) { return round_half_even(static_cast<double>(image.size(dim)) * by); };
  out(call, resize_image(image, {scaled(2), scaled(1), call.text("upscale_method"), false}));
}

void run_empty(Call& call) {
  auto color = call.integer("color");
  std::vector<float> rgb;
  for (int shift : {16, 8, 0})
    rgb.push_back(static_cast<float>(static_cast<double>((color >> shift) & 0xFF) / 255.0));
  auto pixel = at::tensor(rgb, at::kFloat);
  out(call,
      pixel.expand({call.integer("batch_size"), call.integer("height"), call.integer("width"), 3})
          .contiguous());
}

void run_invert(Call& call) { out(call, 1.0 - call.get<Tensor>("image")); }

void run_batch(Call& call) {
  const auto& first = call.get<Tensor>("image1");
  auto second = call.get<Tensor>("image2");
  if (first.sizes().slice(1) != second.sizes().slice(1))
    second = resize_image(second, {first.size(2), first.size(1), "bilinear", true});
  out(call, at::cat({first, second}));
}

}  // namespace

void add_image_nodes(graph::Catalog& catalog) {
  const graph::Choices methods = {"nearest-exact", "bilinear", "area", "bicubic", "lanczos"};
  auto image = link("image", "IMAGE");
  auto target = [](const char* name) {
    return integer(name, {.def = 512, .min = 0, .max = 16384, .step = 1});
  };
  auto side = [](const char* name) {
    return integer(name, {.def = 512, .min = 1, .max = 16384, .step = 1});
  };
  catalog.add({
      .name = "ImageScale",
      .display_name = "Upscale Image",
      .category = "image/upscaling",
      .inputs = {image, choice("upscale_method", methods), target("width"), target("height"),
                 choice("crop", {"disabled", "center"})},
      .outputs = {"IMAGE"},
      .run = run_scale,
  });
  catalog.add({
      .name = "ImageScaleBy",
      .display_name = "Upscale Image By",
      .category = "image/upscaling",
      .inputs = {image, choice("upscale_method", methods),
                 number("scale_by", {.def = 1.0, .min = 0.01, .max = 8.0, .step = 0.01})},
      .outputs = {"IMAGE"},
      .run = run_scale_by,
  });
  catalog.add({
      .name = "ImageInvert",
      .display_name = "Invert Image",
      .category = "image",
      .inputs = {image},
      .outputs = {"IMAGE"},
      .run = run_invert,
  });
  catalog.add({
      .name = "ImageBatch",
      .display_name = "Batch Images",
      .category = "image",
      .inputs = {link("image1", "IMAGE"), link("image2", "IMAGE")},
      .outputs = {"IMAGE"},
      .run = run_batch,
  });
  catalog.add({
      .name = "EmptyImage",
      .category = "image",
      .inputs = {side("width"), side("height"),
                 integer("batch_size", {.def = 1, .min = 1, .max = 4096}),
                 integer("color",
                         {.def = 0, .min = 0, .max = 16777215, .step = 1, .display = "color"})},
      .outputs = {"IMAGE"},
      .run = run_empty,
  });
}

}  // namespace distorch::nodes
