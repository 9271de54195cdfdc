// Small nodes of KJNodes that workflows of the WanVideoWrapper contain.
#include "distorch/nodes/kj_nodes.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/resize.h"

namespace distorch::nodes {

using at::Tensor;
using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::Json;
using graph::link;
using graph::optional;
using graph::Value;

namespace {

constexpr const char* kModule = "custom_nodes.ComfyUI-KJNodes";

void run_size(Call& call) {
  const auto& image = image_input(call, "image");
  call.out(0, call.in("image"));
  call.out(1, Value::of("INT", Json(image.size(2))));
  call.out(2, Value::of("INT", Json(image.size(1))));
  call.out(3, Value::of("INT", Json(image.size(0))));
  call.ui({{"text",
            Json::array({fmt::format("{}x{}x{}", image.size(0), image.size(2), image.size(1))})}});
}

void run_integer(Call& call) { call.out(0, call.in("value")); }

struct Size {
  std::int64_t width, height;
};

/// The largest size of these sides that keeps the picture's shape; one side of 0 follows the other.
Size with_shape(Size have, Size wanted) {
  const auto width = static_cast<double>(have.width), height = static_cast<double>(have.height);
  const auto by_width = static_cast<double>(wanted.width) / width,
             by_height = static_cast<double>(wanted.height) / height;
  const double ratio = wanted.width == 0    ? by_height
                       : wanted.height == 0 ? by_width
                                            : std::min(by_width, by_height);
  return {round_half_even(width * ratio), round_half_even(height * ratio)};
}

/// Both sides cut to multiples.
Size divisible(Size size, std::int64_t by) {
  if (by > 1) size = {size.width - size.width % by, size.height - size.height % by};
  return size;
}

void check_size(const Call& call, Size size) {
  if (size.width < 1 || size.height < 1)
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("leaves nothing of the picture: {} x {} pixels; ask for more, or for a "
                            "smaller 'divisible_by'",
                            size.width, size.height));
}

void out_sized(Call& call, const Tensor& image, Size size) {
  image_out(call, 0, image);
  call.out(1, Value::of("INT", Json(size.width)));
  call.out(2, Value::of("INT", Json(size.height)));
}

void run_resize(Call& call) {
  const auto& image = image_input(call, "image");
  const Size have{image.size(2), image.size(1)};
  Size size{call.integer("width"), call.integer("height")};
  if (call.has("get_image_size")) {
    const auto& like = image_input(call, "get_image_size");
    size = {like.size(2), like.size(1)};
  } else if (call.boolean("keep_proportion") && (size.width != 0 || size.height != 0)) {
    size = with_shape(have, size);
  } else {
    if (size.width == 0) size.width = have.width;
    if (size.height == 0) size.height = have.height;
  }
  size = divisible(size, call.integer("divisible_by"));
  check_size(call, size);
  const bool crop = call.has("crop") && call.text("crop") != "disabled";
  out_sized(call, resize_image(image, {size.width, size.height, call.text("upscale_method"), crop}),
            size);
}

/// How much of a picture is cut or filled up at each side.
struct Borders {
  std::int64_t left = 0, right = 0, top = 0, bottom = 0;
  bool any() const { return left + right + top + bottom > 0; }
};

/// `extra` of both sides, where the kept part lies as `position` says.
Borders borders_of(const std::string& position, Size extra) {
  Borders b{extra.width / 2, extra.width - extra.width / 2, extra.height / 2,
            extra.height - extra.height / 2};
  if (position == "left") b.left = 0, b.right = extra.width;
  if (position == "right") b.left = extra.width, b.right = 0;
  if (position == "top") b.top = 0, b.bottom = extra.height;
  if (position == "bottom") b.top = extra.height, b.bottom = 0;
  return b;
}

/// The part of a picture that has the shape of `size`.
Tensor cut(const Tensor& image, Size size, const std::string& position) {
  const Size have{image.size(2), image.size(1)};
  Size part = have;
  const auto old_shape = static_cast<double>(have.width) / static_cast<double>(have.height),
             new_shape = static_cast<double>(size.width) / static_cast<double>(size.height);
  if (old_shape > new_shape)
    part.width = round_half_even(static_cast<double>(have.height * size.width) /
                                 static_cast<double>(size.height));
  else
    part.height = round_half_even(static_cast<double>(have.width * size.height) /
                                  static_cast<double>(size.width));
  const auto b = borders_of(position, {have.width - part.width, have.height - part.height});
  return image.narrow(1, b.top, part.height).narrow(2, b.left, part.width);
}

/// A colour of three numbers 0..255, or one for all.
Tensor colour_of(const Call& call) {
  auto text = call.text("pad_color");
  std::vector<float> numbers;
  constexpr float most = 255;
  for (std::size_t first = 0; first <= text.size();) {
    const auto end = std::min(text.find(',', first), text.size());
    const auto one = text.substr(first, end - first);
    char* stop = nullptr;
    const float value = std::strtof(one.c_str(), &stop);
    const bool whole =
        stop != one.c_str() && std::string(stop).find_first_not_of(" \t") == std::string::npos;
    if (!whole || !(value >= 0 && value <= most))
      throw Error(ErrorKind::Usage, call.place(),
                  fmt::format("input 'pad_color' wants numbers from 0 to 255 such as 0, 0, 0, and "
                              "got '{}'",
                              text));
    numbers.push_back(value / most);
    first = end + 1;
  }
  constexpr std::size_t channels = 3;
  if (numbers.size() == 1) numbers.resize(channels, numbers.front());
  if (numbers.size() != channels)
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("input 'pad_color' wants one or three numbers, and got '{}'", text));
  return at::tensor(numbers);
}

/// Bars around a picture [B, H, W, C], of a colour or of the mean of the picture's edge there.
Tensor with_bars(const Tensor& image, const Borders& b, const Tensor& colour, bool edges) {
  const auto height = image.size(1), width = image.size(2), channels = image.size(3);
  auto whole =
      at::ones({image.size(0), height + b.top + b.bottom, width + b.left + b.right, channels},
               image.options());
  whole.narrow(3, 0, 3).copy_(colour.expand_as(whole.narrow(3, 0, 3)));
  if (edges) {
    auto fill = [](Tensor bar, const Tensor& edge) {
      if (bar.numel() > 0) bar.copy_(edge.mean({1, 2}, true).expand_as(bar));
    };
    fill(whole.narrow(1, 0, b.top), image.narrow(1, 0, 1));
    fill(whole.narrow(1, b.top + height, b.bottom), image.narrow(1, height - 1, 1));
    fill(whole.narrow(2, 0, b.left), image.narrow(2, 0, 1));
    fill(whole.narrow(2, b.left + width, b.right), image.narrow(2, width - 1, 1));
  }
  whole.narrow(1, b.top, height).narrow(2, b.left, width).copy_(image);
  return whole;
}

/// The picture of ImageResizeKJv2 and the mask beside it.
struct Resized {
  Tensor image;
  Tensor mask;  // undefined: none
};

Resized resized(const Call& call, const Tensor& image, const Tensor& mask) {
  const auto how = call.text("keep_proportion"), position = call.text("crop_position"),
             method = call.text("upscale_method");
  const Size have{image.size(2), image.size(1)};
  const Size asked{call.integer("width"), call.integer("height")};
  Size size{asked.width ? asked.width : have.width, asked.height ? asked.height : have.height};
  const bool pads = how == "pad" || how == "pad_edge", shaped = how == "resize" || pads;
  Borders bars;
  if (shaped && (asked.width != 0 || asked.height != 0)) {
    const auto fitting = with_shape(have, asked);
    if (pads)
      bars = borders_of(position, {std::max<std::int64_t>(0, size.width - fitting.width),
                                   std::max<std::int64_t>(0, size.height - fitting.height)});
    if (pads && asked.width == 0) bars.left = bars.right = 0;
    if (pads && asked.height == 0) bars.top = bars.bottom = 0;
    size = fitting;
  }
  const auto by = call.integer("divisible_by");
  size = divisible(size, by);
  check_size(call, size);
  auto fitted = [&](const Tensor& given, const std::string& with) {
    auto part = how == "crop" ? cut(given, size, position) : given;
    return resize_image(part, {size.width, size.height, with, false});
  };
  Resized result{fitted(image, method), {}};
  // 8-bit Lanczos is for pictures.
  if (mask.defined())
    result.mask = fitted(mask.unsqueeze(-1), method == "lanczos" ? "bicubic" : method).squeeze(-1);
  if (!bars.any()) return result;
  if (by > 1) {
    auto missing = [&](std::int64_t total) { return (by - total % by) % by; };
    bars.right += missing(size.width + bars.left + bars.right);
    bars.bottom += missing(size.height + bars.top + bars.bottom);
  }
  auto inside = result.mask.defined() ? result.mask : at::zeros(result.image.sizes().slice(0, 3));
  result.mask = at::constant_pad_nd(inside, {bars.left, bars.right, bars.top, bars.bottom}, 1.0);
  result.image = with_bars(result.image, bars, colour_of(call), how == "pad_edge");
  return result;
}

void run_resize2(Call& call) {
  const bool on_gpu = call.has("device") && call.text("device") == "gpu";
  if (on_gpu && call.text("upscale_method") == "lanczos")
    throw Error(ErrorKind::Usage, call.place(),
                "lanczos is computed on the CPU: set 'device' to cpu");
  auto mask = call.has("mask") ? mask_input(call, "mask") : Tensor();
  auto made = resized(call, image_input(call, "image"), mask);
  out_sized(call, made.image, {made.image.size(2), made.image.size(1)});
  constexpr std::int64_t blank = 64;
  mask_out(call, 3, made.mask.defined() ? made.mask : at::zeros({blank, blank}));
}

graph::Input side(const char* name) {
  return integer(name, {.def = 512, .min = 0, .max = 16384, .step = 1});
}

void add_resizes(graph::Catalog& catalog) {
  const graph::Choices methods({"nearest-exact", "bilinear", "area", "bicubic", "lanczos"});
  const auto divisor = integer("divisible_by", {.def = 2, .min = 0, .max = 512, .step = 1});
  catalog.add({
      .name = "ImageResizeKJ",
      .display_name = "Resize Image (deprecated)",
      .category = "KJNodes/image",
      .description = "Another size for pictures; ImageResizeKJv2 does more.",
      .python_module = kModule,
      .inputs = {link("image", "IMAGE"), side("width"), side("height"),
                 choice("upscale_method", methods), boolean("keep_proportion", {.def = false}),
                 divisor, optional(link("get_image_size", "IMAGE")),
                 optional(choice("crop",
                                 graph::Choices([] { return Json({"disabled", "center", 0}); }),
                                 {.extra = Json::object()}))},
      .outputs = {{"IMAGE", "IMAGE"}, {"INT", "width"}, {"INT", "height"}},
      .deprecated = true,
      .run = run_resize,
  });
  catalog.add({
      .name = "ImageResizeKJv2",
      .display_name = "Resize Image v2",
      .category = "KJNodes/image",
      .description = "Another size for pictures and a mask: stretched, in shape, filled up with "
                     "bars or cut. A side of 0 stays as it is.",
      .python_module = kModule,
      .inputs =
          {link("image", "IMAGE"), side("width"), side("height"), choice("upscale_method", methods),
           choice("keep_proportion", {"stretch", "resize", "pad", "pad_edge", "crop"},
                  {.def = false}),
           graph::text("pad_color", {.def = "0, 0, 0"}),
           choice("crop_position", {"center", "top", "bottom", "left", "right"}, {.def = "center"}),
           divisor, optional(link("mask", "MASK")), optional(choice("device", {"cpu", "gpu"}))},
      .hidden = {{"unique_id", "UNIQUE_ID"}},
      .outputs = {{"IMAGE", "IMAGE"}, {"INT", "width"}, {"INT", "height"}, {"MASK", "mask"}},
      .run = run_resize2,
  });
}

}  // namespace

void add_kj_nodes(graph::Catalog& catalog) {
  catalog.add({
      .name = "GetImageSizeAndCount",
      .display_name = "Get Image Size & Count",
      .category = "KJNodes/image",
      .description = "The pictures as they are, and how many there are of which size.",
      .python_module = kModule,
      .inputs = {link("image", "IMAGE")},
      .outputs = {{"IMAGE", "image"}, {"INT", "width"}, {"INT", "height"}, {"INT", "count"}},
      .run = run_size,
  });
  catalog.add({
      .name = "INTConstant",
      .display_name = "INT Constant",
      .category = "KJNodes/constants",
      .python_module = kModule,
      .inputs = {integer(
          "value", {.def = 0, .min = -18446744073709551615.0, .max = 18446744073709551615ULL})},
      .outputs = {{"INT", "value"}},
      .run = run_integer,
  });
  add_resizes(catalog);
}

}  // namespace distorch::nodes
