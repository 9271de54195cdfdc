// Nodes of HunyuanVideo 1.5: what the sampler starts from, and what the network sees beside it.
// Source: ComfyUI comfy_extras/nodes_hunyuan.py.
#include "distorch/base/error.h"
#include "distorch/nodes/clip_vision.h"
#include "distorch/nodes/hunyuan_common.h"
#include "distorch/nodes/values.h"
#include "distorch/nodes/wan_common.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::link;
using graph::optional;
using graph::Value;
using sampling::Latent;

namespace {

constexpr const char* kModule = "comfy_extras.nodes_hunyuan";
constexpr std::int64_t kChannels = 32, kPixelsOfCell = 16;

VaeCoding vae_of(Call& call) {
  return hunyuan::video_vae_of(call, kChannels, "the VAE of HunyuanVideo 1.5 (hunyuanvideo15_vae)");
}

/// What a picture encoder saw, where any is linked.
void add_vision(Call& call, wan::Given& given) {
  if (call.has("clip_vision_output"))
    given.tensors["clip_vision_last"] = call.get<VisionOutput>("clip_vision_output").last;
}

void run_empty(Call& call) {
  auto blank = wan::Wish(call).blank(kChannels, kPixelsOfCell);
  call.out(0, Value::of("LATENT", Latent{std::move(blank), {}, {}}));
}

void run_image_to_video(Call& call) {
  wan::Wish wish(call);
  auto blank = wish.blank(kChannels, kPixelsOfCell);
  wan::Given given;
  if (auto start = wish.first_of(call, "start_image"); start.defined()) {
    auto latent = at::zeros_like(blank);
    wan::put(latent, 0, vae_of(call).encode(start));
    auto mask = at::ones({1, 1, blank.size(2), blank.size(3), blank.size(4)});
    mask.narrow(2, 0, wan::latent_frames(start.size(0))).zero_();
    given.tensors = {{"concat_latent_image", latent}, {"concat_mask", mask}};
  }
  add_vision(call, given);
  wan::answer(call, given, std::move(blank));
}

}  // namespace

void hunyuan::add_video15_nodes(graph::Catalog& catalog) {
  catalog.add({
      .name = "EmptyHunyuanVideo15Latent",
      .display_name = "Empty HunyuanVideo 1.5 Latent",
      .category = "model/latent/hunyuan video",
      .python_module = kModule,
      .inputs = wan::sizes(848, 480, 25),
      .outputs = {"LATENT"},
      .newer_schema = true,
      .run = run_empty,
  });
  std::vector<graph::Input> inputs = {link("positive", "CONDITIONING"),
                                      link("negative", "CONDITIONING"), link("vae", "VAE")};
  for (auto& input : wan::sizes(848, 480, 33)) inputs.push_back(std::move(input));
  inputs.push_back(optional(link("start_image", "IMAGE")));
  inputs.push_back(optional(link("clip_vision_output", "CLIP_VISION_OUTPUT")));
  catalog.add({
      .name = "HunyuanVideo15ImageToVideo",
      .category = "model/conditioning/hunyuan video",
      .python_module = kModule,
      .inputs = std::move(inputs),
      .outputs = {{"CONDITIONING", "positive"}, {"CONDITIONING", "negative"}, {"LATENT", "latent"}},
      .newer_schema = true,
      .run = run_image_to_video,
  });
}

}  // namespace distorch::nodes
