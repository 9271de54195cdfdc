// What a video is to be like, beside the text: its size, pictures that it begins or ends with, and
// what a picture encoder saw.
#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/models/latent_formats.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/resize.h"
#include "distorch/nodes/vae_coding.h"
#include "distorch/nodes/vision_states.h"
#include "distorch/nodes/wan_common.h"
#include "distorch/nodes/wan_wrapper.h"

namespace distorch::nodes::wan_wrapper {

using at::Tensor;
using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::Json;
using graph::link;
using graph::number;
using graph::optional;
using graph::Value;
using sampling::Latent;

namespace {

constexpr std::int64_t kFramesOfCell = 4, kPixelsOfCell = 8;
constexpr double kGray = 0.5;

/// So many frames as whole latent frames make; tells where they are fewer than asked for.
std::int64_t whole_frames(const Call& call) {
  const auto asked = call.integer("num_frames");
  const auto whole = kFramesOfCell * ((asked - 1) / kFramesOfCell) + 1;
  if (whole != asked)
    log::warn(
        "{}: a video of {} frames has {} in its latent, as lengths are 4n + 1; {} are left out",
        call.place(), asked, whole, asked - whole);
  return whole;
}

void take_control(const Call& call, ImageEmbeds& embeds) {
  if (call.has("control_embeds")) embeds.control = call.get<ImageEmbeds>("control_embeds").control;
}

ImageEmbeds empty_embeds(const Call& call) {
  ImageEmbeds embeds{.frames = whole_frames(call),
                     .height = call.integer("height") / kPixelsOfCell,
                     .width = call.integer("width") / kPixelsOfCell};
  take_control(call, embeds);
  if (call.has("extra_latents"))
    embeds.extra.push_back({latent_input(call, "extra_latents").samples, 0});
  return embeds;
}

void run_empty(Call& call) { call.out(0, Value::of("WANVIDIMAGE_EMBEDS", empty_embeds(call))); }

/// Pictures that the video begins or ends with, and the mask that says which frames they are.
class GivenFrames {
 public:
  GivenFrames(Call& call, VaeCoding& coding)
      : call_(call),
        coding_(coding),
        frames_(whole_frames(call)),
        width_(call.integer("width")),
        height_(call.integer("height")),
        start_(fitted("start_image")),
        end_(fitted("end_image")),
        first_last_(call.boolean("fun_or_fl2v_model") || !start_.defined()) {}

  std::int64_t frames() const { return frames_; }
  bool has_end() const { return end_.defined(); }
  bool first_last() const { return has_end() ? first_last_ : call_.boolean("fun_or_fl2v_model"); }

  /// [C, T, h, w] in the model's scale.
  Tensor latent() {
    auto coded = encode(pixels());
    // An end of its own is coded as the one frame that it is.
    if (end_alone()) coded = at::cat({coded, encode(end_.narrow(0, 0, 1))}, 2);
    const auto format = coded.size(1) == models::wan22_latent().channels ? models::wan22_latent()
                                                                         : models::wan21_latent();
    return format.into_network(coded).select(0, 0).contiguous();
  }

  /// [4, T, h, w], 1 = given.
  Tensor mask() const {
    const auto rows = height_ / coding_.factor(), columns = width_ / coding_.factor();
    const auto base = frames_ + (end_alone() ? 1 : 0);
    auto mask = at::zeros({base, rows, columns});
    if (call_.has("temporal_mask")) {
      auto given = resize(temporal().unsqueeze(1), {columns, rows, "nearest", false}).squeeze(1);
      auto count = std::min(base, given.size(0));
      mask.narrow(0, 0, count).copy_(given.narrow(0, 0, count));
    } else {
      if (start_.defined()) mask.narrow(0, 0, std::min(base, start_.size(0))).fill_(1);
      if (end_.defined()) {
        auto count = std::min(base, end_.size(0));
        mask.narrow(0, base - count, count).fill_(1);
      }
    }
    std::vector<Tensor> parts = {mask.narrow(0, 0, 1).expand({kFramesOfCell, -1, -1})};
    if (end_alone()) {
      parts.push_back(mask.narrow(0, 1, base - 2));
      parts.push_back(mask.narrow(0, base - 1, 1).expand({kFramesOfCell, -1, -1}));
    } else {
      parts.push_back(mask.narrow(0, 1, base - 1));
    }
    return at::cat(parts).unflatten(0, {-1, kFramesOfCell}).transpose(0, 1).contiguous();
  }

 private:
  bool end_alone() const { return start_.defined() && end_.defined() && !first_last_; }
  Tensor temporal() const { return mask_input(call_, "temporal_mask"); }

  /// Pictures [n, H, W, 3] in the video's size, with noise where the node asks for it.
  Tensor fitted(const char* input) const {
    if (!call_.has(input)) return {};
    auto pictures = image_input(call_, input).narrow(3, 0, 3);
    if (pictures.size(1) != height_ || pictures.size(2) != width_)
      pictures = resize_image(pictures, {width_, height_, "lanczos", false});
    const auto strength = call_.number("noise_aug_strength");
    if (strength == 0) return pictures;
    constexpr std::uint64_t seed = 0;
    auto generator = at::detail::createCPUGenerator(seed);
    // Of the range -1..1, and not where a picture is black.
    auto noise = at::randn(pictures.sizes(), generator, pictures.options()) * (strength / 2);
    return pictures + at::where(pictures == 0, at::zeros_like(noise), noise);
  }

  /// The whole video, gray where nothing is given.
  Tensor pixels() const {
    auto video = at::full({frames_, height_, width_, 3}, kGray);
    if (start_.defined()) {
      auto count = std::min(frames_, start_.size(0));
      video.narrow(0, 0, count).copy_(start_.narrow(0, 0, count));
    }
    if (call_.has("temporal_mask") && start_.defined()) {
      auto whole = resize(temporal().unsqueeze(1), {width_, height_, "nearest", false}).squeeze(1);
      auto count = std::min(frames_, whole.size(0));
      auto part = video.narrow(0, 0, count);
      part.copy_((part - kGray) * whole.narrow(0, 0, count).unsqueeze(-1) + kGray);
    } else if (end_.defined() && !end_alone()) {
      auto count = std::min(frames_, end_.size(0));
      video.narrow(0, frames_ - count, count).copy_(end_.narrow(0, end_.size(0) - count, count));
    }
    return video;
  }

  Tensor encode(const Tensor& pixels) {
    if (!call_.boolean("tiled_vae")) return coding_.encode(pixels);
    const models::vae::TileSize tile{width_ / 2, height_ / 2, std::min(width_, height_) / 8};
    return coding_.encode_tiled(pixels, tile, {});
  }

  Call& call_;
  VaeCoding& coding_;
  std::int64_t frames_, width_, height_;
  Tensor start_, end_;
  bool first_last_;
};

void run_image_to_video(Call& call) {
  if (!call.has("start_image") && !call.has("end_image")) {
    auto embeds = empty_embeds(call);
    return call.out(0, Value::of("WANVIDIMAGE_EMBEDS", std::move(embeds)));
  }
  if (!call.has("vae"))
    throw Error(ErrorKind::Usage, call.place(), "needs a VAE at 'vae' to encode its pictures");
  VaeCoding coding(video_vae(call), call.context<streaming::Engine>());
  GivenFrames given(call, coding);
  ImageEmbeds embeds{.frames = given.frames(),
                     .height = call.integer("height") / kPixelsOfCell,
                     .width = call.integer("width") / kPixelsOfCell,
                     .latent = given.latent(),
                     .mask = given.mask(),
                     .end_image = given.has_end(),
                     .fun_or_first_last = given.first_last()};
  take_control(call, embeds);
  if (call.has("clip_embeds")) embeds.clip = call.get<ClipEmbeds>("clip_embeds");
  if (call.has("extra_latents")) {
    auto before = latent_input(call, "extra_latents").samples.select(0, 0);
    embeds.latent = at::cat({before, embeds.latent}, 1);
    auto count = before.size(1);
    embeds.mask = at::cat({at::ones_like(embeds.mask.narrow(1, 0, count)), embeds.mask}, 1);
    embeds.frames += count * kFramesOfCell;
    embeds.has_reference = true;
  }
  embeds.latent.narrow(1, 0, 1).mul_(call.number("start_latent_strength"));
  embeds.latent.narrow(1, embeds.latent.size(1) - 1, 1).mul_(call.number("end_latent_strength"));
  call.out(0, Value::of("WANVIDIMAGE_EMBEDS", std::move(embeds)));
}

/// The states of several pictures as one.
Tensor combined(const Tensor& states, const Call& call) {
  auto first = states.narrow(0, 0, 1) * call.number("strength_1");
  if (states.size(0) == 1) return first;
  std::vector<Tensor> all = {first, states.narrow(0, 1, 1) * call.number("strength_2")};
  for (std::int64_t i = 2; i < states.size(0); ++i) all.push_back(states.narrow(0, i, 1));
  const auto how = call.text("combine_embeds");
  if (how == "average") return at::stack(all).mean(0);
  if (how == "sum") return at::stack(all).sum(0);
  return at::cat(all, how == "concat" ? 1 : 0);
}

void run_vision(Call& call) {
  if (call.integer("tiles") > 0)
    throw Error(ErrorKind::Usage, call.place(),
                "input 'tiles' above 0 is not supported: distorch looks at whole pictures");
  const auto& vision = call.get<ClipVision>("clip_vision");
  const bool crop = call.text("crop") == "center";
  std::vector<Tensor> pictures = {image_input(call, "image_1")};
  if (call.has("image_2")) pictures.push_back(image_input(call, "image_2"));
  std::vector<Tensor> states;
  for (const auto& one : pictures) states.push_back(look_at(call, vision, one, crop).penultimate);
  ClipEmbeds embeds{combined(at::cat(states), call), Tensor()};
  if (call.has("negative_image"))
    embeds.negative = look_at(call, vision, image_input(call, "negative_image"), crop).penultimate;
  call.out(0, Value::of("WANVIDIMAGE_CLIPEMBEDS", std::move(embeds)));
}

void run_extra(Call& call) {
  auto embeds = call.get<ImageEmbeds>("embeds");
  embeds.extra.push_back(
      {latent_input(call, "extra_latents").samples, call.integer("latent_index")});
  call.out(0, Value::of("WANVIDIMAGE_EMBEDS", std::move(embeds)));
}

void run_control(Call& call) {
  const auto& samples = latent_input(call, "latents").samples;
  auto latent = samples.select(0, 0);
  ControlLatents control{latent, call.number("start_percent"), call.number("end_percent"), {}};
  if (call.has("fun_ref_image"))
    control.reference = latent_input(call, "fun_ref_image").samples.narrow(2, 0, 1);
  call.out(0, Value::of("WANVIDIMAGE_EMBEDS",
                        ImageEmbeds{.frames = (latent.size(1) - 1) * kFramesOfCell + 1,
                                    .height = latent.size(2),
                                    .width = latent.size(3),
                                    .control = control}));
}

std::vector<graph::Input> size_inputs() {
  return {integer("width", {.def = 832, .min = 64, .max = 8096, .step = 8}),
          integer("height", {.def = 480, .min = 64, .max = 8096, .step = 8}),
          integer("num_frames", {.def = 81,
                                 .min = 1,
                                 .max = 10000,
                                 .step = 4,
                                 .tooltip = "Of the video, 4n + 1 of them; more are left out."})};
}

graph::Input strength(const char* name, double usual) {
  return number(name, {.def = usual, .min = 0.0, .max = 10.0, .step = 0.001});
}

void add_image_to_video(graph::Catalog& catalog) {
  auto inputs = size_inputs();
  inputs.push_back(strength("noise_aug_strength", 0.0));
  inputs.push_back(strength("start_latent_strength", 1.0));
  inputs.push_back(strength("end_latent_strength", 1.0));
  inputs.push_back(boolean("force_offload", {.def = true}));
  const Json none = Json::object();
  auto add = [&](graph::Input input) { inputs.push_back(optional(std::move(input))); };
  add(link("vae", "WANVAE"));
  add(link("clip_embeds", "WANVIDIMAGE_CLIPEMBEDS", {.extra = none}));
  add(link("start_image", "IMAGE", {.extra = none}));
  add(link("end_image", "IMAGE", {.extra = none}));
  add(link("control_embeds", "WANVIDIMAGE_EMBEDS", {.extra = none}));
  add(boolean("fun_or_fl2v_model", {.def = true}));
  add(link("temporal_mask", "MASK", {.extra = none}));
  add(link("extra_latents", "LATENT", {.extra = none}));
  add(boolean("tiled_vae", {.def = false}));
  add(link("add_cond_latents", "ADD_COND_LATENTS", {.extra = {{"advanced", true}}}));
  graph::NodeType node{
      .name = "WanVideoImageToVideoEncode",
      .display_name = "WanVideo ImageToVideo Encode",
      .category = kCategory,
      .description = "Pictures that a video begins or ends with, for WanVideoSampler.",
      .python_module = kModule,
      .inputs = std::move(inputs),
      .outputs = {{"WANVIDIMAGE_EMBEDS", "image_embeds"}},
      .run = run_image_to_video,
  };
  auto placed = multigpu_variant(node);
  constexpr std::ptrdiff_t behind_vae = 8;
  placed.inputs.insert(placed.inputs.begin() + behind_vae,
                       optional(link("load_device", "MULTIGPUDEVICE")));
  catalog.add(std::move(node));
  catalog.add(std::move(placed));
}

void add_vision(graph::Catalog& catalog) {
  const Json none = Json::object();
  graph::NodeType node{
      .name = "WanVideoClipVisionEncode",
      .display_name = "WanVideo ClipVision Encode",
      .category = kCategory,
      .description = "What CLIP sees in pictures, for models that look at it.",
      .python_module = kModule,
      .inputs = {link("clip_vision", "CLIP_VISION"), link("image_1", "IMAGE", {.extra = none}),
                 strength("strength_1", 1.0), strength("strength_2", 1.0),
                 choice("crop", {"center", "disabled"}, {.def = "center"}),
                 choice("combine_embeds", {"average", "sum", "concat", "batch"},
                        {.def = "average"}),
                 boolean("force_offload", {.def = true}), optional(link("image_2", "IMAGE")),
                 optional(link("negative_image", "IMAGE", {.extra = none})),
                 optional(integer("tiles", {.def = 0, .min = 0, .max = 16, .step = 2})),
                 optional(number("ratio", {.def = 0.5, .min = 0.0, .max = 1.0, .step = 0.01}))},
      .outputs = {{"WANVIDIMAGE_CLIPEMBEDS", "image_embeds"}},
      .run = run_vision,
  };
  auto placed = multigpu_variant(node);
  placed.inputs.insert(placed.inputs.begin() + 1, optional(link("load_device", "MULTIGPUDEVICE")));
  catalog.add(std::move(node));
  catalog.add(std::move(placed));
}

}  // namespace

void add_image_nodes(graph::Catalog& catalog) {
  const Json none = Json::object();
  auto inputs = size_inputs();
  inputs.push_back(optional(link("control_embeds", "WANVIDIMAGE_EMBEDS", {.extra = none})));
  inputs.push_back(optional(link("extra_latents", "LATENT", {.extra = none})));
  catalog.add({
      .name = "WanVideoEmptyEmbeds",
      .display_name = "WanVideo Empty Embeds",
      .category = kCategory,
      .description = "The size of a video that is made from text alone.",
      .python_module = kModule,
      .inputs = std::move(inputs),
      .outputs = {{"WANVIDIMAGE_EMBEDS", "image_embeds"}},
      .run = run_empty,
  });
  add_image_to_video(catalog);
  add_vision(catalog);
  catalog.add({
      .name = "WanVideoAddExtraLatent",
      .display_name = "WanVideo Add Extra Latent",
      .category = kCategory,
      .description = "Latent frames that the video has from this place on.",
      .python_module = kModule,
      .inputs = {link("embeds", "WANVIDIMAGE_EMBEDS"), link("extra_latents", "LATENT"),
                 integer("latent_index", {.def = 0, .min = -1000, .max = 1000, .step = 1})},
      .outputs = {{"WANVIDIMAGE_EMBEDS", "image_embeds"}},
      .run = run_extra,
  });
  auto part = [](const char* name, double usual) {
    return number(name, {.def = usual, .min = 0.0, .max = 1.0, .step = 0.01});
  };
  catalog.add({
      .name = "WanVideoControlEmbeds",
      .display_name = "WanVideo Control Embeds",
      .category = kCategory,
      .description = "A video that a model of the kind Fun Control follows.",
      .python_module = kModule,
      .inputs = {part("start_percent", 0.0), part("end_percent", 1.0),
                 link("latents", "LATENT", {.extra = none}),
                 optional(link("fun_ref_image", "LATENT", {.extra = none}))},
      .outputs = {{"WANVIDIMAGE_EMBEDS", "image_embeds"}},
      .run = run_control,
  });
}

}  // namespace distorch::nodes::wan_wrapper
