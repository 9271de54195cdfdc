#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/pictures.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using sampling::Latent;

namespace {

constexpr const char* kModule = "comfy_extras.nodes_latent";

void check_kind(const Call& call, const Tensor& a, const Tensor& b) {
  if (a.size(1) != b.size(1) || a.dim() != b.dim())
    throw Error(ErrorKind::Shape, call.place(),
                "the latents are of different kinds: they have " + std::to_string(a.size(1)) +
                    " and " + std::to_string(b.size(1)) + " channels");
}

struct Pair {
  const Latent& first;
  Tensor a, b;  // b in the size and number of a
};

Pair pair_of(const Call& call) {
  const auto& first = latent_input(call, "samples1");
  const auto& second = latent_input(call, "samples2").samples;
  check_kind(call, first.samples, second);
  return {first, first.samples,
          fit_batch(latent_like(second, first.samples), first.samples.size(0))};
}

void run_add(Call& call) {
  auto pair = pair_of(call);
  latent_out(call, pair.first, pair.a + pair.b);
}

void run_subtract(Call& call) {
  auto pair = pair_of(call);
  latent_out(call, pair.first, pair.a - pair.b);
}

void run_multiply(Call& call) {
  const auto& latent = latent_input(call, "samples");
  latent_out(call, latent, latent.samples * call.number("multiplier"));
}

/// Directions and lengths of the vectors of channels are mixed apart.
void run_interpolate(Call& call) {
  auto pair = pair_of(call);
  auto ratio = call.number("ratio");
  auto length = [](const Tensor& x) { return x.norm(2, {1}, true); };
  auto length_a = length(pair.a), length_b = length(pair.b);
  auto mixed =
      at::nan_to_num(pair.a / length_a) * ratio + at::nan_to_num(pair.b / length_b) * (1.0 - ratio);
  auto direction = at::nan_to_num(mixed / length(mixed));
  latent_out(call, pair.first, direction * (length_a * ratio + length_b * (1.0 - ratio)));
}

/// "x" is the last dimension, "y" the one before, "t" the third from the end.
std::int64_t dimension(const std::string& name, const Tensor& samples) {
  return samples.dim() - (name.ends_with('x') ? 1 : name.ends_with('y') ? 2 : 3);
}

void run_concat(Call& call) {
  const auto& first = latent_input(call, "samples1");
  auto second = fit_batch(latent_input(call, "samples2").samples, first.samples.size(0));
  auto dim = call.text("dim");
  auto along = dimension(dim, first.samples);
  for (std::int64_t i = 1; i < first.samples.dim(); ++i)
    if (second.dim() != first.samples.dim() ||
        (i != along && second.size(i) != first.samples.size(i)))
      throw Error(ErrorKind::Shape, call.place(),
                  "the latents differ in another size than the one they are joined along");
  latent_out(call, first,
             dim.starts_with('-') ? at::cat({second, first.samples}, along)
                                  : at::cat({first.samples, second}, along));
}

void run_cut(Call& call) {
  const auto& latent = latent_input(call, "samples");
  auto dim = dimension(call.text("dim"), latent.samples);
  auto length = latent.samples.size(dim);
  auto index = call.integer("index"), amount = call.integer("amount");
  index = index >= 0 ? std::min(index, length - 1) : length + std::max(index, -length);
  latent_out(call, latent, latent.samples.narrow(dim, index, std::min(length - index, amount)));
}

/// Slices along a dimension become items of the batch; what is left over is dropped.
void run_cut_to_batch(Call& call) {
  const auto& latent = latent_input(call, "samples");
  auto dim = dimension(call.text("dim"), latent.samples);
  if (dim < 2) return latent_out(call, latent);  // a latent without frames
  auto x = latent.samples.movedim(dim, 1);
  auto slice = std::min(call.integer("slice_size"), x.size(1));
  x = x.narrow(1, 0, x.size(1) / slice * slice);
  auto shape = x.sizes().vec();
  shape[0] = -1;
  shape[1] = slice;
  latent_out(call, latent, x.reshape(shape).movedim(1, dim));
}

std::vector<std::int64_t> numbers_of(const Latent& latent) {
  if (!latent.batch_index.empty()) return latent.batch_index;
  std::vector<std::int64_t> index(static_cast<std::size_t>(latent.samples.size(0)));
  for (std::size_t i = 0; i < index.size(); ++i) index[i] = static_cast<std::int64_t>(i);
  return index;
}

void run_batch(Call& call) {
  auto result = latent_input(call, "samples1");
  const auto& second = latent_input(call, "samples2");
  check_kind(call, result.samples, second.samples);
  result.batch_index = numbers_of(result);
  auto more = numbers_of(second);
  result.batch_index.insert(result.batch_index.end(), more.begin(), more.end());
  result.samples = at::cat({result.samples, latent_like(second.samples, result.samples)});
  latent_out(call, std::move(result));
}

void run_seed_behavior(Call& call) {
  auto latent = latent_input(call, "samples");
  auto first = latent.batch_index.empty() ? 0 : latent.batch_index.front();
  latent.batch_index.clear();
  if (call.text("seed_behavior") == "fixed")
    latent.batch_index.assign(static_cast<std::size_t>(latent.samples.size(0)), first);
  latent_out(call, std::move(latent));
}

void run_blend(Call& call) {
  const auto& first = latent_input(call, "samples1");
  auto second = latent_input(call, "samples2").samples;
  check_kind(call, first.samples, second);
  if (first.samples.sizes() != second.sizes())
    second = resize(second, {first.samples.size(-1), first.samples.size(-2), "bicubic", true});
  second = fit_batch(second, first.samples.size(0));
  auto factor = call.number("blend_factor");
  latent_out(call, first, first.samples * factor + second * (1 - factor));
}

void run_flip(Call& call) {
  const auto& latent = latent_input(call, "samples");
  auto dim = call.text("flip_method").starts_with("x") ? -2 : -1;
  latent_out(call, latent, at::flip(latent.samples, {dim}));
}

void run_rotate(Call& call) {
  const auto& latent = latent_input(call, "samples");
  auto rotation = call.text("rotation");
  int turns = rotation.starts_with("90")    ? 1
              : rotation.starts_with("180") ? 2
              : rotation.starts_with("270") ? 3
                                            : 0;
  latent_out(call, latent, at::rot90(latent.samples, turns, {-1, -2}));
}

void run_crop(Call& call) {
  const auto& latent = latent_input(call, "samples");
  // At least 64 pixels stay, where there are as many.
  auto part = [&](const Tensor& x, int dim, const char* start, const char* length) {
    auto last = std::max<std::int64_t>(0, x.size(dim) - 8);
    auto from = std::min(call.integer(start) / 8, last);
    return x.narrow(dim, from, std::min(call.integer(length) / 8, x.size(dim) - from));
  };
  latent_out(call, latent, part(part(latent.samples, -1, "x", "width"), -2, "y", "height"));
}

graph::NodeType advanced(const char* name, std::vector<graph::Input> inputs, void (*run)(Call&),
                         const char* category = "latent/advanced") {
  return {
      .name = name,
      .category = category,
      .python_module = kModule,
      .inputs = std::move(inputs),
      .outputs = {"LATENT"},
      .newer_schema = true,
      .run = run,
  };
}

void add_transforms(graph::Catalog& catalog) {
  auto side = [](const char* name, int def, int min) {
    return integer(name, {.def = def, .min = min, .max = 16384, .step = 8});
  };
  catalog.add({
      .name = "LatentFlip",
      .display_name = "Flip Latent",
      .category = "latent/transform",
      .inputs = {link("samples", "LATENT"),
                 choice("flip_method", {"x-axis: vertically", "y-axis: horizontally"})},
      .outputs = {"LATENT"},
      .run = run_flip,
  });
  catalog.add({
      .name = "LatentRotate",
      .display_name = "Rotate Latent",
      .category = "latent/transform",
      .inputs = {link("samples", "LATENT"),
                 choice("rotation", {"none", "90 degrees", "180 degrees", "270 degrees"})},
      .outputs = {"LATENT"},
      .run = run_rotate,
  });
  catalog.add({
      .name = "LatentCrop",
      .display_name = "Crop Latent",
      .category = "latent/transform",
      .inputs = {link("samples", "LATENT"), side("width", 512, 64), side("height", 512, 64),
                 side("x", 0, 0), side("y", 0, 0)},
      .outputs = {"LATENT"},
      .run = run_crop,
  });
  catalog.add({
      .name = "LatentBlend",
      .display_name = "Latent Blend",
      .category = "_for_testing",
      .inputs = {link("samples1", "LATENT"), link("samples2", "LATENT"),
                 number("blend_factor", {.def = 0.5, .min = 0, .max = 1, .step = 0.01})},
      .outputs = {"LATENT"},
      .run = run_blend,
  });
}

}  // namespace

void add_latent_math_nodes(graph::Catalog& catalog) {
  auto one = link("samples", "LATENT"), first = link("samples1", "LATENT"),
       second = link("samples2", "LATENT");
  catalog.add(advanced("LatentAdd", {first, second}, run_add));
  catalog.add(advanced("LatentSubtract", {first, second}, run_subtract));
  catalog.add(
      advanced("LatentMultiply",
               {one, number("multiplier", {.def = 1.0, .min = -10.0, .max = 10.0, .step = 0.01})},
               run_multiply));
  catalog.add(
      advanced("LatentInterpolate",
               {first, second, number("ratio", {.def = 1.0, .min = 0.0, .max = 1.0, .step = 0.01})},
               run_interpolate));
  catalog.add(advanced("LatentConcat",
                       {first, second, choice("dim", {"x", "-x", "y", "-y", "t", "-t"})},
                       run_concat));
  catalog.add(advanced("LatentCut",
                       {one, choice("dim", {"x", "y", "t"}),
                        integer("index", {.def = 0, .min = -16384, .max = 16384, .step = 1}),
                        integer("amount", {.def = 1, .min = 1, .max = 16384, .step = 1})},
                       run_cut));
  catalog.add(advanced("LatentCutToBatch",
                       {one, choice("dim", {"t", "x", "y"}),
                        integer("slice_size", {.def = 1, .min = 1, .max = 16384, .step = 1})},
                       run_cut_to_batch, "model/latent/advanced"));
  catalog.add(advanced("LatentBatch", {first, second}, run_batch, "latent/batch"));
  catalog.add(advanced("LatentBatchSeedBehavior",
                       {one, choice("seed_behavior", {"random", "fixed"}, {.def = "fixed"})},
                       run_seed_behavior));
  add_transforms(catalog);
}

}  // namespace distorch::nodes
