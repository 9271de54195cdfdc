#include <algorithm>

#include "distorch/nodes/batch_place.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/resize.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using graph::Value;
using sampling::Latent;

namespace {

void out(Call& call, Latent latent) { call.out(0, Value::of("LATENT", std::move(latent))); }

/// One mask an item of the batch.
Tensor masks_for(const Tensor& masks, std::int64_t items) {
  if (masks.size(0) >= items) return masks;
  std::vector<std::int64_t> times(static_cast<std::size_t>(masks.dim()), 1);
  times[0] = (items + masks.size(0) - 1) / masks.size(0);
  return masks.repeat(times).narrow(0, 0, items);
}

void run_empty(Call& call) {
  out(call, {at::zeros({call.integer("batch_size"), 4, call.integer("height") / 8,
                        call.integer("width") / 8}),
             {},
             {}});
}

void run_upscale(Call& call) {
  auto latent = call.get<Latent>("samples");
  auto width = call.integer("width"), height = call.integer("height");
  auto have_height = static_cast<double>(latent.samples.size(-2)),
       have_width = static_cast<double>(latent.samples.size(-1));
  constexpr std::int64_t smallest = 64;  // pixels
  if (width == 0 && height == 0) return out(call, std::move(latent));
  if (width == 0) {
    height = std::max(smallest, height);
    width =
        std::max(smallest, round_half_even(have_width * static_cast<double>(height) / have_height));
  } else if (height == 0) {
    width = std::max(smallest, width);
    height =
        std::max(smallest, round_half_even(have_height * static_cast<double>(width) / have_width));
  } else {
    width = std::max(smallest, width);
    height = std::max(smallest, height);
  }
  latent.samples = resize(latent.samples, {width / 8, height / 8, call.text("upscale_method"),
                                           call.text("crop") == "center"});
  out(call, std::move(latent));
}

void run_upscale_by(Call& call) {
  auto latent = call.get<Latent>("samples");
  auto by = call.number("scale_by");
  auto scaled = [&](int dim) {
    return round_half_even(static_cast<double>(latent.samples.size(dim)) * by);
  };
  latent.samples =
      resize(latent.samples, {scaled(-1), scaled(-2), call.text("upscale_method"), false});
  out(call, std::move(latent));
}

void run_from_batch(Call& call) {
  auto latent = call.get<Latent>("samples");
  auto items = latent.samples.size(0);
  auto first = place_in_batch(call, items);
  auto length = std::min(items - first, call.integer("length"));
  latent.samples = latent.samples.narrow(0, first, length);
  if (latent.noise_mask.defined() && latent.noise_mask.size(0) > 1)
    latent.noise_mask = masks_for(latent.noise_mask, items).narrow(0, first, length);
  std::vector<std::int64_t> index;
  for (auto i = first; i < first + length; ++i)
    index.push_back(latent.batch_index.empty() ? i : latent.batch_index.at(i));
  latent.batch_index = std::move(index);
  out(call, std::move(latent));
}

void run_repeat(Call& call) {
  auto latent = call.get<Latent>("samples");
  auto amount = call.integer("amount");
  auto repeated = [&](const Tensor& x) {
    std::vector<std::int64_t> times(static_cast<std::size_t>(x.dim()), 1);
    times[0] = amount;
    return x.repeat(times);
  };
  if (latent.noise_mask.defined() && latent.noise_mask.size(0) > 1)
    latent.noise_mask = repeated(masks_for(latent.noise_mask, latent.samples.size(0)));
  latent.samples = repeated(latent.samples);
  if (!latent.batch_index.empty()) {
    auto once = latent.batch_index;
    auto [low, high] = std::minmax_element(once.begin(), once.end());
    auto offset = *high - *low + 1;
    for (std::int64_t i = 1; i < amount; ++i)
      for (auto index : once) latent.batch_index.push_back(index + i * offset);
  }
  out(call, std::move(latent));
}

void run_noise_mask(Call& call) {
  auto latent = call.get<Latent>("samples");
  const auto& mask = call.get<Tensor>("mask");
  latent.noise_mask = mask.reshape({-1, 1, mask.size(-2), mask.size(-1)});
  out(call, std::move(latent));
}

void add_batch_nodes(graph::Catalog& catalog) {
  catalog.add({
      .name = "LatentFromBatch",
      .display_name = "Latent From Batch",
      .category = "latent/batch",
      .inputs = {link("samples", "LATENT"),
                 integer("batch_index", {.def = 0, .min = -16384, .max = 16384}),
                 integer("length", {.def = 1, .min = 1, .max = 64})},
      .outputs = {"LATENT"},
      .run = run_from_batch,
  });
  catalog.add({
      .name = "RepeatLatentBatch",
      .display_name = "Repeat Latent Batch",
      .category = "latent/batch",
      .inputs = {link("samples", "LATENT"), integer("amount", {.def = 1, .min = 1, .max = 64})},
      .outputs = {"LATENT"},
      .run = run_repeat,
  });
  catalog.add({
      .name = "SetLatentNoiseMask",
      .display_name = "Set Latent Noise Mask",
      .category = "latent/inpaint",
      .inputs = {link("samples", "LATENT"), link("mask", "MASK")},
      .outputs = {"LATENT"},
      .run = run_noise_mask,
  });
}

}  // namespace

void add_latent_nodes(graph::Catalog& catalog) {
  const graph::Choices methods = {"nearest-exact", "bilinear", "area", "bicubic", "bislerp"};
  auto pixels = [](const char* name, const char* tip) {
    return integer(name, {.def = 512, .min = 16, .max = 16384, .step = 8, .tooltip = tip});
  };
  auto side = [](const char* name) {
    return integer(name, {.def = 512, .min = 0, .max = 16384, .step = 8});
  };
  catalog.add({
      .name = "EmptyLatentImage",
      .display_name = "Empty Latent Image",
      .category = "latent",
      .description = "Makes blank latents, the start of a text-to-image run.",
      .inputs = {pixels("width", "Width of the finished image, in pixels."),
                 pixels("height", "Height of the finished image, in pixels."),
                 integer("batch_size", {.def = 1,
                                        .min = 1,
                                        .max = 4096,
                                        .tooltip = "How many images are made together."})},
      .outputs = {{"LATENT", "", "The blank latents, for a sampler."}},
      .run = run_empty,
  });
  catalog.add({
      .name = "LatentUpscale",
      .display_name = "Upscale Latent",
      .category = "latent",
      .inputs = {link("samples", "LATENT"), choice("upscale_method", methods), side("width"),
                 side("height"), choice("crop", {"disabled", "center"})},
      .outputs = {"LATENT"},
      .run = run_upscale,
  });
  catalog.add({
      .name = "LatentUpscaleBy",
      .display_name = "Upscale Latent By",
      .category = "latent",
      .inputs = {link("samples", "LATENT"), choice("upscale_method", methods),
                 number("scale_by", {.def = 1.5, .min = 0.01, .max = 8.0, .step = 0.01})},
      .outputs = {"LATENT"},
      .run = run_upscale_by,
  });
  add_batch_nodes(catalog);
}

}  // namespace distorch::nodes
