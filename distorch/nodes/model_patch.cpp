#include "distorch/nodes/model_patch.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/vae_coding.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::link;
using graph::number;
using graph::Value;

namespace {

void run_loader(Call& call) {
  auto path = call.context<ModelFolders>().get("model_patches", call.text("name"));
  auto& models = call.context<ModelCache>();
  ModelPatch patch{models.checkpoint(path), ModelCache::identity(path), {}};
  patch.picture = models::patch_picture(patch.tensors);
  call.out(0, Value::of("MODEL_PATCH", std::move(patch)));
}

/// For all nodes that give a model a patch; pictures may be optional.
void run_apply(Call& call) {
  PatchUse use{.vae = call.get<Vae>("vae"), .strength = call.number("strength")};
  auto picture = [&](const char* name) {
    return call.has(name) ? call.get<Tensor>(name).narrow(3, 0, 3) : Tensor();
  };
  use.image = picture("image");
  use.inpaint = picture("inpaint_image");
  if (call.has("mask")) {
    auto mask = call.get<Tensor>("mask");
    use.keep = 1.0 - mask.reshape({-1, 1, mask.size(-2), mask.size(-1)});
  }
  const auto& patch = call.get<ModelPatch>("model_patch");
  if (!use.image.defined() && !(use.inpaint.defined() && patch.picture.inpaints))
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("'{}' needs a picture as 'image'{}", patch.tensors.path(),
                            patch.picture.inpaints ? " or 'inpaint_image'" : ""));
  call.out(0, Value::of("MODEL", with_patch(call.get<Model>("model"), patch, std::move(use),
                                            call.context<ModelCache>())));
}

}  // namespace

Model with_patch(Model model, const ModelPatch& patch, PatchUse use, ModelCache& models) {
  use.picture = patch.picture;
  model.loaded = models.patched(model.loaded, patch.tensors, patch.identity);
  model.patch_uses.push_back(std::move(use));
  return model;
}

PatchRun::PatchRun(const Model& model, streaming::Engine& engine, at::Device device)
    : format_(model.latent_format()), uses_(model.patch_uses), engine_(engine), device_(device) {}

Tensor PatchRun::fitted(const PatchUse& use, const Tensor& pixels, at::IntArrayRef x) const {
  auto factor = VaeCoding(use.vae, engine_).factor();
  auto height = x[x.size() - 2] * factor, width = x[x.size() - 1] * factor;
  if (pixels.size(1) == height && pixels.size(2) == width) return pixels;
  return resize_image(pixels, {width, height, "area", true});
}

Tensor PatchRun::encoded(const PatchUse& use, const Tensor& pixels) const {
  return format_.into_network(VaeCoding(use.vae, engine_).encode(pixels));
}

/// The control picture, a mask and the picture that is filled in; gray where one is not there.
/// Source: ComfyUI comfy_extras/nodes_model_patch.py, ZImageControlPatch.
Tensor PatchRun::inpainting(const PatchUse& use, at::IntArrayRef x) const {
  constexpr double kGray = 0.5;
  auto height = x[x.size() - 2], width = x[x.size() - 1];
  auto image = use.image.defined() ? fitted(use, use.image, x) : Tensor();
  auto inpaint = use.inpaint.defined() ? fitted(use, use.inpaint, x) : at::full_like(image, kGray);
  auto mask = at::zeros({1, 1, height, width});
  if (use.keep.defined()) {
    auto keep = resize(use.keep, {inpaint.size(2), inpaint.size(1), "bilinear", true}).round();
    inpaint = (inpaint - kGray) * keep.movedim(1, -1) + kGray;
    mask = resize(use.keep, {width, height, "nearest", true}).narrow(0, 0, 1);
  }
  auto filled = encoded(use, inpaint);
  auto steers = encoded(use, image.defined() ? image : at::full_like(inpaint, kGray));
  auto rows = std::max(filled.size(0), steers.size(0));
  auto spread = [rows](const Tensor& part) { return part.expand({rows, -1, -1, -1}); };
  return at::cat({spread(steers), spread(mask), spread(filled)}, 1);
}

Tensor PatchRun::latent_of(const PatchUse& use, at::IntArrayRef x) const {
  if (use.picture.inpaints) return inpainting(use, x).to(device_, at::kFloat);
  auto height = x[x.size() - 2], width = x[x.size() - 1];
  auto latent = encoded(use, fitted(use, use.image, x));
  if (use.picture.masked) {
    auto keep = use.keep.defined() ? resize(use.keep, {width, height, "bilinear", false})
                                   : at::ones({1, 1, height, width});
    auto shape = latent.sizes().vec();
    shape[1] = 1;
    if (latent.dim() == 5) keep = keep.unsqueeze(2);
    latent = at::cat({latent, keep.narrow(0, 0, 1).expand(shape)}, 1);
  }
  return latent.to(device_, at::kFloat);
}

const models::Inputs& PatchRun::inputs(at::IntArrayRef x) {
  auto height = x[x.size() - 2], width = x[x.size() - 1];
  for (const auto& known : encoded_)
    if (known.height == height && known.width == width) return known.inputs;
  models::Inputs inputs;
  for (std::size_t i = 0; i < uses_.size(); ++i) {
    auto index = static_cast<int>(i);
    inputs.set(models::patch_input(index), latent_of(uses_[i], x));
    inputs.set_number(models::patch_strength_input(index), uses_[i].strength);
  }
  encoded_.push_back({height, width, std::move(inputs)});
  return encoded_.back().inputs;
}

void PatchRun::add_to(models::KnownInputs& known, at::IntArrayRef x) {
  const auto& all = inputs(x);
  for (const auto& [name, tensor] : all.tensors()) known.shapes[name] = tensor.sizes().vec();
  for (const auto& [name, value] : all.numbers()) known.numbers[name] = value;
}

void add_picture_patch_nodes(graph::Catalog& catalog, App& app) {
  catalog.add({
      .name = "ModelPatchLoader",
      .display_name = "ModelPatchLoader",
      .category = "advanced/loaders",
      .description = "Opens a file with layers that steer a diffusion model by a picture.",
      .python_module = "comfy_extras.nodes_model_patch",
      .inputs = {choice("name", model_choices(app, "model_patches"))},
      .outputs = {"MODEL_PATCH"},
      .experimental = true,
      .run = run_loader,
      .change_key = when_replaced(app, {{"model_patches", "name"}}),
  });
  catalog.add({
      .name = "QwenImageDiffsynthControlnet",
      .display_name = "QwenImageDiffsynthControlnet",
      .category = "advanced/loaders/qwen",
      .description = "Steers Qwen-Image by a picture, with DiffSynth's layers.",
      .python_module = "comfy_extras.nodes_model_patch",
      .inputs = {link("model", "MODEL"), link("model_patch", "MODEL_PATCH"), link("vae", "VAE"),
                 link("image", "IMAGE"),
                 number("strength", {.def = 1.0, .min = -10.0, .max = 10.0, .step = 0.01}),
                 graph::optional(link("mask", "MASK"))},
      .outputs = {"MODEL"},
      .experimental = true,
      .run = run_apply,
  });
  catalog.add({
      .name = "ZImageFunControlnet",
      .display_name = "Apply Z-Image Fun ControlNet",
      .category = "model/patch/z-image",
      .description = "Steers Z-Image by a picture, fills in parts of one, or both.",
      .python_module = "comfy_extras.nodes_model_patch",
      .inputs = {link("model", "MODEL"), link("model_patch", "MODEL_PATCH"), link("vae", "VAE"),
                 number("strength", {.def = 1.0, .min = -10.0, .max = 10.0, .step = 0.01}),
                 graph::optional(link("image", "IMAGE")),
                 graph::optional(link("inpaint_image", "IMAGE")),
                 graph::optional(link("mask", "MASK"))},
      .outputs = {"MODEL"},
      .experimental = true,
      .run = run_apply,
  });
}

}  // namespace distorch::nodes
