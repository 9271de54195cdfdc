#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/edges.h"
#include "distorch/nodes/pictures.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;

namespace {

constexpr const char* kPostModule = "comfy_extras.nodes_post_processing";
constexpr const char* kMorphologyModule = "comfy_extras.nodes_morphology";

/// [size, size], sums to 1; sigma in halves of the window.
Tensor gaussian_window(std::int64_t size, double sigma) {
  auto line = at::linspace(-1, 1, size, at::kFloat);
  auto grid = at::meshgrid({line, line}, "ij");
  auto distance = at::sqrt(grid[0] * grid[0] + grid[1] * grid[1]);
  auto window = at::exp(-(distance * distance) / (2.0 * sigma * sigma));
  return window / window.sum();
}

/// Filters each channel of an IMAGE by the window; the picture is mirrored beyond its borders.
Tensor filtered(const Call& call, const Tensor& image, const Tensor& window) {
  auto radius = window.size(0) / 2;
  if (radius >= image.size(1) || radius >= image.size(2))
    throw Error(ErrorKind::Usage, call.place(),
                "the radius is not smaller than the picture's width and height");
  auto x = at::reflection_pad2d(image.movedim(-1, 1), {radius, radius, radius, radius});
  auto kernel = window.expand({image.size(3), 1, -1, -1}).contiguous();
  auto groups = image.size(3);
  return at::convolution(x, kernel, {}, {1, 1}, {0, 0}, {1, 1}, false, {0, 0}, groups)
      .movedim(1, -1);
}

void run_blur(Call& call) {
  auto radius = call.integer("blur_radius");
  image_out(call, 0,
            filtered(call, image_input(call, "image"),
                     gaussian_window(2 * radius + 1, call.number("sigma"))));
}

void run_sharpen(Call& call) {
  auto radius = call.integer("sharpen_radius");
  auto window =
      gaussian_window(2 * radius + 1, call.number("sigma")) * -(call.number("alpha") * 10);
  window[radius][radius].add_(1.0 - window.sum());
  image_out(call, 0, filtered(call, image_input(call, "image"), window).clamp(0, 1));
}

/// W3C compositing's soft light: darkens below a half, lightens above.
Tensor soft_light(const Tensor& a, const Tensor& b) {
  auto root = at::where(a <= 0.25, ((16 * a - 12) * a + 4) * a, at::sqrt(a));
  return at::where(b <= 0.5, a - (1 - 2 * b) * a * (1 - a), a + (2 * b - 1) * (root - a));
}

Tensor blended(const Tensor& a, const Tensor& b, const std::string& mode) {
  if (mode == "multiply") return a * b;
  if (mode == "screen") return 1 - (1 - a) * (1 - b);
  if (mode == "overlay") return at::where(a <= 0.5, 2 * a * b, 1 - 2 * (1 - a) * (1 - b));
  if (mode == "soft_light") return soft_light(a, b);
  if (mode == "difference") return a - b;
  return b;
}

void run_blend(Call& call) {
  const auto& first = image_input(call, "image1");
  auto second = match_channels(image_input(call, "image2"), first.size(3));
  if (first.sizes().slice(1, 2) != second.sizes().slice(1, 2))
    second = resize_image(second, {first.size(2), first.size(1), "bicubic", true});
  second = fit_batch(second, first.size(0));
  auto factor = call.number("blend_factor");
  auto mixed = first * (1 - factor) + blended(first, second, call.text("blend_mode")) * factor;
  image_out(call, 0, mixed.clamp(0, 1));
}

/// The largest value within a square window around each pixel of x [B, C, H, W], pixels outside the
/// picture left out. An even window reaches one further to the left and top, or to the right and
/// bottom where `reflected`.
Tensor highest(const Tensor& x, std::int64_t size, bool reflected) {
  auto before = reflected ? size - size / 2 - 1 : size / 2, after = size - 1 - before;
  auto padded = at::constant_pad_nd(x, {before, after, before, after},
                                    -std::numeric_limits<double>::infinity());
  auto rows = at::max_pool2d(padded, {1, size}, {1, 1});
  return at::max_pool2d(rows, {size, 1}, {1, 1});
}

Tensor dilated(const Tensor& x, std::int64_t size) { return highest(x, size, true); }
Tensor eroded(const Tensor& x, std::int64_t size) { return -highest(-x, size, false); }

void run_morphology(Call& call) {
  auto x = image_input(call, "image").movedim(-1, 1);
  auto size = call.integer("kernel_size");
  auto operation = call.text("operation");
  Tensor result;
  if (operation == "erode") result = eroded(x, size);
  if (operation == "dilate") result = dilated(x, size);
  if (operation == "open") result = dilated(eroded(x, size), size);
  if (operation == "close") result = eroded(dilated(x, size), size);
  if (operation == "gradient") result = dilated(x, size) - eroded(x, size);
  if (operation == "top_hat") result = x - dilated(eroded(x, size), size);
  if (operation == "bottom_hat") result = eroded(dilated(x, size), size) - x;
  image_out(call, 0, result.movedim(1, -1));
}

void run_canny(Call& call) {
  auto low = call.number("low_threshold"), high = call.number("high_threshold");
  if (low > high)
    throw Error(ErrorKind::Usage, call.place(),
                "low_threshold is above high_threshold; it has to be the smaller one");
  const auto& image = image_input(call, "image");
  if (image.size(1) < 3 || image.size(2) < 3)
    throw Error(ErrorKind::Shape, call.place(), "edges need a picture of at least 3x3 pixels");
  auto edges = canny_edges(image, low, high);
  image_out(call, 0, edges.unsqueeze(-1).expand({-1, -1, -1, 3}));
}

// Weights of ITU-R BT.601 and the scales that bring both differences to -0.5..0.5.
constexpr double kRed = 0.299, kGreen = 0.587, kBlue = 0.114;
constexpr double kBlueScale = 0.564, kRedScale = 0.713;

void run_to_yuv(Call& call) {
  auto image = match_channels(image_input(call, "image"), 3);
  auto r = image.select(3, 0), g = image.select(3, 1), b = image.select(3, 2);
  auto y = kRed * r + kGreen * g + kBlue * b;
  auto gray = [&](std::size_t slot, const Tensor& x) {
    image_out(call, slot, x.unsqueeze(-1).expand_as(image));
  };
  gray(0, y);
  gray(1, (b - y) * kBlueScale + 0.5);
  gray(2, (r - y) * kRedScale + 0.5);
}

void run_from_yuv(Call& call) {
  auto plane = [&](const char* name) { return image_input(call, name).mean(-1); };
  auto y = plane("Y"), u = plane("U") - 0.5, v = plane("V") - 0.5;
  auto r = y + v / kRedScale, b = y + u / kBlueScale;
  auto g = y - (kRed / kRedScale / kGreen) * v - (kBlue / kBlueScale / kGreen) * u;
  image_out(call, 0, at::stack({r, g, b}, -1).clamp(0, 1));
}

void run_noise(Call& call) {
  const auto& image = image_input(call, "image");
  auto generator = at::detail::createCPUGenerator(call.seed("seed"));
  auto noise = at::randn(image.sizes(), generator, at::TensorOptions(at::kFloat));
  image_out(call, 0, (image + call.number("strength") * noise).clamp(0, 1));
}

void add_windows(graph::Catalog& catalog) {
  auto radius = [](const char* name) {
    return integer(name, {.def = 1, .min = 1, .max = 31, .step = 1});
  };
  catalog.add({
      .name = "ImageBlur",
      .category = "image/postprocessing",
      .python_module = kPostModule,
      .inputs = {link("image", "IMAGE"), radius("blur_radius"),
                 number("sigma", {.def = 1.0, .min = 0.1, .max = 10.0, .step = 0.1})},
      .outputs = {"IMAGE"},
      .newer_schema = true,
      .run = run_blur,
  });
  catalog.add({
      .name = "ImageSharpen",
      .category = "image/postprocessing",
      .python_module = kPostModule,
      .inputs = {link("image", "IMAGE"), radius("sharpen_radius"),
                 number("sigma", {.def = 1.0, .min = 0.1, .max = 10.0, .step = 0.01}),
                 number("alpha", {.def = 1.0, .min = 0.0, .max = 5.0, .step = 0.01})},
      .outputs = {"IMAGE"},
      .newer_schema = true,
      .run = run_sharpen,
  });
  catalog.add({
      .name = "Morphology",
      .display_name = "ImageMorphology",
      .category = "image/postprocessing",
      .python_module = kMorphologyModule,
      .inputs = {link("image", "IMAGE"),
                 choice("operation",
                        {"erode", "dilate", "open", "close", "gradient", "bottom_hat", "top_hat"}),
                 integer("kernel_size", {.def = 3, .min = 3, .max = 999, .step = 1})},
      .outputs = {"IMAGE"},
      .newer_schema = true,
      .run = run_morphology,
  });
  auto threshold = [](const char* name, double def) {
    return number(name, {.def = def, .min = 0.01, .max = 0.99, .step = 0.01});
  };
  catalog.add({
      .name = "Canny",
      .category = "image/preprocessors",
      .python_module = "comfy_extras.nodes_canny",
      .inputs = {link("image", "IMAGE"), threshold("low_threshold", 0.4),
                 threshold("high_threshold", 0.8)},
      .outputs = {"IMAGE"},
      .newer_schema = true,
      .run = run_canny,
  });
}

void add_colors(graph::Catalog& catalog) {
  catalog.add({
      .name = "ImageBlend",
      .category = "image/postprocessing",
      .python_module = kPostModule,
      .inputs = {link("image1", "IMAGE"), link("image2", "IMAGE"),
                 number("blend_factor", {.def = 0.5, .min = 0.0, .max = 1.0, .step = 0.01}),
                 choice("blend_mode",
                        {"normal", "multiply", "screen", "overlay", "soft_light", "difference"})},
      .outputs = {"IMAGE"},
      .newer_schema = true,
      .run = run_blend,
  });
  catalog.add({
      .name = "ImageRGBToYUV",
      .category = "image/batch",
      .python_module = kMorphologyModule,
      .inputs = {link("image", "IMAGE")},
      .outputs = {{"IMAGE", "Y"}, {"IMAGE", "U"}, {"IMAGE", "V"}},
      .newer_schema = true,
      .run = run_to_yuv,
  });
  catalog.add({
      .name = "ImageYUVToRGB",
      .category = "image/batch",
      .python_module = kMorphologyModule,
      .inputs = {link("Y", "IMAGE"), link("U", "IMAGE"), link("V", "IMAGE")},
      .outputs = {"IMAGE"},
      .newer_schema = true,
      .run = run_from_yuv,
  });
  catalog.add({
      .name = "ImageAddNoise",
      .category = "image",
      .python_module = "comfy_extras.nodes_images",
      .inputs = {link("image", "IMAGE"),
                 integer("seed", {.def = 0,
                                  .min = 0,
                                  .max = 18446744073709551615ull,
                                  .control_after_generate = true,
                                  .tooltip = "The same number gives the same noise."}),
                 number("strength", {.def = 0.5, .min = 0.0, .max = 1.0, .step = 0.01})},
      .outputs = {"IMAGE"},
      .run = run_noise,
  });
}

}  // namespace

void add_image_filter_nodes(graph::Catalog& catalog) {
  add_windows(catalog);
  add_colors(catalog);
}

}  // namespace distorch::nodes
