// Nodes of Wan's video models: what the sampler starts from, and what the network sees beside it.
#include "distorch/base/error.h"
#include "distorch/models/latent_formats.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/vae_coding.h"
#include "distorch/nodes/values.h"
#include "distorch/nodes/wan_common.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::integer;
using graph::link;
using graph::optional;
using graph::Value;
using sampling::Latent;

using namespace wan;

namespace {

void run_empty(Call& call) { call.out(0, Value::of("LATENT", Latent{Wish(call).blank(), {}, {}})); }

/// Source: ComfyUI comfy_extras/nodes_wan.py, WanImageToVideo.
void run_image_to_video(Call& call) {
  Wish wish(call);
  auto latent = wish.blank();
  Given given;
  if (auto start = wish.first_of(call, "start_image"); start.defined()) {
    auto video = wish.canvas(call);
    video.narrow(0, 0, start.size(0)).copy_(start);
    auto begun = vae_of(call).encode(video);
    auto mask = at::ones({1, 1, latent.size(2), begun.size(-2), begun.size(-1)});
    mask.narrow(2, 0, latent_frames(start.size(0))).zero_();
    given.tensors = {{"concat_latent_image", begun}, {"concat_mask", mask}};
  }
  add_vision(call, {"clip_vision_output"}, given);
  answer(call, given, latent);
}

/// Source: WanFirstLastFrameToVideo there; the mask has a channel for each frame of a cell.
void first_and_last(Call& call, std::initializer_list<const char*> visions) {
  Wish wish(call);
  auto coding = vae_coding_of(call);
  auto latent = wish.blank(coding.shape().latent_channels, coding.factor());
  auto video = wish.canvas(call);
  auto mask = at::ones({1, 1, latent.size(2) * kFramesOfCell, latent.size(3), latent.size(4)});
  if (auto start = wish.first_of(call, "start_image"); start.defined()) {
    video.narrow(0, 0, start.size(0)).copy_(start);
    mask.narrow(2, 0, std::min(mask.size(2), start.size(0) + kFramesOfCell - 1)).zero_();
  }
  if (auto end = wish.last_of(call, "end_image"); end.defined()) {
    video.narrow(0, wish.length - end.size(0), end.size(0)).copy_(end);
    mask.narrow(2, mask.size(2) - end.size(0), end.size(0)).zero_();
  }
  Given given{{{"concat_latent_image", coding.encode(video)}, {"concat_mask", by_cell(mask)}}};
  add_vision(call, visions, given);
  answer(call, given, latent);
}

/// Source: WanFunControlToVideo there.
void run_fun_control(Call& call) {
  Wish wish(call);
  auto latent = wish.blank();
  // What is not given is zero in the network's scale.
  auto beside = models::wan21_latent().out_of_network(latent).repeat({1, 2, 1, 1, 1});
  auto put = [&](const char* input, std::int64_t first_channel) {
    auto frames = wish.first_of(call, input);
    if (!frames.defined()) return;
    auto seen = vae_of(call).encode(frames);
    auto count = std::min(seen.size(2), beside.size(2));
    beside.narrow(1, first_channel, kChannels).narrow(2, 0, count).copy_(seen.narrow(2, 0, count));
  };
  put("start_image", kChannels);
  put("control_video", 0);
  Given given{{{"concat_latent_image", beside}}};
  add_vision(call, {"clip_vision_output"}, given);
  answer(call, given, latent);
}

/// Source: Wan22ImageToVideoLatent there.
void run_second_latent(Call& call) {
  constexpr std::int64_t channels = 48, pixels = 16;
  Wish wish(call);
  auto latent = wish.blank(channels, pixels);
  if (!call.has("start_image"))
    return call.out(0, Value::of("LATENT", Latent{latent.narrow(0, 0, 1), {}, {}}));
  auto given = vae_of(call, channels).encode(wish.first_of(call, "start_image"));
  auto count = std::min(given.size(2), latent.size(2));
  auto samples = models::wan22_latent().out_of_network(latent);
  samples.narrow(2, 0, count).copy_(given.narrow(2, 0, count));
  auto mask = at::ones({wish.batch, 1, latent.size(2), latent.size(3), latent.size(4)});
  mask.narrow(2, 0, count).zero_();
  call.out(0, Value::of("LATENT", Latent{samples, mask, {}}));
}

void run_trim(Call& call) {
  auto latent = call.get<Latent>("samples");
  if (latent.samples.dim() != 5)
    throw Error(ErrorKind::Usage, call.place(), "trims latents of video, and this is of pictures");
  auto first = std::min(call.integer("trim_amount"), latent.samples.size(2));
  latent.samples = latent.samples.narrow(2, first, latent.samples.size(2) - first);
  call.out(0, Value::of("LATENT", std::move(latent)));
}

}  // namespace

void add_wan_video_nodes(graph::Catalog& catalog) {
  auto vision = [](const char* name) { return link(name, "CLIP_VISION_OUTPUT"); };
  auto image = [](const char* name) { return link(name, "IMAGE"); };
  catalog.add({
      .name = "EmptyHunyuanLatentVideo",
      .category = "latent/video",
      .python_module = "comfy_extras.nodes_hunyuan",
      .inputs = sizes(848, 480, 25),
      .outputs = {"LATENT"},
      .run = run_empty,
  });
  catalog.add(conditioned({"WanImageToVideo",
                           {vision("clip_vision_output"), image("start_image")},
                           run_image_to_video}));
  catalog.add(conditioned({"WanFirstLastFrameToVideo",
                           {vision("clip_vision_start_image"), vision("clip_vision_end_image"),
                            image("start_image"), image("end_image")},
                           [](Call& call) {
                             first_and_last(call,
                                            {"clip_vision_start_image", "clip_vision_end_image"});
                           }}));
  catalog.add(conditioned({"WanFunInpaintToVideo",
                           {vision("clip_vision_output"), image("start_image"), image("end_image")},
                           [](Call& call) { first_and_last(call, {"clip_vision_output"}); }}));
  catalog.add(
      conditioned({"WanFunControlToVideo",
                   {vision("clip_vision_output"), image("start_image"), image("control_video")},
                   run_fun_control}));
  std::vector<graph::Input> second = {link("vae", "VAE")};
  for (auto& input : sizes(1280, 704, 49, 32)) second.push_back(std::move(input));
  second.push_back(optional(image("start_image")));
  catalog.add({
      .name = "Wan22ImageToVideoLatent",
      .category = "conditioning/inpaint",
      .python_module = "comfy_extras.nodes_wan",
      .inputs = std::move(second),
      .outputs = {"LATENT"},
      .newer_schema = true,
      .run = run_second_latent,
  });
  catalog.add({
      .name = "TrimVideoLatent",
      .category = "latent/video",
      .python_module = "comfy_extras.nodes_wan",
      .inputs = {link("samples", "LATENT"),
                 integer("trim_amount", {.def = 0, .min = 0, .max = 99999})},
      .outputs = {"LATENT"},
      .newer_schema = true,
      .run = run_trim,
  });
  add_wan_control_nodes(catalog);
  add_wan_camera_nodes(catalog);
  add_wan_motion_nodes(catalog);
}

}  // namespace distorch::nodes
