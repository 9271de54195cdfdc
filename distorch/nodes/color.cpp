#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/graph/dynamic_inputs.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/pictures.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::link;
using graph::number;

namespace {

constexpr double kSmallest = 1e-6;  // a spread that numbers are divided by
constexpr std::int64_t kBins = 256;

Tensor matrix(const std::vector<float>& rows) { return at::tensor(rows).view({3, 3}); }

Tensor white() { return at::tensor({0.95047f, 1.0f, 1.08883f}).view({3, 1}); }

/// A picture [H, W, 3] of sRGB as CIE Lab under D65, [3, H · W]. Constants: kornia.color.
Tensor to_lab(const Tensor& image) {
  auto rgb = image.to(at::kFloat).permute({2, 0, 1}).reshape({3, -1});
  auto light =
      at::where(rgb > 0.04045, at::pow((rgb + 0.055).clamp_min(0) / 1.055, 2.4), rgb / 12.92);
  auto xyz = at::matmul(matrix({0.412453f, 0.357580f, 0.180423f, 0.212671f, 0.715160f, 0.072169f,
                                0.019334f, 0.119193f, 0.950227f}),
                        light) /
             white();
  constexpr double threshold = 0.008856;
  auto f = at::where(xyz > threshold, at::pow(xyz.clamp_min(threshold), 1 / 3.0),
                     7.787 * xyz + 4.0 / 29.0);
  return at::stack({116.0 * f[1] - 16.0, 500.0 * (f[0] - f[1]), 200.0 * (f[1] - f[2])});
}

/// The other way round, clamped: [H, W, 3].
Tensor from_lab(const Tensor& lab, at::IntArrayRef shape) {
  auto y = (lab[0] + 16.0) / 116.0;
  auto f = at::stack({lab[1] / 500.0 + y, y, (y - lab[2] / 200.0).clamp_min(0)});
  auto xyz = at::where(f > 0.2068966, at::pow(f, 3.0), (f - 4.0 / 29.0) / 7.787) * white();
  auto light = at::matmul(matrix({3.2404813432005266f, -1.5371515162713185f, -0.4985363261688878f,
                                  -0.9692549499965682f, 1.8759900014898907f, 0.0415559265582928f,
                                  0.0556466391351772f, -0.2040413383665112f, 1.0573110696453443f}),
                          xyz);
  constexpr double threshold = 0.0031308;
  auto rgb = at::where(light > threshold,
                       1.055 * at::pow(light.clamp_min(threshold), 1 / 2.4) - 0.055, 12.92 * light);
  return rgb.clamp(0, 1).view({3, shape[0], shape[1]}).permute({1, 2, 0});
}

/// Mean [3, 1] and spread of colours: of each number alone [3, 1], or their covariance [3, 3].
struct Colors {
  Tensor mean, spread;
};

/// Of all frames together.
Colors colors_of(const Tensor& frames, bool alone) {
  auto count = frames.size(0);
  auto mean = at::zeros({3, 1});
  for (std::int64_t i = 0; i < count; ++i) mean += to_lab(frames[i]).mean(1, true);
  mean /= static_cast<double>(count);
  auto spread = at::zeros({3, alone ? 1 : 3});
  for (std::int64_t i = 0; i < count; ++i) {
    auto centred = to_lab(frames[i]) - mean;
    spread += alone ? (centred * centred).mean(1, true)
                    : at::matmul(centred, centred.t()) / static_cast<double>(centred.size(1));
  }
  spread /= static_cast<double>(count);
  return {mean, alone ? at::sqrt(spread).clamp_min(kSmallest) : spread};
}

/// The map of colours that turns one covariance into another and moves them least (Monge and
/// Kantorovich, for normal distributions).
Tensor least_move(const Tensor& from, const Tensor& to) {
  auto [values, vectors] = at::linalg_eigh(from);
  auto roots = at::sqrt(values.clamp_min(0)).clamp_min(kSmallest);
  auto scaled = vectors * roots.unsqueeze(0);
  auto [middle_values, middle_vectors] =
      at::linalg_eigh(at::matmul(at::matmul(scaled.t(), to), scaled));
  auto middle = at::matmul(middle_vectors * at::sqrt(middle_values.clamp_min(0)).unsqueeze(0),
                           middle_vectors.t());
  auto inverse = vectors / roots.unsqueeze(0);
  return at::matmul(at::matmul(inverse, middle), inverse.t());
}

/// Lab colours of a frame like `from`'s made like `to`'s.
Tensor moved(const Tensor& lab, const Colors& from, const Colors& to, bool alone) {
  auto centred = lab - from.mean;
  return (alone ? centred * (to.spread / from.spread)
                : at::matmul(least_move(from.spread, to.spread), centred)) +
         to.mean;
}

/// How many of each channel's numbers are at most so large: [C, bins], up to 1.
Tensor counted(const Tensor& frames) {
  auto channels = frames.size(3);
  auto counts = at::zeros({channels, kBins});
  for (std::int64_t i = 0; i < frames.size(0); ++i) {
    auto numbers = frames[i].to(at::kFloat).permute({2, 0, 1}).reshape({channels, -1});
    auto bins = (numbers * static_cast<double>(kBins - 1)).to(at::kLong).clamp(0, kBins - 1);
    counts.scatter_add_(1, bins, at::ones_like(numbers));
  }
  auto sums = counts.cumsum(1);
  return sums / sums.narrow(1, kBins - 1, 1);
}

/// For each bin of `from` the number that `to` has as often: [C, bins].
Tensor histogram_map(const Tensor& from, const Tensor& to) {
  return at::searchsorted(to.contiguous(), from.contiguous()).clamp_max(kBins - 1).to(at::kFloat) /
         static_cast<double>(kBins - 1);
}

Tensor mapped(const Tensor& image, const Tensor& map) {
  auto planes = image.to(at::kFloat).permute({2, 0, 1});
  auto bins = (planes.reshape({planes.size(0), -1}) * static_cast<double>(kBins - 1))
                  .to(at::kLong)
                  .clamp(0, kBins - 1);
  return map.gather(1, bins).view(planes.sizes()).permute({1, 2, 0});
}

/// Which frames a transfer looks at for one of the batch.
struct Looks {
  explicit Looks(Call& call)
      : target(image_input(call, "image_target")), reference(image_input(call, "image_ref")) {
    auto mode = call.text("source_stats");
    by_frame = mode == "per_frame";
    from = target;
    if (mode == "target_frame") {
      auto index = std::min(call.integer("source_stats.target_index"), target.size(0) - 1);
      from = target.narrow(0, index, 1);
    }
  }
  Tensor source(std::int64_t i) const { return by_frame ? target.narrow(0, i, 1) : from; }
  Tensor wanted(std::int64_t i) const {
    if (!by_frame) return reference;
    return reference.narrow(0, std::min(i, reference.size(0) - 1), 1);
  }
  Tensor target, reference, from;
  bool by_frame = true;
};

Tensor by_histogram(const Looks& looks, double strength) {
  std::vector<Tensor> frames;
  Tensor map;
  for (std::int64_t i = 0; i < looks.target.size(0); ++i) {
    if (!map.defined() || looks.by_frame)
      map = histogram_map(counted(looks.source(i)), counted(looks.wanted(i)));
    auto image = looks.target[i].to(at::kFloat);
    frames.push_back(at::lerp(image, mapped(image, map), strength).clamp(0, 1));
  }
  return at::stack(frames);
}

Tensor by_lab(const Looks& looks, bool alone, double strength) {
  std::vector<Tensor> frames;
  Colors from, to;
  for (std::int64_t i = 0; i < looks.target.size(0); ++i) {
    if (!from.mean.defined() || looks.by_frame) {
      from = colors_of(looks.source(i), alone);
      to = colors_of(looks.wanted(i), alone);
    }
    const auto image = looks.target[i];
    auto lab = to_lab(image);
    frames.push_back(from_lab(at::lerp(lab, moved(lab, from, to, alone), strength), image.sizes()));
  }
  return at::stack(frames);
}

void run_transfer(Call& call) {
  Looks looks(call);
  auto strength = call.number("strength");
  if (strength == 0) return image_out(call, 0, looks.target);
  auto method = call.text("method");
  if (method == "histogram") {
    looks.reference = match_channels(looks.reference, looks.target.size(3));
    return image_out(call, 0, by_histogram(looks, strength).contiguous());
  }
  looks.target = match_channels(looks.target, 3);
  looks.from = match_channels(looks.from, 3);
  looks.reference = match_channels(looks.reference, 3);
  image_out(call, 0, by_lab(looks, method == "reinhard_lab", strength).contiguous());
}

}  // namespace

void add_color_nodes(graph::Catalog& catalog) {
  std::vector<graph::Option> stats = {
      {"per_frame", {}},
      {"uniform", {}},
      {"target_frame",
       {graph::integer("target_index",
                       {.def = 0,
                        .min = 0,
                        .max = 10000,
                        .tooltip = "The number of the frame whose colours are measured."})}}};
  catalog.add({
      .name = "ColorTransfer",
      .display_name = "Transfer Color",
      .category = "image/filters",
      .description = "Gives images the colours of another.",
      .python_module = "comfy_extras.nodes_post_processing",
      .inputs = {link("image_target", "IMAGE", {.tooltip = "What gets other colours."}),
                 link("image_ref", "IMAGE", {.tooltip = "Whose colours they are."}),
                 choice("method", {"reinhard_lab", "mkl_lab", "histogram"}),
                 graph::dynamic_choice(
                     "source_stats", stats,
                     "Whose colours count as those before: each frame's own, those of "
                     "all frames, or those of one, so that frames keep their "
                     "differences."),
                 number("strength", {.def = 1.0, .min = 0.0, .max = 10.0, .step = 0.01})},
      .outputs = {{"IMAGE", "image"}},
      .newer_schema = true,
      .run = run_transfer,
  });
}

}  // namespace distorch::nodes
