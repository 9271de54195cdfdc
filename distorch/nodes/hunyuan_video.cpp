// Nodes of Hunyuan's models: what the sampler starts from, and what the network sees beside it.
// Source: ComfyUI comfy_extras/nodes_hunyuan.py.
#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/models/flow_recipes.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/clip_vision.h"
#include "distorch/nodes/hunyuan_common.h"
#include "distorch/nodes/text_encode.h"
#include "distorch/nodes/values.h"
#include "distorch/nodes/wan_common.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using graph::optional;
using graph::Value;
using sampling::Conditioning;
using sampling::Latent;

namespace {

constexpr const char* kModule = "comfy_extras.nodes_hunyuan";
constexpr const char *kConcat = "v1 (concat)", *kReplace = "v2 (replace)", *kCustom = "custom";

void encode(Call& call, const Prompts& prompts) {
  call.out(0, Value::of("CONDITIONING", encode_prompts(text_encoders_of(call, "clip"), prompts,
                                                       call.context<ModelCache>())));
}

/// The second text is for an encoder of its own.
void run_dit_text(Call& call) {
  constexpr const char* kSecond = "mt5xl";
  const auto& encoders = text_encoders_of(call, "clip").loaded->encoders;
  if (std::ranges::none_of(encoders, [&](const auto& one) { return one->name == kSecond; }))
    throw Error(ErrorKind::Usage, call.place(),
                "speaks to the text encoders of Hunyuan-DiT (BERT and mT5-XL), and 'clip' has no "
                "mT5-XL; CLIPTextEncode goes with all others");
  encode(call, {call.text("bert"), {{kSecond, call.text(kSecond)}}});
}

void run_text_and_picture(Call& call) {
  const auto& shown = call.get<VisionOutput>("clip_vision_output").shown;
  if (!shown.defined())
    throw Error(ErrorKind::Usage, call.place(),
                "needs a picture encoder that can show pictures to a language model: load the "
                "vision part of LLaVA (llava_llama3_vision.safetensors, with tensors "
                "'multi_modal_projector.*') with CLIPVisionLoader");
  models::Prompt prompt(call.text("prompt"));
  prompt.frame = models::kHunyuanPictureFrame;
  prompt.seen = shown.unbind(0);
  prompt.seen_every = call.integer("image_interleave");
  encode(call, {std::move(prompt), {}});
}

void run_image_to_video(Call& call) {
  wan::Wish wish(call);
  auto conditioning = call.get<Conditioning>("positive");
  Latent latent{wish.blank(), {}, {}};
  if (auto start = wish.first_of(call, "start_image"); start.defined()) {
    auto coding =
        hunyuan::video_vae_of(call, wan::kChannels, "the VAE of HunyuanVideo (hunyuan_video_vae)");
    auto begun = coding.encode(start);
    auto mask = at::ones({1, 1, latent.samples.size(2), begun.size(-2), begun.size(-1)});
    auto given = std::min(begun.size(2), latent.samples.size(2));
    mask.narrow(2, 0, std::min(wan::latent_frames(start.size(0)), mask.size(2))).zero_();
    const auto way = call.text("guidance_type");
    for (auto& item : conditioning) {
      if (way == kConcat) {
        item.tensors["concat_latent_image"] = begun;
        item.tensors["concat_mask"] = mask;
      } else if (way == kReplace) {
        item.numbers["guiding_frame_index"] = 0;
      } else {
        item.tensors["ref_latent"] = begun;
      }
    }
    if (way == kReplace) {
      latent.samples.narrow(2, 0, given).copy_(begun.narrow(2, 0, given));
      latent.noise_mask = mask;
    }
  }
  call.out(0, Value::of("CONDITIONING", std::move(conditioning)));
  call.out(1, Value::of("LATENT", std::move(latent)));
}

void run_empty_image(Call& call) {
  constexpr std::int64_t kChannels = 64, kPixelsOfCell = 32;
  call.out(0, Value::of("LATENT", Latent{at::zeros({call.integer("batch_size"), kChannels,
                                                    call.integer("height") / kPixelsOfCell,
                                                    call.integer("width") / kPixelsOfCell}),
                                         {},
                                         {}}));
}

void run_refiner(Call& call) {
  constexpr std::int64_t kChannels = 32;
  const auto& latent = call.get<Latent>("latent").samples;
  if (latent.dim() != 5)
    throw Error(ErrorKind::Shape, call.place(),
                "refines latents with frames, and 'latent' has none: decode and encode it with the "
                "refiner's VAE");
  std::size_t slot = 0;
  for (const char* name : {"positive", "negative"}) {
    auto conditioning = call.get<Conditioning>(name);
    for (auto& item : conditioning) {
      item.tensors["concat_latent_image"] = latent;
      item.numbers["noise_augmentation"] = call.number("noise_augmentation");
    }
    call.out(slot++, Value::of("CONDITIONING", std::move(conditioning)));
  }
  call.out(2, Value::of("LATENT", Latent{at::zeros({latent.size(0), kChannels, latent.size(2),
                                                    latent.size(3), latent.size(4)}),
                                         {},
                                         {}}));
}

graph::Input prompt_text(const char* name) {
  return graph::text(name, {.multiline = true, .dynamic_prompts = true});
}

void add_text_nodes(graph::Catalog& catalog) {
  catalog.add({
      .name = "CLIPTextEncodeHunyuanDiT",
      .category = "advanced/conditioning",
      .python_module = kModule,
      .inputs = {link("clip", "CLIP"), prompt_text("bert"), prompt_text("mt5xl")},
      .outputs = {"CONDITIONING"},
      .run = run_dit_text,
  });
  catalog.add({
      .name = "TextEncodeHunyuanVideo_ImageToVideo",
      .category = "advanced/conditioning",
      .python_module = kModule,
      .inputs = {link("clip", "CLIP"), link("clip_vision_output", "CLIP_VISION_OUTPUT"),
                 prompt_text("prompt"),
                 integer("image_interleave",
                         {.def = 2,
                          .min = 1,
                          .max = 512,
                          .tooltip = "Of the picture's tokens one in so many is kept: the higher, "
                                     "the more the text counts against the picture."})},
      .outputs = {"CONDITIONING"},
      .run = run_text_and_picture,
  });
}

}  // namespace

VaeCoding hunyuan::video_vae_of(Call& call, std::int64_t channels, const char* wanted) {
  auto coding = vae_coding_of(call);
  auto shape = coding.shape();
  if (shape.dimensions != 3 || shape.latent_channels != channels)
    throw Error(ErrorKind::Shape, coding.file(),
                fmt::format("gives {} of {} channels, and {} makes video latents of {}: load {}",
                            shape.dimensions == 3 ? "video latents" : "latents of pictures",
                            shape.latent_channels, call.place(), channels, wanted));
  return coding;
}

void add_hunyuan_video_nodes(graph::Catalog& catalog) {
  add_text_nodes(catalog);
  hunyuan::add_video15_nodes(catalog);
  std::vector<graph::Input> inputs = {link("positive", "CONDITIONING"), link("vae", "VAE")};
  for (auto& input : wan::sizes(848, 480, 53)) inputs.push_back(std::move(input));
  inputs.push_back(choice("guidance_type", {kConcat, kReplace, kCustom}));
  inputs.push_back(optional(link("start_image", "IMAGE")));
  catalog.add({
      .name = "HunyuanImageToVideo",
      .category = "conditioning/video_models",
      .python_module = kModule,
      .inputs = std::move(inputs),
      .outputs = {{"CONDITIONING", "positive"}, {"LATENT", "latent"}},
      .run = run_image_to_video,
  });
  auto side = [](const char* name) {
    return integer(name, {.def = 2048, .min = 64, .max = 16384, .step = 32});
  };
  catalog.add({
      .name = "EmptyHunyuanImageLatent",
      .category = "latent",
      .python_module = kModule,
      .inputs = {side("width"), side("height"),
                 integer("batch_size", {.def = 1, .min = 1, .max = 4096})},
      .outputs = {"LATENT"},
      .run = run_empty_image,
  });
  catalog.add({
      .name = "HunyuanRefinerLatent",
      .category = "sd",
      .python_module = kModule,
      .inputs = {link("positive", "CONDITIONING"), link("negative", "CONDITIONING"),
                 link("latent", "LATENT"),
                 number("noise_augmentation", {.def = 0.10, .min = 0.0, .max = 1.0, .step = 0.01})},
      .outputs = {{"CONDITIONING", "positive"}, {"CONDITIONING", "negative"}, {"LATENT", "latent"}},
      .run = run_refiner,
  });
}

}  // namespace distorch::nodes
