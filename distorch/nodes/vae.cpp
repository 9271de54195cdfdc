#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/models/vae/tiled_video.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/vae_coding.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::integer;
using graph::link;
using graph::Value;
using models::vae::TileSize;
using sampling::Conditioning;
using sampling::Latent;

namespace {

models::vae::TileProgress progress_of(Call& call) {
  return [&call](std::int64_t done, std::int64_t total) {
    call.progress(static_cast<double>(done), static_cast<double>(total));
  };
}

void out_latent(Call& call, std::size_t slot, Latent latent) {
  call.out(slot, Value::of("LATENT", std::move(latent)));
}

void run_decode(Call& call) {
  call.out(0, Value::of("IMAGE", vae_coding_of(call).decode(call.get<Latent>("samples").samples)));
}

void run_decode_tiled(Call& call) {
  auto coding = vae_coding_of(call);
  auto tile = call.integer("tile_size"), overlap = call.integer("overlap");
  if (tile < overlap * 4) overlap = tile / 4;
  TileSize size{tile / coding.factor(), tile / coding.factor(), overlap / coding.factor()};
  auto frames = call.integer("temporal_size"), frame_overlap = call.integer("temporal_overlap");
  if (frames < 2 * frame_overlap) frame_overlap /= 2;
  auto step = coding.shape().time_downscale;
  frames = std::max<std::int64_t>(2, frames / step);
  frame_overlap = std::max<std::int64_t>(1, std::min(frames / 2, frame_overlap / step));
  call.out(0, Value::of("IMAGE", coding.decode_tiled(call.get<Latent>("samples").samples, size,
                                                     {frames, frame_overlap}, progress_of(call))));
}

/// Frames that make no whole latent frame are left out, as in ComfyUI; here that is said.
void tell_frames(const Call& call, const models::VaeShape& shape, const Tensor& pixels) {
  const auto frames = pixels.size(0), each = shape.time_downscale;
  if (shape.dimensions != 3 || shape.whole_clips || (frames - 1) % each == 0) return;
  log::warn("{}: of {} frames the last {} are left out, as lengths are {}n + 1", call.place(),
            frames, (frames - 1) % each, each);
}

void run_encode(Call& call) {
  auto coding = vae_coding_of(call);
  const auto& pixels = call.get<Tensor>("pixels");
  tell_frames(call, coding.shape(), pixels);
  out_latent(call, 0, {coding.encode(pixels), {}, {}});
}

void run_encode_tiled(Call& call) {
  auto coding = vae_coding_of(call);
  auto shape = coding.shape();
  tell_frames(call, shape, call.get<Tensor>("pixels"));
  using models::vae::frames_of, models::vae::latent_frames_of;
  auto latent_frames =
      std::max<std::int64_t>(2, latent_frames_of(shape, call.integer("temporal_size")));
  auto latent_overlap = std::max<std::int64_t>(
      1, std::min(latent_frames / 2, latent_frames_of(shape, call.integer("temporal_overlap"))));
  auto tile = call.integer("tile_size");
  auto latent = coding.encode_tiled(
      call.get<Tensor>("pixels"), {tile, tile, call.integer("overlap")},
      {frames_of(shape, latent_frames), frames_of(shape, latent_overlap)}, progress_of(call));
  out_latent(call, 0, {latent, {}, {}});
}

/// A picture and its mask in the same size, both cut to multiples of `factor`, what is to be
/// repainted turned gray.
struct Masked {
  Tensor pixels;  // [B, h, w, 3]
  Tensor mask;    // [B, 1, h, w]
};

Masked mask_out(const Tensor& image, const Tensor& given, std::int64_t factor) {
  auto pixels = image.narrow(3, 0, 3);
  auto mask = at::upsample_bilinear2d(given.reshape({-1, 1, given.size(-2), given.size(-1)}),
                                      {pixels.size(1), pixels.size(2)}, false);
  for (int dim : {1, 2}) {
    auto size = pixels.size(dim), kept = size / factor * factor;
    if (kept == 0) throw Error(ErrorKind::Shape, "image", "is smaller than one latent cell");
    pixels = pixels.narrow(dim, size % factor / 2, kept);
    mask = mask.narrow(dim + 1, size % factor / 2, kept);
  }
  auto keep = (1.0 - mask.round()).movedim(1, -1);
  return {(pixels - 0.5) * keep + 0.5, mask};
}

void run_encode_inpaint(Call& call) {
  auto coding = vae_coding_of(call);
  auto masked = mask_out(call.get<Tensor>("pixels"), call.get<Tensor>("mask"), coding.factor());
  auto grow = call.integer("grow_mask_by");
  auto grown = masked.mask;
  if (grow > 0) {
    auto padding = grow / 2;  // (grow - 1) / 2 rounded up
    grown =
        at::conv2d(masked.mask.round(), at::ones({1, 1, grow, grow}), {}, 1, padding).clamp(0, 1);
  }
  // An even width of growth leaves one row and column too many.
  grown = grown.narrow(2, 0, masked.mask.size(2)).narrow(3, 0, masked.mask.size(3)).round();
  out_latent(call, 0, {coding.encode(masked.pixels), grown, {}});
}

void run_inpaint_conditioning(Call& call) {
  auto coding = vae_coding_of(call);
  const auto& image = call.get<Tensor>("pixels");
  auto masked = mask_out(image, call.get<Tensor>("mask"), 8);
  auto concat = coding.encode(masked.pixels);
  Latent latent{coding.encode(image), {}, {}};
  if (call.boolean("noise_mask")) latent.noise_mask = masked.mask;
  std::size_t slot = 0;
  for (const char* name : {"positive", "negative"}) {
    auto conditioning = call.get<Conditioning>(name);
    for (auto& item : conditioning) {
      item.tensors["concat_latent_image"] = concat;
      item.tensors["concat_mask"] = masked.mask;
    }
    call.out(slot++, Value::of("CONDITIONING", std::move(conditioning)));
  }
  out_latent(call, 2, std::move(latent));
}

graph::NodeType tiled(const char* name, const char* title, int step, const char* at_once) {
  auto frames = [&](const char* what) {
    return std::string("For video VAEs: how many frames ") + what;
  };
  return {
      .name = name,
      .display_name = title,
      .category = "_for_testing",
      .inputs = {link("vae", "VAE"),
                 integer("tile_size", {.def = 512, .min = 64, .max = 4096, .step = step}),
                 integer("overlap", {.def = 64, .min = 0, .max = 4096, .step = 32}),
                 integer("temporal_size",
                         {.def = 64, .min = 8, .max = 4096, .step = 4, .tooltip = frames(at_once)}),
                 integer("temporal_overlap", {.def = 8,
                                              .min = 4,
                                              .max = 4096,
                                              .step = 4,
                                              .tooltip = frames("two pieces share.")})},
  };
}

void add_tiled_nodes(graph::Catalog& catalog) {
  auto decode = tiled("VAEDecodeTiled", "VAE Decode (Tiled)", 32, "are decoded at once.");
  decode.inputs.insert(decode.inputs.begin(), link("samples", "LATENT"));
  decode.outputs = {"IMAGE"};
  decode.run = run_decode_tiled;
  catalog.add(std::move(decode));
  auto encode = tiled("VAEEncodeTiled", "VAE Encode (Tiled)", 64, "are encoded at once.");
  encode.inputs.insert(encode.inputs.begin(), link("pixels", "IMAGE"));
  encode.outputs = {"LATENT"};
  encode.run = run_encode_tiled;
  catalog.add(std::move(encode));
}

}  // namespace

void add_vae_nodes(graph::Catalog& catalog) {
  catalog.add({
      .name = "VAEDecode",
      .display_name = "VAE Decode",
      .category = "latent",
      .description = "Turns latents into images.",
      .inputs = {link("samples", "LATENT", {.tooltip = "Latents, as a sampler gives them."}),
                 link("vae", "VAE", {.tooltip = "The VAE that belongs to the diffusion model."})},
      .outputs = {{"IMAGE", "", "The images, in colour."}},
      .run = run_decode,
  });
  catalog.add({
      .name = "VAEEncode",
      .display_name = "VAE Encode",
      .category = "latent",
      .inputs = {link("pixels", "IMAGE"), link("vae", "VAE")},
      .outputs = {"LATENT"},
      .run = run_encode,
  });
  add_tiled_nodes(catalog);
  catalog.add({
      .name = "VAEEncodeForInpaint",
      .display_name = "VAE Encode (for Inpainting)",
      .category = "latent/inpaint",
      .inputs = {link("pixels", "IMAGE"), link("vae", "VAE"), link("mask", "MASK"),
                 integer("grow_mask_by", {.def = 6, .min = 0, .max = 64, .step = 1})},
      .outputs = {"LATENT"},
      .run = run_encode_inpaint,
  });
  catalog.add({
      .name = "InpaintModelConditioning",
      .category = "conditioning/inpaint",
      .inputs = {link("positive", "CONDITIONING"), link("negative", "CONDITIONING"),
                 link("vae", "VAE"), link("pixels", "IMAGE"), link("mask", "MASK"),
                 graph::boolean(
                     "noise_mask",
                     {.def = true,
                      .tooltip =
                          "Sample only inside the mask. Some models need it, others give worse "
                          "images with it: try both."})},
      .outputs = {{"CONDITIONING", "positive"}, {"CONDITIONING", "negative"}, {"LATENT", "latent"}},
      .run = run_inpaint_conditioning,
  });
}

}  // namespace distorch::nodes
