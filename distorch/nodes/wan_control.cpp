// Nodes of Wan's video models that follow something: control frames (VACE, Fun), a camera, subjects.
// Source: ComfyUI comfy_extras/nodes_wan.py.
#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/resize.h"
#include "distorch/nodes/vae_coding.h"
#include "distorch/nodes/values.h"
#include "distorch/nodes/wan_common.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::link;
using graph::Value;
using sampling::Conditioning;
using sampling::Latent;
using namespace wan;

namespace {

/// Frames [T, H, W, C] with more of `value` behind them where they are fewer than `length`.
Tensor filled_up(const Tensor& frames, std::int64_t length, double value) {
  auto missing = length - frames.size(0);
  return missing <= 0 ? frames : at::constant_pad_nd(frames, {0, 0, 0, 0, 0, 0, 0, missing}, value);
}

/// Where the control frames are to be made anew: [T, H, W, 1], 1 = anew.
Tensor vace_mask(Call& call, const Wish& wish) {
  if (!call.has("control_masks")) return at::ones({wish.length, wish.height, wish.width, 1});
  auto mask = call.get<Tensor>("control_masks");
  mask = mask.narrow(0, 0, std::min(wish.length, mask.size(0))).unsqueeze(1).contiguous();
  auto sized = resize(mask, {wish.width, wish.height, "bilinear", true}).movedim(1, -1);
  return filled_up(sized, wish.length, 1.0);
}

/// The same with a channel for each pixel of a cell: [1, 64, T', h, w].
Tensor in_cells(const Tensor& mask, const Wish& wish) {
  constexpr auto cell = kPixelsOfCell;
  auto rows = wish.height / cell, columns = wish.width / cell;
  auto pixels = mask.reshape({wish.length, rows, cell, columns, cell})
                    .permute({2, 4, 0, 1, 3})
                    .reshape({1, cell * cell, wish.length, rows, columns});
  return at::_upsample_nearest_exact3d(pixels, {latent_frames(wish.length), rows, columns});
}

void run_vace(Call& call) {
  Wish wish(call);
  if (wish.width % kPixelsOfCell != 0 || wish.height % kPixelsOfCell != 0)
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("makes control frames whose width and height are multiples of {}, got "
                            "{} x {}",
                            kPixelsOfCell, wish.width, wish.height));
  auto coding = vae_of(call);
  auto video = wish.first_of(call, "control_video");
  video = video.defined() ? filled_up(video, wish.length, kGray) : wish.gray();
  auto mask = vace_mask(call, wish);
  auto frames = at::cat({coding.encode((video - kGray) * (1.0 - mask) + kGray),
                         coding.encode((video - kGray) * mask + kGray)},
                        1);
  auto cells = in_cells(mask, wish);
  std::int64_t before = 0;
  if (call.has("reference_image")) {
    auto seen = coding.encode(wish.fitted(call.get<Tensor>("reference_image").narrow(0, 0, 1)));
    before = seen.size(2);
    frames = at::cat({at::cat({seen, nothing(seen.sizes())}, 1), frames}, 2);
    cells = at::cat({at::zeros_like(cells.narrow(2, 0, before)), cells}, 2);
  }
  Given given;
  given.appended = {{"vace_frames", frames.unsqueeze(1)},
                    {"vace_mask", cells.unsqueeze(1)},
                    {"vace_strength", at::full({1, 1}, call.number("strength"), at::kFloat)}};
  auto sizes = wish.blank().sizes().vec();
  sizes[2] += before;
  answer(call, given, at::zeros(sizes));
  call.out(3, Value::constant(before));
}

void run_second_fun_control(Call& call) {
  Wish wish(call);
  auto coding = vae_coding_of(call);
  auto channels = coding.shape().latent_channels;
  auto latent = wish.blank(channels, coding.factor());
  auto beside = nothing(latent.sizes()).repeat({1, 2, 1, 1, 1});
  Given given;
  if (call.has("ref_image"))
    given.references = {coding.encode(wish.fitted(call.get<Tensor>("ref_image").narrow(0, 0, 1)))};
  if (auto video = wish.first_of(call, "control_video"); video.defined())
    put(beside, 0, coding.encode(video));
  auto mask = at::ones({1, 1, latent.size(2) * kFramesOfCell, latent.size(3), latent.size(4)});
  given.tensors = {{"concat_latent_image", beside}, {"concat_mask", by_cell(mask)}};
  given.numbers = {{"concat_mask_index", static_cast<double>(channels)}};
  answer(call, given, latent);
}

void run_camera_image(Call& call) {
  Wish wish(call);
  auto latent = wish.blank();
  Given given;
  if (auto start = wish.first_of(call, "start_image"); start.defined()) {
    auto beside = nothing(latent.sizes());
    put(beside, 0, vae_of(call).encode(start));
    auto mask = at::ones({1, 1, latent.size(2) * kFramesOfCell, latent.size(3), latent.size(4)});
    mask.narrow(2, 0, std::min(mask.size(2), start.size(0) + kFramesOfCell - 1)).zero_();
    given.tensors = {{"concat_latent_image", beside}, {"concat_mask", by_cell(mask)}};
  }
  if (call.has("camera_conditions"))
    given.tensors["camera_conditions"] = call.get<Tensor>("camera_conditions");
  add_vision(call, {"clip_vision_output"}, given);
  answer(call, given, latent);
}

/// The subjects go behind the last frame; the second negative sees none.
void run_phantom(Call& call) {
  Wish wish(call);
  auto positive = call.get<Conditioning>("positive"), negative = call.get<Conditioning>("negative");
  auto blind = negative;
  if (auto images = wish.first_of(call, "images"); images.defined()) {
    auto coding = vae_of(call);
    std::vector<Tensor> latents;
    for (const auto& image : images.split(1)) latents.push_back(coding.encode(image));
    auto subjects = at::cat(latents, 2);
    Given seen{{{"time_dim_concat", subjects}}};
    positive = with(std::move(positive), seen);
    negative = with(std::move(negative), seen);
    blind = with(std::move(blind), {{{"time_dim_concat", nothing(subjects.sizes())}}});
  }
  call.out(0, Value::of("CONDITIONING", std::move(positive)));
  call.out(1, Value::of("CONDITIONING", std::move(negative)));
  call.out(2, Value::of("CONDITIONING", std::move(blind)));
  call.out(3, Value::of("LATENT", Latent{wish.blank(), {}, {}}));
}

}  // namespace

void add_wan_control_nodes(graph::Catalog& catalog) {
  auto image = [](const char* name) { return link(name, "IMAGE"); };
  auto vace = conditioned(
      {"WanVaceToVideo",
       {image("control_video"), link("control_masks", "MASK"), image("reference_image")},
       run_vace,
       {graph::number("strength", {.def = 1.0, .min = 0.0, .max = 1000.0, .step = 0.01})}});
  vace.outputs.push_back({"INT", "trim_latent"});
  catalog.add(std::move(vace));
  catalog.add(conditioned({"Wan22FunControlToVideo",
                           {image("ref_image"), image("control_video")},
                           run_second_fun_control}));
  catalog.add(conditioned({"WanCameraImageToVideo",
                           {link("clip_vision_output", "CLIP_VISION_OUTPUT"), image("start_image"),
                            link("camera_conditions", "WAN_CAMERA_EMBEDDING")},
                           run_camera_image}));
  auto phantom = conditioned({"WanPhantomSubjectToVideo", {image("images")}, run_phantom});
  phantom.outputs = {{"CONDITIONING", "positive"},
                     {"CONDITIONING", "negative_text"},
                     {"CONDITIONING", "negative_img_text"},
                     {"LATENT", "latent"}};
  catalog.add(std::move(phantom));
}

}  // namespace distorch::nodes
