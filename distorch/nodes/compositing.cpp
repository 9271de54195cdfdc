#include <array>
#include <functional>

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
using graph::Value;

namespace {

constexpr const char* kMaskModule = "comfy_extras.nodes_mask";
constexpr const char* kModule = "comfy_extras.nodes_compositing";

Tensor stretched(const Tensor& x, std::int64_t height, std::int64_t width) {
  return at::upsample_bilinear2d(x, {height, width}, false);
}

/// `source` [B, C, ...] laid over `destination` with its corner at (left, top), both of at least 0;
/// where a mask is given only as far as it marks. What leaves the destination is cut off.
Tensor laid_over(const Tensor& destination, const Tensor& given, const Tensor& mask,
                 std::int64_t left, std::int64_t top, bool resize_source) {
  auto source = given;
  if (resize_source)
    source = resize(source, {destination.size(-1), destination.size(-2), "bilinear", false});
  source = fit_batch(source, destination.size(0));
  auto result = destination.clone();
  auto width = std::min(source.size(-1), destination.size(-1) - left),
       height = std::min(source.size(-2), destination.size(-2) - top);
  if (width <= 0 || height <= 0) return result;
  auto place = result.narrow(-2, top, height).narrow(-1, left, width);
  auto part = source.narrow(-2, 0, height).narrow(-1, 0, width);
  if (!mask.defined()) {
    place.copy_(part);
    return result;
  }
  auto weight = stretched(mask.unsqueeze(1), source.size(-2), source.size(-1));
  weight = fit_batch(weight, source.size(0)).narrow(-2, 0, height).narrow(-1, 0, width);
  if (weight.dim() < source.dim()) weight = weight.unsqueeze(1);
  place.copy_(weight * part + (1.0 - weight) * place);
  return result;
}

Tensor optional_mask(const Call& call) {
  return call.has("mask") ? mask_input(call, "mask") : Tensor();
}

void run_image_masked(Call& call) {
  const auto& destination = image_input(call, "destination");
  auto source = match_channels(image_input(call, "source"), destination.size(3));
  auto result = laid_over(destination.movedim(-1, 1), source.movedim(-1, 1), optional_mask(call),
                          call.integer("x"), call.integer("y"), call.boolean("resize_source"));
  image_out(call, 0, result.movedim(1, -1));
}

/// Both latents have to come from VAEs of one kind.
void check_channels(const Call& call, const Tensor& a, const Tensor& b) {
  if (a.size(1) != b.size(1) || a.dim() != b.dim())
    throw Error(ErrorKind::Shape, call.place(),
                "the latents are of different kinds: they have " + std::to_string(a.size(1)) +
                    " and " + std::to_string(b.size(1)) + " channels");
}

void run_latent_masked(Call& call) {
  const auto& destination = latent_input(call, "destination");
  const auto& source = latent_input(call, "source");
  check_channels(call, destination.samples, source.samples);
  latent_out(
      call, destination,
      laid_over(destination.samples, source.samples, optional_mask(call), call.integer("x") / 8,
                call.integer("y") / 8, call.boolean("resize_source")));
}

/// 1, but falling in steps over `feather` cells towards each side that is inside the destination:
/// `sides` are top, bottom, left, right.
Tensor feathered(const Tensor& like, std::int64_t feather, const std::array<bool, 4>& sides) {
  auto mask = at::ones_like(like);
  auto height = mask.size(-2), width = mask.size(-1);
  for (std::int64_t i = 0; i < feather; ++i) {
    auto share = (1.0 / static_cast<double>(feather)) * static_cast<double>(i + 1);
    auto fade = [&](bool side, int dim, std::int64_t at) {
      if (side && at >= 0 && at < mask.size(dim)) mask.narrow(dim, at, 1).mul_(share);
    };
    fade(sides[0], -2, i);
    fade(sides[1], -2, height - 1 - i);
    fade(sides[2], -1, i);
    fade(sides[3], -1, width - 1 - i);
  }
  return mask;
}

void run_latent_feathered(Call& call) {
  const auto& to = latent_input(call, "samples_to");
  const auto& from = latent_input(call, "samples_from").samples;
  check_channels(call, to.samples, from);
  auto x = call.integer("x") / 8, y = call.integer("y") / 8, feather = call.integer("feather") / 8;
  auto result = to.samples.clone();
  auto width = std::min(from.size(-1), result.size(-1) - x),
       height = std::min(from.size(-2), result.size(-2) - y);
  if (width > 0 && height > 0) {
    auto place = result.narrow(-2, y, height).narrow(-1, x, width);
    auto part = fit_batch(from, result.size(0)).narrow(-2, 0, height).narrow(-1, 0, width);
    std::array<bool, 4> sides = {y != 0, y + height < result.size(-2), x != 0,
                                 x + width < result.size(-1)};
    auto mask = feathered(part, feather, sides);
    place.copy_(part * mask + place * (1.0 - mask));
  }
  latent_out(call, to, result);
}

/// Colours multiplied by alpha, and alpha.
struct Layer {
  Tensor color, alpha;
};

using Operator = std::function<Layer(const Layer& source, const Layer& destination)>;

Tensor joint_alpha(const Layer& s, const Layer& d) { return s.alpha + d.alpha - s.alpha * d.alpha; }

/// The parts of both that the other does not cover.
Tensor uncovered(const Layer& s, const Layer& d) {
  return (1 - d.alpha) * s.color + (1 - s.alpha) * d.color;
}

Tensor overlay(const Layer& s, const Layer& d) {
  return at::where(2 * d.color < d.alpha, 2 * s.color * d.color,
                   s.alpha * d.alpha - 2 * (d.alpha - s.color) * (s.alpha - d.color));
}

/// Porter and Duff's operators and the blends beside them, in the order of the menu.
const std::vector<std::pair<const char*, Operator>>& operators() {
  using L = const Layer&;
  static const std::vector<std::pair<const char*, Operator>> all = {
      {"ADD",
       [](L s, L d) {
         return Layer{(s.color + d.color).clamp(0, 1), (s.alpha + d.alpha).clamp(0, 1)};
       }},
      {"CLEAR", [](L, L d) { return Layer{at::zeros_like(d.color), at::zeros_like(d.alpha)}; }},
      {"DARKEN",
       [](L s, L d) {
         return Layer{uncovered(s, d) + at::min(s.color, d.color), joint_alpha(s, d)};
       }},
      {"DST", [](L, L d) { return d; }},
      {"DST_ATOP",
       [](L s, L d) { return Layer{s.alpha * d.color + (1 - d.alpha) * s.color, s.alpha}; }},
      {"DST_IN", [](L s, L d) { return Layer{d.color * s.alpha, s.alpha * d.alpha}; }},
      {"DST_OUT", [](L s, L d) { return Layer{(1 - s.alpha) * d.color, (1 - s.alpha) * d.alpha}; }},
      {"DST_OVER",
       [](L s, L d) {
         return Layer{d.color + (1 - d.alpha) * s.color, d.alpha + (1 - d.alpha) * s.alpha};
       }},
      {"LIGHTEN",
       [](L s, L d) {
         return Layer{uncovered(s, d) + at::max(s.color, d.color), joint_alpha(s, d)};
       }},
      {"MULTIPLY", [](L s, L d) { return Layer{s.color * d.color, s.alpha * d.alpha}; }},
      {"OVERLAY", [](L s, L d) { return Layer{overlay(s, d), joint_alpha(s, d)}; }},
      {"SCREEN",
       [](L s, L d) { return Layer{s.color + d.color - s.color * d.color, joint_alpha(s, d)}; }},
      {"SRC", [](L s, L) { return s; }},
      {"SRC_ATOP",
       [](L s, L d) { return Layer{d.alpha * s.color + (1 - s.alpha) * d.color, d.alpha}; }},
      {"SRC_IN", [](L s, L d) { return Layer{s.color * d.alpha, s.alpha * d.alpha}; }},
      {"SRC_OUT", [](L s, L d) { return Layer{(1 - d.alpha) * s.color, (1 - d.alpha) * s.alpha}; }},
      {"SRC_OVER",
       [](L s, L d) {
         return Layer{s.color + (1 - s.alpha) * d.color, s.alpha + (1 - s.alpha) * d.alpha};
       }},
      {"XOR",
       [](L s, L d) {
         return Layer{uncovered(s, d), (1 - d.alpha) * s.alpha + (1 - s.alpha) * d.alpha};
       }},
  };
  return all;
}

graph::Choices operator_names() {
  std::vector<std::string> names;
  for (const auto& [name, work] : operators()) names.emplace_back(name);
  return graph::Choices(std::move(names));
}

Tensor in_size(const Tensor& image, const Tensor& like) {
  if (image.sizes().slice(1, 2) == like.sizes().slice(1, 2)) return image;
  return resize_image(image, {like.size(2), like.size(1), "bicubic", true});
}

void run_porter_duff(Call& call) {
  auto source = image_input(call, "source"), destination = image_input(call, "destination");
  auto source_mask = mask_input(call, "source_alpha").unsqueeze(-1),
       destination_mask = mask_input(call, "destination_alpha").unsqueeze(-1);
  if (source.size(3) != destination.size(3))
    throw Error(ErrorKind::Shape, call.place(),
                "source and destination have different numbers of channels; SplitImageWithAlpha "
                "takes alpha off an image");
  auto items = std::min(
      {source.size(0), destination.size(0), source_mask.size(0), destination_mask.size(0)});
  auto layer = [&](const Tensor& image, const Tensor& mask) {
    auto alpha = 1 - in_size(mask.narrow(0, 0, items), destination);
    return Layer{in_size(image.narrow(0, 0, items), destination) * alpha, alpha};
  };
  auto mode = call.text("mode");
  const auto& all = operators();
  auto found = std::find_if(all.begin(), all.end(), [&](const auto& o) { return o.first == mode; });
  if (found == all.end())
    throw Error(ErrorKind::Usage, call.place(), "no way to composite is called '" + mode + "'");
  auto result = found->second(layer(source, source_mask), layer(destination, destination_mask));
  auto color =
      at::where(result.alpha > 1e-5, result.color / result.alpha, at::zeros_like(result.color));
  image_out(call, 0, color.clamp(0, 1));
  mask_out(call, 1, (1 - result.alpha).squeeze(-1));
}

void run_split(Call& call) {
  const auto& image = image_input(call, "image");
  image_out(call, 0, image.narrow(3, 0, std::min<std::int64_t>(3, image.size(3))));
  mask_out(call, 1,
           image.size(3) > 3 ? 1.0 - image.select(3, 3) : at::zeros_like(image.select(3, 0)));
}

void run_join(Call& call) {
  const auto& image = image_input(call, "image");
  auto mask = mask_input(call, "alpha");
  auto items = std::min(image.size(0), mask.size(0));
  auto alpha = 1.0 - stretched(mask.narrow(0, 0, items).unsqueeze(1), image.size(1), image.size(2));
  auto color = match_channels(image, 3).narrow(0, 0, items);
  image_out(call, 0, at::cat({color, alpha.movedim(1, -1)}, 3));
}

void add_masked(graph::Catalog& catalog) {
  for (bool latent : {false, true}) {
    const char* type = latent ? "LATENT" : "IMAGE";
    auto place = [&](const char* name) {
      return integer(name, {.def = 0, .min = 0, .max = 16384, .step = latent ? 8 : 1});
    };
    catalog.add({
        .name = latent ? "LatentCompositeMasked" : "ImageCompositeMasked",
        .category = latent ? "latent" : "image",
        .python_module = kMaskModule,
        .inputs = {link("destination", type), link("source", type), place("x"), place("y"),
                   boolean("resize_source", {.def = false}), optional(link("mask", "MASK"))},
        .outputs = {type},
        .run = latent ? run_latent_masked : run_image_masked,
    });
  }
  auto place = [](const char* name) {
    return integer(name, {.def = 0, .min = 0, .max = 16384, .step = 8});
  };
  catalog.add({
      .name = "LatentComposite",
      .display_name = "Latent Composite",
      .category = "latent",
      .inputs = {link("samples_to", "LATENT"), link("samples_from", "LATENT"), place("x"),
                 place("y"), place("feather")},
      .outputs = {"LATENT"},
      .run = run_latent_feathered,
  });
}

}  // namespace

void add_compositing_nodes(graph::Catalog& catalog) {
  add_masked(catalog);
  catalog.add({
      .name = "PorterDuffImageComposite",
      .display_name = "Porter-Duff Image Composite",
      .category = "mask/compositing",
      .python_module = kModule,
      .inputs = {link("source", "IMAGE"), link("source_alpha", "MASK"),
                 link("destination", "IMAGE"), link("destination_alpha", "MASK"),
                 choice("mode", operator_names(), {.def = "DST"})},
      .outputs = {"IMAGE", "MASK"},
      .newer_schema = true,
      .run = run_porter_duff,
  });
  catalog.add({
      .name = "SplitImageWithAlpha",
      .display_name = "Split Image with Alpha",
      .category = "mask/compositing",
      .python_module = kModule,
      .inputs = {link("image", "IMAGE")},
      .outputs = {"IMAGE", "MASK"},
      .newer_schema = true,
      .run = run_split,
  });
  catalog.add({
      .name = "JoinImageWithAlpha",
      .display_name = "Join Image with Alpha",
      .category = "mask/compositing",
      .python_module = kModule,
      .inputs = {link("image", "IMAGE"), link("alpha", "MASK")},
      .outputs = {"IMAGE"},
      .newer_schema = true,
      .run = run_join,
  });
}

}  // namespace distorch::nodes
