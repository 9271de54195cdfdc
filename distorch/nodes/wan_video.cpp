// Nodes of Wan's video models: what the sampler starts from, and what the network sees beside it.
#include "distorch/base/error.h"
#include "distorch/models/latent_formats.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/clip_vision.h"
#include "distorch/nodes/resize.h"
#include "distorch/nodes/vae_coding.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::integer;
using graph::link;
using graph::optional;
using graph::Value;
using sampling::Conditioning;
using sampling::Latent;

namespace {

constexpr std::int64_t kFramesOfCell = 4, kPixelsOfCell = 8, kChannels = 16;
constexpr std::int64_t kLargest = 16384;
constexpr float kGray = 0.5f;

/// Latent frames of so many frames: the first alone, then four at a time.
std::int64_t latent_frames(std::int64_t frames) { return (frames - 1) / kFramesOfCell + 1; }

/// What all of these nodes are asked for.
struct Wish {
  explicit Wish(Call& call)
      : width(call.integer("width")),
        height(call.integer("height")),
        length(call.integer("length")),
        batch(call.integer("batch_size")) {}

  Tensor blank(std::int64_t channels = kChannels, std::int64_t pixels = kPixelsOfCell) const {
    return at::zeros({batch, channels, latent_frames(length), height / pixels, width / pixels});
  }
  /// Frames [T, H, W, 3] in the wanted size.
  Tensor fitted(const Tensor& frames) const {
    auto colours = frames.narrow(3, 0, 3).movedim(-1, 1).contiguous();
    return resize(colours, {width, height, "bilinear", true}).movedim(1, -1).contiguous();
  }
  /// A gray video.
  Tensor gray() const { return at::full({length, height, width, 3}, kGray); }
  /// The first frames of a linked picture or video; undefined where none is linked.
  Tensor first_of(Call& call, const char* input) const {
    if (!call.has(input)) return {};
    const auto& frames = call.get<Tensor>(input);
    return fitted(frames.narrow(0, 0, std::min(length, frames.size(0))));
  }
  /// The last ones.
  Tensor last_of(Call& call, const char* input) const {
    if (!call.has(input)) return {};
    const auto& frames = call.get<Tensor>(input);
    auto count = std::min(length, frames.size(0));
    return fitted(frames.narrow(0, frames.size(0) - count, count));
  }

  std::int64_t width, height, length, batch;
};

/// The tensors on every item of both conditionings, and the latent: the three outputs.
void answer(Call& call, const std::map<std::string, Tensor>& tensors, Tensor samples) {
  int output = 0;
  for (const char* name : {"positive", "negative"}) {
    auto conditioning = call.get<Conditioning>(name);
    for (auto& item : conditioning)
      for (const auto& [key, tensor] : tensors) item.tensors[key] = tensor;
    call.out(output++, Value::of("CONDITIONING", std::move(conditioning)));
  }
  call.out(output, Value::of("LATENT", Latent{std::move(samples), {}, {}}));
}

/// What a picture encoder saw, of one or two pictures, where any is linked.
void add_vision(Call& call, std::initializer_list<const char*> inputs,
                std::map<std::string, Tensor>& tensors) {
  std::vector<Tensor> states;
  for (const char* input : inputs)
    if (call.has(input)) states.push_back(call.get<VisionOutput>(input).penultimate);
  if (!states.empty()) tensors["clip_vision_penultimate"] = at::cat(states, 1);
}

void run_empty(Call& call) { call.out(0, Value::of("LATENT", Latent{Wish(call).blank(), {}, {}})); }

/// Source: ComfyUI comfy_extras/nodes_wan.py, WanImageToVideo.
void run_image_to_video(Call& call) {
  Wish wish(call);
  auto latent = wish.blank();
  std::map<std::string, Tensor> tensors;
  if (auto start = wish.first_of(call, "start_image"); start.defined()) {
    auto video = wish.gray();
    video.narrow(0, 0, start.size(0)).copy_(start);
    auto given = vae_coding_of(call).encode(video);
    auto mask = at::ones({1, 1, latent.size(2), given.size(-2), given.size(-1)});
    mask.narrow(2, 0, latent_frames(start.size(0))).zero_();
    tensors = {{"concat_latent_image", given}, {"concat_mask", mask}};
  }
  add_vision(call, {"clip_vision_output"}, tensors);
  answer(call, tensors, latent);
}

/// Source: WanFirstLastFrameToVideo there; the mask has a channel for each frame of a cell.
void first_and_last(Call& call, std::initializer_list<const char*> visions) {
  Wish wish(call);
  auto coding = vae_coding_of(call);
  auto latent = wish.blank(coding.shape().latent_channels, coding.factor());
  auto video = wish.gray();
  auto mask = at::ones({1, 1, latent.size(2) * kFramesOfCell, latent.size(3), latent.size(4)});
  if (auto start = wish.first_of(call, "start_image"); start.defined()) {
    video.narrow(0, 0, start.size(0)).copy_(start);
    mask.narrow(2, 0, std::min(mask.size(2), start.size(0) + kFramesOfCell - 1)).zero_();
  }
  if (auto end = wish.last_of(call, "end_image"); end.defined()) {
    video.narrow(0, wish.length - end.size(0), end.size(0)).copy_(end);
    mask.narrow(2, mask.size(2) - end.size(0), end.size(0)).zero_();
  }
  std::map<std::string, Tensor> tensors = {
      {"concat_latent_image", coding.encode(video)},
      {"concat_mask", mask.view({1, latent.size(2), kFramesOfCell, latent.size(3), latent.size(4)})
                          .transpose(1, 2)
                          .contiguous()}};
  add_vision(call, visions, tensors);
  answer(call, tensors, latent);
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
    auto given = vae_coding_of(call).encode(frames);
    auto count = std::min(given.size(2), beside.size(2));
    beside.narrow(1, first_channel, kChannels).narrow(2, 0, count).copy_(given.narrow(2, 0, count));
  };
  put("start_image", kChannels);
  put("control_video", 0);
  std::map<std::string, Tensor> tensors = {{"concat_latent_image", beside}};
  add_vision(call, {"clip_vision_output"}, tensors);
  answer(call, tensors, latent);
}

/// Source: Wan22ImageToVideoLatent there.
void run_second_latent(Call& call) {
  constexpr std::int64_t channels = 48, pixels = 16;
  Wish wish(call);
  auto latent = wish.blank(channels, pixels);
  if (!call.has("start_image"))
    return call.out(0, Value::of("LATENT", Latent{latent.narrow(0, 0, 1), {}, {}}));
  auto given = vae_coding_of(call).encode(wish.first_of(call, "start_image"));
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

std::vector<graph::Input> sizes(std::int64_t width, std::int64_t height, std::int64_t length,
                                std::int64_t step = 16) {
  return {integer("width", {.def = width, .min = step, .max = kLargest, .step = step}),
          integer("height", {.def = height, .min = step, .max = kLargest, .step = step}),
          integer("length", {.def = length, .min = 1, .max = kLargest, .step = 4}),
          integer("batch_size", {.def = 1, .min = 1, .max = 4096})};
}

void add_conditioned(graph::Catalog& catalog, const char* name, std::vector<graph::Input> more,
                     void (*run)(Call&)) {
  std::vector<graph::Input> inputs = {link("positive", "CONDITIONING"),
                                      link("negative", "CONDITIONING"), link("vae", "VAE")};
  for (auto& input : sizes(832, 480, 81)) inputs.push_back(std::move(input));
  for (auto& input : more) inputs.push_back(optional(std::move(input)));
  catalog.add({
      .name = name,
      .category = "conditioning/video_models",
      .python_module = "comfy_extras.nodes_wan",
      .inputs = std::move(inputs),
      .outputs = {{"CONDITIONING", "positive"}, {"CONDITIONING", "negative"}, {"LATENT", "latent"}},
      .newer_schema = true,
      .run = run,
  });
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
  add_conditioned(catalog, "WanImageToVideo", {vision("clip_vision_output"), image("start_image")},
                  run_image_to_video);
  add_conditioned(catalog, "WanFirstLastFrameToVideo",
                  {vision("clip_vision_start_image"), vision("clip_vision_end_image"),
                   image("start_image"), image("end_image")},
                  [](Call& call) {
                    first_and_last(call, {"clip_vision_start_image", "clip_vision_end_image"});
                  });
  add_conditioned(catalog, "WanFunInpaintToVideo",
                  {vision("clip_vision_output"), image("start_image"), image("end_image")},
                  [](Call& call) { first_and_last(call, {"clip_vision_output"}); });
  add_conditioned(catalog, "WanFunControlToVideo",
                  {vision("clip_vision_output"), image("start_image"), image("control_video")},
                  run_fun_control);
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
}

}  // namespace distorch::nodes
