// Videos to latents in the model's scale and back.
#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/latent_formats.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/resize.h"
#include "distorch/nodes/vae_coding.h"
#include "distorch/nodes/wan_wrapper.h"
#include "distorch/nodes/wan_wrapper_latents.h"

namespace distorch::nodes::wan_wrapper {

using at::Tensor;
using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using graph::optional;
using graph::Value;
using sampling::Latent;

namespace {

/// Tiles in units of what is coded. The names x and y are the other way round in the wrapper, and
/// so they are here: tile_x is the height.
struct Tiles {
  Tiles(const Call& call, std::int64_t unit)
      : height(call.integer("tile_x") / unit),
        width(call.integer("tile_y") / unit),
        row_stride(call.integer("tile_stride_x") / unit),
        column_stride(call.integer("tile_stride_y") / unit) {}
  std::int64_t height, width, row_stride, column_stride;
};

models::LatentFormat format_of(std::int64_t channels) {
  auto second = models::wan22_latent();
  return channels == second.channels ? second : models::wan21_latent();
}

/// Where tiles begin along one side: every stride, until one reaches the border.
std::vector<std::int64_t> starts(std::int64_t size, std::int64_t tile, std::int64_t stride) {
  std::vector<std::int64_t> list;
  for (std::int64_t first = 0; first < size; first += stride) {
    list.push_back(first);
    if (first + tile >= size) break;
  }
  return list;
}

/// How much a tile's pixels count along one side, [length]: they rise over `border` where another
/// tile lies.
Tensor ramp(std::int64_t length, std::int64_t border, bool at_start, bool at_end) {
  auto weights = at::ones({length});
  border = std::min(border, length);
  auto rising = at::arange(1, border + 1, at::kFloat) / static_cast<double>(border);
  if (!at_start) weights.narrow(0, 0, border).copy_(rising);
  if (!at_end)
    weights.narrow(0, length - border, border)
        .copy_(at::minimum(weights.narrow(0, length - border, border).clone(), rising.flip(0)));
  return weights;
}

/// Each tile over the whole time, blended where two lie over each other. Latent [1, C, T, h, w] ->
/// [T', H, W, 3].
Tensor decode_in_tiles(Call& call, VaeCoding& coding, const Tensor& latent) {
  const Tiles tiles(call, 8);
  const auto rows = latent.size(3), columns = latent.size(4), factor = coding.factor();
  const auto tops = starts(rows, tiles.height, tiles.row_stride),
             lefts = starts(columns, tiles.width, tiles.column_stride);
  const auto row_border = (tiles.height - tiles.row_stride) * factor,
             column_border = (tiles.width - tiles.column_stride) * factor;
  Tensor sum, weight;
  double done = 0;
  for (auto top : tops)
    for (auto left : lefts) {
      const auto height = std::min(tiles.height, rows - top),
                 width = std::min(tiles.width, columns - left);
      auto pixels =
          coding.decode(latent.narrow(3, top, height).narrow(4, left, width).contiguous());
      if (!sum.defined()) {
        sum = at::zeros({pixels.size(0), rows * factor, columns * factor, 3});
        weight = at::zeros({rows * factor, columns * factor, 1});
      }
      auto down = ramp(height * factor, row_border, top == 0, top + height == rows);
      auto across = ramp(width * factor, column_border, left == 0, left + width == columns);
      auto counts = at::minimum(down.unsqueeze(1), across.unsqueeze(0)).unsqueeze(-1);
      auto place = [&](const Tensor& x, int dim) {
        return x.narrow(dim, top * factor, height * factor)
            .narrow(dim + 1, left * factor, width * factor);
      };
      place(sum, 1).add_(pixels * counts);
      place(weight, 0).add_(counts);
      call.progress(++done, static_cast<double>(tops.size() * lefts.size()));
    }
  return sum / weight;
}

Tensor stretched(const Tensor& images) {
  const auto least = images.min(), most = images.max();
  return (images - least) / (most - least);
}

void run_decode(Call& call) {
  const auto& vae = video_vae(call);
  VaeCoding coding(vae, call.context<streaming::Engine>());
  const auto& samples = latent_input(call, "samples").samples;
  const auto notes = notes_of(samples);
  if (samples.dim() != 5 || samples.size(1) != coding.shape().latent_channels)
    throw Error(ErrorKind::Shape, coding.file(),
                fmt::format("decodes latents of {} channels, and the samples have {}: load the VAE "
                            "of the model that made them ({})",
                            coding.shape().latent_channels, samples.size(1),
                            samples.size(1) == models::wan22_latent().channels ? "wan2.2_vae"
                                                                               : "wan_2.1_vae"));
  auto latent = format_of(samples.size(1)).out_of_network(samples);
  // Neither a picture before the video nor what closes it is part of the video.
  const std::int64_t before = notes.has_reference ? 1 : 0;
  const std::int64_t behind = notes.end_image ? 1 : 0;
  latent = latent.narrow(2, before, latent.size(2) - before - behind);
  const bool tiled = call.boolean("enable_vae_tiling") && !notes.end_image;
  auto images = tiled ? decode_in_tiles(call, coding, latent) : coding.decode(latent);
  const bool minmax = call.has("normalization") && call.text("normalization") == "minmax";
  if (minmax) images = stretched(images);
  constexpr std::int64_t seam_behind = 3, seam_before = 2, seam_skip = 9, start_skip = 5;
  if (notes.looped && latent.size(2) > seam_behind) {
    auto seam = coding.decode(at::cat({latent.narrow(2, latent.size(2) - seam_behind, seam_behind),
                                       latent.narrow(2, 0, seam_before)},
                                      2));
    images = at::cat({stretched(seam).slice(0, seam_skip), images.slice(0, start_skip)});
  }
  image_out(call, 0, images.clamp(0, 1));
}

void run_encode(Call& call) {
  const auto& vae = video_vae(call);
  VaeCoding coding(vae, call.context<streaming::Engine>());
  constexpr std::int64_t multiple = 16;
  auto image = image_input(call, "image").narrow(3, 0, 3);
  const auto height = image.size(1) / multiple * multiple,
             width = image.size(2) / multiple * multiple;
  if (height == 0 || width == 0)
    throw Error(ErrorKind::Shape, call.place(),
                fmt::format("input 'image' has {} x {} pixels, and {} each way are the least",
                            image.size(2), image.size(1), multiple));
  if (height != image.size(1) || width != image.size(2))
    image = resize_image(image, {width, height, "lanczos", false});
  if (const auto strength = call.number("noise_aug_strength"); strength > 0) {
    constexpr std::uint64_t seed = 0;
    auto generator = at::detail::createCPUGenerator(seed);
    image = image + at::randn(image.sizes(), generator, image.options()) * strength;
  }
  const Tiles tiles(call, 1);
  auto coded =
      call.boolean("enable_vae_tiling")
          ? coding.encode_tiled(
                image,
                {tiles.width, tiles.height,
                 std::min(tiles.height - tiles.row_stride, tiles.width - tiles.column_stride)},
                {})
          : coding.encode(image);
  Latent latent{format_of(coded.size(1)).into_network(coded), {}, {}};
  if (const auto strength = call.number("latent_strength"); strength != 1)
    latent.samples = latent.samples * strength;
  if (call.has("mask")) latent.noise_mask = call.get<Tensor>("mask");
  latent_out(call, std::move(latent));
}

void run_rescale(Call& call) {
  const auto& latent = latent_input(call, "samples");
  const auto format = format_of(latent.samples.size(1));
  latent_out(call, latent,
             call.text("direction") == "comfy_to_wrapper" ? format.into_network(latent.samples)
                                                          : format.out_of_network(latent.samples));
}

struct TileRange {
  int least, most, step, least_stride, most_stride, stride_step;
};

std::vector<graph::Input> tile_inputs(const TileRange& range) {
  auto tile = [&](const char* name) {
    return integer(name, {.def = 272, .min = range.least, .max = range.most, .step = range.step});
  };
  auto stride = [&](const char* name, int usual) {
    return integer(name, {.def = usual,
                          .min = range.least_stride,
                          .max = range.most_stride,
                          .step = range.stride_step});
  };
  return {boolean("enable_vae_tiling", {.def = false}), tile("tile_x"), tile("tile_y"),
          stride("tile_stride_x", 144), stride("tile_stride_y", 128)};
}

/// Tiles have to be larger than what lies between their starts.
graph::InputCheck overlapping() {
  return {{"tile_x", "tile_y"}, [](const Call& call) -> std::string {
            for (const char* side : {"x", "y"}) {
              const auto tile = std::string("tile_") + side,
                         stride = std::string("tile_stride_") + side;
              if (!call.has(tile) || !call.has(stride)) continue;
              if (call.integer(tile) <= call.integer(stride))
                return fmt::format("{} is {}, which has to be more than {} ({})", tile,
                                   call.integer(tile), stride, call.integer(stride));
            }
            return "";
          }};
}

void add_with_variant(graph::Catalog& catalog, graph::NodeType node) {
  auto placed = multigpu_variant(node);
  placed.inputs.insert(placed.inputs.begin() + 1, optional(link("load_device", "MULTIGPUDEVICE")));
  catalog.add(std::move(node));
  catalog.add(std::move(placed));
}

}  // namespace

void add_vae_nodes(graph::Catalog& catalog) {
  graph::NodeType decode{
      .name = "WanVideoDecode",
      .display_name = "WanVideo Decode",
      .category = kCategory,
      .description = "Turns what WanVideoSampler made into frames.",
      .python_module = kModule,
      .inputs = {link("vae", "WANVAE"), link("samples", "LATENT")},
      .outputs = {{"IMAGE", "images"}},
      .run = run_decode,
      .checks = {overlapping()},
  };
  for (auto& input : tile_inputs({40, 2048, 8, 32, 2040, 8})) decode.inputs.push_back(input);
  decode.inputs.push_back(
      optional(choice("normalization", {"default", "minmax"}, {.extra = {{"advanced", true}}})));
  add_with_variant(catalog, std::move(decode));
  auto strength = [](const char* name, double usual) {
    return optional(number(name, {.def = usual, .min = 0.0, .max = 10.0, .step = 0.001}));
  };
  graph::NodeType encode{
      .name = "WanVideoEncode",
      .display_name = "WanVideo Encode",
      .category = kCategory,
      .description = "Turns frames into a latent for WanVideoSampler.",
      .python_module = kModule,
      .inputs = {link("vae", "WANVAE"), link("image", "IMAGE")},
      .outputs = {{"LATENT", "samples"}},
      .run = run_encode,
      .checks = {overlapping()},
  };
  for (auto& input : tile_inputs({64, 2048, 1, 32, 2048, 32})) encode.inputs.push_back(input);
  encode.inputs.push_back(strength("noise_aug_strength", 0.0));
  encode.inputs.push_back(strength("latent_strength", 1.0));
  encode.inputs.push_back(optional(link("mask", "MASK")));
  add_with_variant(catalog, std::move(encode));
  catalog.add({
      .name = "WanVideoLatentReScale",
      .display_name = "WanVideo Latent ReScale",
      .category = kCategory,
      .description = "A latent of ComfyUI's own nodes for these nodes, or the other way round.",
      .python_module = kModule,
      .inputs = {link("samples", "LATENT"),
                 choice("direction", {"comfy_to_wrapper", "wrapper_to_comfy"},
                        {.extra = graph::Json::object()})},
      .outputs = {{"LATENT", "samples"}},
      .run = run_rescale,
  });
}

}  // namespace distorch::nodes::wan_wrapper
