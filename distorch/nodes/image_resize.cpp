#include <cmath>

#include "distorch/base/error.h"
#include "distorch/graph/dynamic_inputs.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/pictures.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::number;
using graph::Value;

namespace {

/// An image or a mask as [B, C, H, W].
Tensor planes(const Call& call, const char* name) {
  const auto& given = call.get<Tensor>(name);
  if (given.dim() == 4) return image_input(call, name).movedim(-1, 1);
  return mask_input(call, name).unsqueeze(1);
}

struct Size {
  std::int64_t width, height;
};

std::int64_t scaled(std::int64_t length, std::int64_t to, std::int64_t from) {
  return round_half_even(static_cast<double>(length) / static_cast<double>(from) *
                         static_cast<double>(to));
}

/// 0 for a side: it follows from the other one.
Size with_aspect(Size have, Size wanted) {
  auto follows = [](std::int64_t length, std::int64_t to, std::int64_t from) {
    auto exact = static_cast<double>(length) * static_cast<double>(to) / static_cast<double>(from);
    return std::max<std::int64_t>(1, round_half_even(exact));
  };
  if (wanted.width == 0)
    wanted.width = follows(have.width, wanted.height, have.height);
  else if (wanted.height == 0)
    wanted.height = follows(have.height, wanted.width, have.width);
  return wanted;
}

/// One side becomes `length`: the longer one, or the shorter.
Size by_side(Size have, std::int64_t length, bool longer) {
  if (have.width == have.height) return {length, length};
  bool height_leads = (have.height > have.width) == longer;
  if (height_leads) return {scaled(have.width, length, have.height), length};
  return {length, scaled(have.height, length, have.width)};
}

Size by_factor(Size have, double factor) {
  auto side = [&](std::int64_t length) {
    return round_half_even(static_cast<double>(length) * factor);
  };
  return {side(have.width), side(have.height)};
}

/// Covers the largest multiples that fit, and is cut to them around the middle.
Tensor to_multiple(const Tensor& x, std::int64_t multiple, const std::string& method) {
  Size have{x.size(3), x.size(2)};
  Size target{have.width / multiple * multiple, have.height / multiple * multiple};
  if (multiple <= 1 || target.width == 0 || target.height == 0) return x;
  if (target.width == have.width && target.height == have.height) return x;
  auto by_width = static_cast<double>(target.width) / static_cast<double>(have.width),
       by_height = static_cast<double>(target.height) / static_cast<double>(have.height);
  auto covering = [](std::int64_t length, double by, std::int64_t least) {
    return std::max(least, static_cast<std::int64_t>(std::ceil(static_cast<double>(length) * by)));
  };
  Size cover = target;
  if (by_width >= by_height)
    cover.height = covering(have.height, by_width, target.height);
  else
    cover.width = covering(have.width, by_height, target.width);
  return resize(x, {cover.width, cover.height, method, false})
      .narrow(2, (cover.height - target.height) / 2, target.height)
      .narrow(3, (cover.width - target.width) / 2, target.width);
}

Tensor resized(const Call& call, const Tensor& x) {
  auto kind = call.text("resize_type"), method = call.text("scale_method");
  auto whole = [&](const char* name) { return call.integer(std::string("resize_type.") + name); };
  auto part = [&](const char* name) { return call.number(std::string("resize_type.") + name); };
  Size have{x.size(3), x.size(2)};
  auto to = [&](Size size, const std::string& crop = "disabled") {
    return resize(x, {size.width, size.height, method, crop == "center"});
  };
  if (kind == "scale to multiple") return to_multiple(x, whole("multiple"), method);
  if (kind == "scale by multiplier") return to(by_factor(have, part("multiplier")));
  if (kind == "scale longer dimension") return to(by_side(have, whole("longer_size"), true));
  if (kind == "scale shorter dimension") return to(by_side(have, whole("shorter_size"), false));
  if (kind == "scale total pixels") {
    auto total = std::trunc(part("megapixels") * 1024 * 1024);
    return to(by_factor(have, std::sqrt(total / static_cast<double>(have.width * have.height))));
  }
  if (kind == "match size") {
    auto like = planes(call, "resize_type.match");
    return to({like.size(3), like.size(2)}, call.text("resize_type.crop"));
  }
  Size wanted{kind == "scale height" ? 0 : whole("width"),
              kind == "scale width" ? 0 : whole("height")};
  if (wanted.width == 0 && wanted.height == 0) return x;
  return to(with_aspect(have, wanted),
            kind == "scale dimensions" ? call.text("resize_type.crop") : "disabled");
}

void run_resize(Call& call) {
  auto result = resized(call, planes(call, "input"));
  if (call.get<Tensor>("input").dim() == 4)
    image_out(call, 0, result.movedim(1, -1));
  else
    mask_out(call, 0, result.squeeze(1));
}

// A rectangle as the page draws it: {"x", "y", "width", "height"}.
void run_rectangle(Call& call) {
  graph::Json box;
  for (const char* name : {"x", "y", "width", "height"}) box[name] = call.integer(name);
  call.out(0, Value::of("BOUNDING_BOX", std::move(box)));
}

void run_crop(Call& call) {
  const auto& image = image_input(call, "image");
  const auto& box = call.get<graph::Json>("crop_region");
  auto part = [&](int dim, const char* start, const char* length) {
    auto from = std::clamp<std::int64_t>(box.value(start, 0), 0, image.size(dim) - 1);
    auto wanted = std::max<std::int64_t>(1, box.value(length, 512));
    return std::pair(from, std::min(wanted, image.size(dim) - from));
  };
  auto [x, width] = part(2, "x", "width");
  auto [y, height] = part(1, "y", "height");
  image_out(call, 0, image.narrow(1, y, height).narrow(2, x, width));
}

graph::Input pixels(const char* name, const char* tip) {
  return integer(name, {.def = 512, .min = 0, .max = 16384, .step = 1, .tooltip = tip});
}

std::vector<graph::Option> resize_options() {
  auto crop = choice("crop", {"disabled", "center"},
                     {.def = "center",
                      .tooltip = "Where the shape changes: disabled stretches the picture, center "
                                 "cuts off what is too much."});
  const char* either = "In pixels; at 0 it follows from the other side.";
  const char* alone = "In pixels; the other side follows.";
  return {
      {"scale dimensions", {pixels("width", either), pixels("height", either), crop}},
      {"scale by multiplier",
       {number("multiplier", {.def = 1.0,
                              .min = 0.01,
                              .max = 8.0,
                              .step = 0.01,
                              .tooltip = "2 doubles both sides."})}},
      {"scale longer dimension", {pixels("longer_size", alone)}},
      {"scale shorter dimension", {pixels("shorter_size", alone)}},
      {"scale width", {pixels("width", alone)}},
      {"scale height", {pixels("height", alone)}},
      {"scale total pixels",
       {number("megapixels", {.def = 1.0,
                              .min = 0.01,
                              .max = 16.0,
                              .step = 0.01,
                              .tooltip = "Millions of pixels, of 1024 x 1024 each."})}},
      {"match size",
       {graph::link("match", "IMAGE,MASK", {.tooltip = "Whose size it becomes."}), crop}},
      {"scale to multiple",
       {integer("multiple", {.def = 8,
                             .min = 1,
                             .max = 16384,
                             .step = 1,
                             .tooltip = "Both sides become multiples of this."})}},
  };
}

}  // namespace

void add_image_resize_nodes(graph::Catalog& catalog) {
  catalog.add({
      .name = "ResizeImageMaskNode",
      .display_name = "Resize Image/Mask",
      .category = "image/transform",
      .description = "Gives an image or a mask another size.",
      .python_module = "comfy_extras.nodes_post_processing",
      .inputs = {graph::match_type("input", "input_type", "IMAGE,MASK"),
                 graph::dynamic_choice("resize_type", resize_options(),
                                       "What the new size is told by."),
                 choice("scale_method", {"nearest-exact", "bilinear", "area", "bicubic", "lanczos"},
                        {.def = "area",
                         .tooltip = "area suits smaller pictures, lanczos larger ones, "
                                    "nearest-exact keeps pixels apart."})},
      .outputs = {{graph::kMatchType, "resized"}},
      .newer_schema = true,
      .run = run_resize,
  });
  graph::Json box = {{"x", 0}, {"y", 0}, {"width", 512}, {"height", 512}};
  catalog.add({
      .name = "ImageCropV2",
      .display_name = "Crop Image",
      .category = "image/transform",
      .description = "Cuts a rectangle out of an image.",
      .python_module = "comfy_extras.nodes_images",
      .inputs = {graph::link("image", "IMAGE"),
                 graph::link("crop_region", "BOUNDING_BOX",
                             {.extra = {{"default", box},
                                        {"socketless", true},
                                        {"component", "ImageCrop"}}})},
      .outputs = {"IMAGE"},
      .newer_schema = true,
      .run = run_crop,
  });
  auto side = [](const char* name, int def, int min) {
    return integer(name, {.def = def, .min = min, .max = 16384});
  };
  catalog.add({
      .name = "PrimitiveBoundingBox",
      .display_name = "Bounding Box",
      .category = "utilities/primitive",
      .python_module = "comfy_extras.nodes_images",
      .inputs = {side("x", 0, 0), side("y", 0, 0), side("width", 512, 1), side("height", 512, 1)},
      .outputs = {"BOUNDING_BOX"},
      .newer_schema = true,
      .run = run_rectangle,
  });
}

}  // namespace distorch::nodes
