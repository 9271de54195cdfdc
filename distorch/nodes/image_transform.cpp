#include <fmt/format.h>

#include <cmath>

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
using graph::Value;

namespace {

constexpr const char* kModule = "comfy_extras.nodes_images";
constexpr const char* kPostModule = "comfy_extras.nodes_post_processing";

void run_crop(Call& call) {
  const auto& image = image_input(call, "image");
  auto part = [&](int dim, const char* start, const char* length) {
    auto from = std::min(call.integer(start), image.size(dim) - 1);
    return std::pair(from, std::min(call.integer(length), image.size(dim) - from));
  };
  auto [x, width] = part(2, "x", "width");
  auto [y, height] = part(1, "y", "height");
  image_out(call, 0, image.narrow(1, y, height).narrow(2, x, width));
}

void run_flip(Call& call) {
  auto dim = call.text("flip_method").starts_with("x") ? 1 : 2;
  image_out(call, 0, at::flip(image_input(call, "image"), {dim}));
}

/// Quarter turns to the right that a choice such as "90 degrees" means.
int quarter_turns(const std::string& rotation) {
  return rotation.starts_with("90")    ? 1
         : rotation.starts_with("180") ? 2
         : rotation.starts_with("270") ? 3
                                       : 0;
}

void run_rotate(Call& call) {
  image_out(call, 0,
            at::rot90(image_input(call, "image"), quarter_turns(call.text("rotation")), {2, 1}));
}

/// Red, green and blue of a colour's name.
std::array<float, 3> color_of(const std::string& name) {
  if (name == "white") return {1, 1, 1};
  if (name == "red") return {1, 0, 0};
  if (name == "green") return {0, 1, 0};
  if (name == "blue") return {0, 0, 1};
  return {0, 0, 0};
}

/// A stripe of one colour, opaque.
Tensor stripe(std::vector<std::int64_t> shape, const std::string& color) {
  auto result = at::zeros(shape, at::kFloat);
  auto values = color_of(color);
  for (std::int64_t c = 0; c < std::min<std::int64_t>(3, shape[3]); ++c)
    result.select(3, c).fill_(values[static_cast<std::size_t>(c)]);
  if (shape[3] == 4) result.select(3, 3).fill_(1.0);
  return result;
}

/// The picture in the middle of `length` along a dimension; what is added has one value.
Tensor pad_to(const Tensor& image, std::int64_t dim, std::int64_t length, double value) {
  auto missing = length - image.size(dim);
  if (missing <= 0) return image;
  auto shape = image.sizes().vec();
  shape[static_cast<std::size_t>(dim)] = length;
  auto result = at::full(shape, value, image.options());
  result.narrow(dim, missing / 2, image.size(dim)).copy_(image);
  return result;
}

Tensor with_channels(const Tensor& image, std::int64_t channels) {
  if (image.size(3) >= channels) return image;
  auto shape = image.sizes().vec();
  shape[3] = channels - image.size(3);
  return at::cat({image, at::ones(shape, image.options())}, 3);
}

/// The last picture of a batch repeats until there are `items`.
Tensor lengthen(const Tensor& image, std::int64_t items) {
  auto missing = items - image.size(0);
  if (missing <= 0) return image;
  return at::cat({image, image.narrow(0, image.size(0) - 1, 1).expand({missing, -1, -1, -1})});
}

void run_stitch(Call& call) {
  auto first = image_input(call, "image1");
  if (!call.has("image2")) return image_out(call, 0, first);
  auto second = image_input(call, "image2");
  auto direction = call.text("direction"), color = call.text("spacing_color");
  bool beside = direction == "left" || direction == "right";
  auto items = std::max(first.size(0), second.size(0));
  first = lengthen(first, items);
  second = lengthen(second, items);
  if (call.boolean("match_image_size")) {
    auto aspect = static_cast<double>(second.size(2)) / static_cast<double>(second.size(1));
    auto height = first.size(1), width = first.size(2);
    if (beside)
      width = static_cast<std::int64_t>(static_cast<double>(height) * aspect);
    else
      height = static_cast<std::int64_t>(static_cast<double>(width) / aspect);
    second = resize_image(second, {width, height, "lanczos", false});
  } else {
    auto across = beside ? 1 : 2;
    auto length = std::max(first.size(across), second.size(across));
    // Coloured padding is black here: only the stripe takes a colour.
    auto value = color == "white" ? 1.0 : 0.0;
    first = pad_to(first, across, length, value);
    second = pad_to(second, across, length, value);
  }
  auto channels = std::max(first.size(3), second.size(3));
  first = with_channels(first, channels);
  second = with_channels(second, channels);
  std::vector<Tensor> parts = {first, second};
  if (direction == "left" || direction == "up") std::swap(parts[0], parts[1]);
  if (auto spacing = call.integer("spacing_width"); spacing > 0) {
    spacing += spacing % 2;
    auto shape = beside ? std::vector{items, first.size(1), spacing, channels}
                        : std::vector{items, spacing, first.size(2), channels};
    parts.insert(parts.begin() + 1, stripe(shape, color));
  }
  image_out(call, 0, at::cat(parts, beside ? 2 : 1));
}

void run_resize_and_pad(Call& call) {
  const auto& image = image_input(call, "image");
  auto width = call.integer("target_width"), height = call.integer("target_height");
  auto have_width = static_cast<double>(image.size(2)),
       have_height = static_cast<double>(image.size(1));
  auto scale =
      std::min(static_cast<double>(width) / have_width, static_cast<double>(height) / have_height);
  auto new_width = static_cast<std::int64_t>(have_width * scale),
       new_height = static_cast<std::int64_t>(have_height * scale);
  auto small = resize_image(image, {new_width, new_height, call.text("interpolation"), false});
  auto result = at::full({image.size(0), height, width, image.size(3)},
                         call.text("padding_color") == "black" ? 0.0 : 1.0, image.options());
  result.narrow(1, (height - new_height) / 2, new_height)
      .narrow(2, (width - new_width) / 2, new_width)
      .copy_(small);
  image_out(call, 0, result);
}

void run_to_total_pixels(Call& call) {
  const auto& image = image_input(call, "image");
  auto total = std::trunc(call.number("megapixels") * 1024 * 1024);
  auto by = std::sqrt(total / static_cast<double>(image.size(2) * image.size(1)));
  // Prompts made before there was this input come without it.
  auto steps = call.has("resolution_steps") ? call.integer("resolution_steps") : 1;
  auto scaled = [&](int dim) {
    auto side = static_cast<double>(image.size(dim)) * by;
    return std::max(steps, round_half_even(side / static_cast<double>(steps)) * steps);
  };
  image_out(call, 0,
            resize_image(image, {scaled(2), scaled(1), call.text("upscale_method"), false}));
}

void run_to_max_dimension(Call& call) {
  const auto& image = image_input(call, "image");
  auto largest = call.integer("largest_size");
  auto height = largest, width = largest;
  auto shorter = [&](int small, int large) {
    return round_half_even(static_cast<double>(image.size(small)) /
                           static_cast<double>(image.size(large)) * static_cast<double>(largest));
  };
  if (image.size(1) > image.size(2)) width = shorter(2, 1);
  if (image.size(2) > image.size(1)) height = shorter(1, 2);
  image_out(call, 0, resize_image(image, {width, height, call.text("upscale_method"), false}));
}

/// How far pixels near a border with new ones beside it are repainted: 1 at the border, falling
/// with the square of the distance to 0 at `feathering` pixels from it.
Tensor feathered(std::int64_t height, std::int64_t width, const std::array<bool, 4>& grown,
                 std::int64_t feathering) {
  auto [left, top, right, bottom] = grown;
  auto mask = at::zeros({height, width}, at::kFloat);
  if (feathering <= 0 || feathering * 2 >= height || feathering * 2 >= width) return mask;
  auto* values = mask.mutable_data_ptr<float>();
  for (std::int64_t y = 0; y < height; ++y)
    for (std::int64_t x = 0; x < width; ++x) {
      auto distance = std::min({top ? y : height, bottom ? height - y : height, left ? x : width,
                                right ? width - x : width});
      if (distance >= feathering) continue;
      auto share = static_cast<double>(feathering - distance) / static_cast<double>(feathering);
      values[y * width + x] = static_cast<float>(share * share);
    }
  return mask;
}

void run_pad_for_outpaint(Call& call) {
  const auto& image = image_input(call, "image");
  auto left = call.integer("left"), top = call.integer("top"), right = call.integer("right"),
       bottom = call.integer("bottom");
  auto height = image.size(1), width = image.size(2);
  auto place = [&](const Tensor& canvas, int dim) {
    return canvas.narrow(dim, top, height).narrow(dim + 1, left, width);
  };
  auto grown = at::full({image.size(0), height + top + bottom, width + left + right, image.size(3)},
                        0.5, at::kFloat);
  place(grown, 1).copy_(image);
  auto mask = at::ones({height + top + bottom, width + left + right}, at::kFloat);
  place(mask, 0).copy_(feathered(height, width, {left != 0, top != 0, right != 0, bottom != 0},
                                 call.integer("feathering")));
  image_out(call, 0, grown);
  mask_out(call, 1, mask.unsqueeze(0));
}

void run_size(Call& call) {
  const auto& image = image_input(call, "image");
  call.preview(Value::constant(fmt::format("width: {}, height: {}\n batch size: {}", image.size(2),
                                           image.size(1), image.size(0))));
  call.out(0, Value::constant(image.size(2)));
  call.out(1, Value::constant(image.size(1)));
  call.out(2, Value::constant(image.size(0)));
}

graph::Input side(const char* name, int def, int min) {
  return integer(name, {.def = def, .min = min, .max = 16384, .step = 1});
}

void add_cuts_and_turns(graph::Catalog& catalog) {
  catalog.add({
      .name = "ImageCrop",
      .display_name = "Image Crop",
      .category = "image/transform",
      .python_module = kModule,
      .inputs = {link("image", "IMAGE"), side("width", 512, 1), side("height", 512, 1),
                 side("x", 0, 0), side("y", 0, 0)},
      .outputs = {"IMAGE"},
      .run = run_crop,
  });
  catalog.add({
      .name = "ImageFlip",
      .category = "image/transform",
      .python_module = kModule,
      .inputs = {link("image", "IMAGE"),
                 choice("flip_method", {"x-axis: vertically", "y-axis: horizontally"})},
      .outputs = {"IMAGE"},
      .run = run_flip,
  });
  catalog.add({
      .name = "ImageRotate",
      .category = "image/transform",
      .python_module = kModule,
      .inputs = {link("image", "IMAGE"),
                 choice("rotation", {"none", "90 degrees", "180 degrees", "270 degrees"})},
      .outputs = {"IMAGE"},
      .run = run_rotate,
  });
  catalog.add({
      .name = "ImageStitch",
      .display_name = "Image Stitch",
      .category = "image/transform",
      .description =
          "Joins two pictures side by side or one above the other, with a stripe between "
          "them where one is asked for. Without a second picture the first goes on as it "
          "is.",
      .python_module = kModule,
      .inputs = {link("image1", "IMAGE"),
                 choice("direction", {"right", "down", "left", "up"}, {.def = "right"}),
                 boolean("match_image_size", {.def = true}),
                 integer("spacing_width", {.def = 0, .min = 0, .max = 1024, .step = 2}),
                 choice("spacing_color", {"white", "black", "red", "green", "blue"},
                        {.def = "white"}),
                 optional(link("image2", "IMAGE"))},
      .outputs = {"IMAGE"},
      .run = run_stitch,
  });
}

void add_sizes(graph::Catalog& catalog) {
  catalog.add({
      .name = "ResizeAndPadImage",
      .category = "image/transform",
      .python_module = kModule,
      .inputs = {link("image", "IMAGE"), side("target_width", 512, 1),
                 side("target_height", 512, 1), choice("padding_color", {"white", "black"}),
                 choice("interpolation",
                        {"area", "bicubic", "nearest-exact", "bilinear", "lanczos"})},
      .outputs = {"IMAGE"},
      .run = run_resize_and_pad,
  });
  catalog.add({
      .name = "ImageScaleToMaxDimension",
      .category = "image/upscaling",
      .python_module = kModule,
      .inputs = {link("image", "IMAGE"),
                 choice("upscale_method",
                        {"area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic"}),
                 side("largest_size", 512, 0)},
      .outputs = {"IMAGE"},
      .run = run_to_max_dimension,
  });
  catalog.add({
      .name = "ImageScaleToTotalPixels",
      .category = "image/upscaling",
      .python_module = kPostModule,
      .inputs = {link("image", "IMAGE"),
                 choice("upscale_method",
                        {"nearest-exact", "bilinear", "area", "bicubic", "lanczos"}),
                 number("megapixels", {.def = 1.0, .min = 0.01, .max = 16.0, .step = 0.01}),
                 optional(integer("resolution_steps", {.def = 1, .min = 1, .max = 256}))},
      .outputs = {"IMAGE"},
      .newer_schema = true,
      .run = run_to_total_pixels,
  });
  auto border = [](const char* name) {
    return integer(name, {.def = 0, .min = 0, .max = 16384, .step = 8});
  };
  catalog.add({
      .name = "ImagePadForOutpaint",
      .display_name = "Pad Image for Outpainting",
      .category = "image",
      .inputs = {link("image", "IMAGE"), border("left"), border("top"), border("right"),
                 border("bottom"),
                 integer("feathering", {.def = 40, .min = 0, .max = 16384, .step = 1})},
      .outputs = {"IMAGE", "MASK"},
      .run = run_pad_for_outpaint,
  });
  catalog.add({
      .name = "GetImageSize",
      .display_name = "Get Image Size",
      .category = "image",
      .description = "Gives width and height of a picture and how many of them the batch holds.",
      .python_module = kModule,
      .inputs = {link("image", "IMAGE")},
      .hidden = {{"unique_id", "UNIQUE_ID"}},
      .outputs = {{"INT", "width"}, {"INT", "height"}, {"INT", "batch_size"}},
      .run = run_size,
  });
}

}  // namespace

void add_image_transform_nodes(graph::Catalog& catalog) {
  add_cuts_and_turns(catalog);
  add_sizes(catalog);
}

}  // namespace distorch::nodes
