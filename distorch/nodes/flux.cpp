// Nodes of FLUX models and of models that edit pictures.
#include <fmt/format.h>

#include <array>
#include <cmath>

#include "distorch/base/error.h"
#include "distorch/models/flux/family.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/changed_model.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/text_encode.h"
#include "distorch/nodes/vae_coding.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using graph::Value;
using sampling::Conditioning;
using sampling::ConditioningItem;
using sampling::Latent;

namespace {

void out(Call& call, std::size_t slot, Conditioning conditioning) {
  call.out(slot, Value::of("CONDITIONING", std::move(conditioning)));
}

/// Every item of the input "conditioning" with something changed.
void change(Call& call, const std::function<void(ConditioningItem&)>& edit) {
  auto conditioning = call.get<Conditioning>("conditioning");
  for (auto& item : conditioning) edit(item);
  out(call, 0, std::move(conditioning));
}

void set_guidance(ConditioningItem& item, double guidance) {
  item.numbers["guidance"] = guidance;
  item.numbers.erase("no_guidance");
}

void run_text_encode(Call& call) {
  auto conditioning = encode_prompts(text_encoders_of(call, "clip"),
                                     {call.text("clip_l"), {{"t5xxl", call.text("t5xxl")}}},
                                     call.context<ModelCache>());
  for (auto& item : conditioning) set_guidance(item, call.number("guidance"));
  out(call, 0, std::move(conditioning));
}

void run_guidance(Call& call) {
  change(call, [&](ConditioningItem& item) { set_guidance(item, call.number("guidance")); });
}

void run_no_guidance(Call& call) {
  change(call, [](ConditioningItem& item) {
    item.numbers.erase("guidance");
    item.numbers["no_guidance"] = 1;
  });
}

struct PictureSize {
  std::int64_t width, height;
};

/// What FLUX.1 Kontext was trained on.
constexpr std::array<PictureSize, 17> kKontextSizes = {{{672, 1568},
                                                        {688, 1504},
                                                        {720, 1456},
                                                        {752, 1392},
                                                        {800, 1328},
                                                        {832, 1248},
                                                        {880, 1184},
                                                        {944, 1104},
                                                        {1024, 1024},
                                                        {1104, 944},
                                                        {1184, 880},
                                                        {1248, 832},
                                                        {1328, 800},
                                                        {1392, 752},
                                                        {1456, 720},
                                                        {1504, 688},
                                                        {1568, 672}}};

/// The size whose aspect is nearest; of equally near ones the narrower.
PictureSize kontext_size(double aspect) {
  auto best = kKontextSizes[0];
  auto distance = [&](const PictureSize& size) {
    return std::abs(aspect - static_cast<double>(size.width) / static_cast<double>(size.height));
  };
  for (const auto& size : kKontextSizes)
    if (distance(size) < distance(best)) best = size;
  return best;
}

void run_kontext_scale(Call& call) {
  const auto& image = call.get<Tensor>("image");
  auto size = kontext_size(static_cast<double>(image.size(2)) / static_cast<double>(image.size(1)));
  image_out(call, 0, resize_image(image, {size.width, size.height, "lanczos", true}));
}

void run_reference_method(Call& call) {
  auto method = call.text("reference_latents_method");
  if (method.find("uxo") != std::string::npos) method = "uxo";
  change(call, [&](ConditioningItem& item) { item.texts["reference_latents_method"] = method; });
}

void run_reference_latent(Call& call) {
  change(call, [&](ConditioningItem& item) {
    if (call.has("latent")) item.reference_latents.push_back(call.get<Latent>("latent").samples);
  });
}

/// The part of a picture [B, H, W, C] whose sides are multiples of 8 pixels, around the middle.
Tensor whole_cells(const Tensor& pixels) {
  constexpr std::int64_t cell = 8;
  auto part = pixels;
  for (int dim : {1, 2}) {
    auto rest = pixels.size(dim) % cell;
    if (rest) part = part.narrow(dim, rest / 2, pixels.size(dim) - rest);
  }
  return part;
}

void run_edit_conditioning(Call& call) {
  auto latent = vae_coding_of(call).encode(whole_cells(call.get<Tensor>("pixels")));
  std::size_t slot = 0;
  for (const char* side : {"positive", "negative"}) {
    auto conditioning = call.get<Conditioning>(side);
    for (auto& item : conditioning) item.tensors["concat_latent_image"] = latent;
    out(call, slot++, std::move(conditioning));
  }
  call.out(slot, Value::of("LATENT", Latent{at::zeros_like(latent), {}, {}}));
}

void run_empty_second(Call& call) {
  constexpr std::int64_t channels = 128, pixels = 16;  // of a side, a latent cell
  call.out(0, Value::of("LATENT", Latent{at::zeros({call.integer("batch_size"), channels,
                                                    call.integer("height") / pixels,
                                                    call.integer("width") / pixels}),
                                         {},
                                         {}}));
}

constexpr const char* kFluxModule = "comfy_extras.nodes_flux";
constexpr const char* kFluxCategory = "advanced/conditioning/flux";

graph::Input guidance() {
  return number("guidance", {.def = 3.5, .min = 0.0, .max = 100.0, .step = 0.1});
}

void add_flux_guidance_nodes(graph::Catalog& catalog) {
  auto prompt = [](const char* name) {
    return graph::text(name, {.multiline = true, .dynamic_prompts = true});
  };
  catalog.add({
      .name = "CLIPTextEncodeFlux",
      .category = kFluxCategory,
      .python_module = kFluxModule,
      .inputs = {link("clip", "CLIP"), prompt("clip_l"), prompt("t5xxl"), guidance()},
      .outputs = {"CONDITIONING"},
      .newer_schema = true,
      .run = run_text_encode,
  });
  catalog.add({
      .name = "FluxGuidance",
      .category = kFluxCategory,
      .python_module = kFluxModule,
      .inputs = {link("conditioning", "CONDITIONING"), guidance()},
      .outputs = {"CONDITIONING"},
      .newer_schema = true,
      .run = run_guidance,
  });
  catalog.add({
      .name = "FluxDisableGuidance",
      .category = kFluxCategory,
      .description = "FLUX is told no guidance at all.",
      .python_module = kFluxModule,
      .inputs = {link("conditioning", "CONDITIONING")},
      .outputs = {"CONDITIONING"},
      .newer_schema = true,
      .run = run_no_guidance,
  });
}

void add_edit_nodes(graph::Catalog& catalog) {
  catalog.add({
      .name = "FluxKontextImageScale",
      .category = kFluxCategory,
      .description = "Brings an image to the size nearest in aspect that FLUX.1 Kontext knows.",
      .python_module = kFluxModule,
      .inputs = {link("image", "IMAGE")},
      .outputs = {"IMAGE"},
      .newer_schema = true,
      .run = run_kontext_scale,
  });
  catalog.add({
      .name = "FluxKontextMultiReferenceLatentMethod",
      .display_name = "Edit Model Reference Method",
      .category = "model/conditioning/flux",
      .python_module = kFluxModule,
      .inputs = {link("conditioning", "CONDITIONING"),
                 choice("reference_latents_method",
                        {"offset", "index", "uxo/uno", "index_timestep_zero"},
                        {.extra = {{"advanced", true}}})},
      .outputs = {"CONDITIONING"},
      .experimental = true,
      .newer_schema = true,
      .run = run_reference_method,
  });
  catalog.add({
      .name = "ReferenceLatent",
      .category = "advanced/conditioning/edit_models",
      .description =
          "Gives an editing model a picture to look at. Several in a row are several pictures, "
          "where the model knows that.",
      .python_module = "comfy_extras.nodes_edit_model",
      .inputs = {link("conditioning", "CONDITIONING"), graph::optional(link("latent", "LATENT"))},
      .outputs = {"CONDITIONING"},
      .newer_schema = true,
      .run = run_reference_latent,
  });
  catalog.add({
      .name = "InstructPixToPixConditioning",
      .category = "conditioning/instructpix2pix",
      .python_module = "comfy_extras.nodes_ip2p",
      .inputs = {link("positive", "CONDITIONING"), link("negative", "CONDITIONING"),
                 link("vae", "VAE"), link("pixels", "IMAGE")},
      .outputs = {{"CONDITIONING", "positive"}, {"CONDITIONING", "negative"}, {"LATENT", "latent"}},
      .newer_schema = true,
      .run = run_edit_conditioning,
  });
}

void run_keep_references(Call& call) {
  auto model = call.get<Model>("model");
  auto family = models::flux::keeping_references(*model.loaded->family);
  if (!family)
    throw Error(
        ErrorKind::Usage, call.place(),
        fmt::format("keeps the reference pictures of FLUX models; {} is a {}",
                    model.loaded->family->diffusion().path(), model.loaded->family->name()));
  model.loaded = changed_model(*model.loaded,
                               {.key = "kept references", .family = std::move(family), .dtype = {}},
                               call.context<streaming::Engine>());
  call.out(0, Value::of("MODEL", std::move(model)));
}

}  // namespace

void add_flux_nodes(graph::Catalog& catalog) {
  catalog.add({
      .name = "FluxKVCache",
      .display_name = "Flux KV Cache",
      .category = "experimental",
      .description =
          "Looks at reference pictures in the first step only and remembers what every block made "
          "of them: later steps take less time, and memory for as many keys and values.",
      .python_module = kFluxModule,
      .inputs = {link("model", "MODEL", {.tooltip = "A FLUX model."})},
      .outputs = {"MODEL"},
      .experimental = true,
      .newer_schema = true,
      .run = run_keep_references,
  });
  add_flux_guidance_nodes(catalog);
  add_edit_nodes(catalog);
  auto side = [](const char* name) {
    return integer(name, {.def = 1024, .min = 16, .max = 16384, .step = 16});
  };
  catalog.add({
      .name = "EmptyFlux2LatentImage",
      .display_name = "Empty Flux 2 Latent",
      .category = "model/latent/flux",
      .python_module = kFluxModule,
      .inputs = {side("width"), side("height"),
                 integer("batch_size", {.def = 1, .min = 1, .max = 4096})},
      .outputs = {"LATENT"},
      .newer_schema = true,
      .run = run_empty_second,
  });
}

}  // namespace distorch::nodes
