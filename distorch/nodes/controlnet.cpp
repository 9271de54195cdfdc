#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/control.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/resize.h"

namespace distorch::nodes {

using graph::Call;
using graph::choice;
using graph::link;
using graph::number;
using graph::Value;
using models::control::Stored;
using sampling::Conditioning;

namespace {

std::filesystem::path path_of(Call& call) {
  return call.context<ModelFolders>().get("controlnet", call.text("control_net_name"));
}

void run_loader(Call& call) {
  auto path = path_of(call);
  auto& models = call.context<ModelCache>();
  ControlNet net{.loaded = models.control(path, placement_of(call))};
  if (!net.loaded) {
    auto stored = models::control::stored_as(models.checkpoint(path));
    if (stored == Stored::Difference)
      throw Error(ErrorKind::Usage, path.string(),
                  "holds differences to a model's weights: load it with DiffControlNetLoader, "
                  "which takes that model");
    net.overlay = std::make_shared<const ControlOverlay>(ControlOverlay{path, placement_of(call)});
  }
  call.out(0, Value::of("CONTROL_NET", std::move(net)));
}

void run_difference_loader(Call& call) {
  auto path = path_of(call);
  auto& models = call.context<ModelCache>();
  if (models::control::stored_as(models.checkpoint(path)) != Stored::Difference)
    return run_loader(call);
  const auto& model = call.get<Model>("model");
  ControlNet net{.loaded = models.control_over({path, placement_of(call)}, *model.loaded)};
  net.loras = net.loaded->loras_over(model.loras);
  call.out(0, Value::of("CONTROL_NET", std::move(net)));
}

void run_union_type(Call& call) {
  auto net = call.get<ControlNet>("control_net");
  const auto& names = models::control::union_control_types();
  auto at = std::find(names.begin(), names.end(), call.text("type"));
  net.type = at == names.end() ? std::nullopt : std::optional(static_cast<int>(at - names.begin()));
  call.out(0, Value::of("CONTROL_NET", std::move(net)));
}

/// What the mask covers is black in the picture. Source: ComfyUI comfy_extras/nodes_controlnet.py.
void cover(ControlUse& use, const at::Tensor& mask) {
  use.keep = 1.0 - mask.reshape({-1, 1, mask.size(-2), mask.size(-1)});
  auto keep = resize(use.keep, {use.image.size(2), use.image.size(1), "bilinear", true}).round();
  use.image = use.image * keep.movedim(1, -1);
}

/// A use of the inputs "control_net" and "image".
ControlUse use_of(Call& call) {
  ControlUse use;
  use.net = call.get<ControlNet>("control_net");
  use.image = call.get<at::Tensor>("image");
  use.strength = call.number("strength");
  if (call.has("vae")) use.vae = call.get<Vae>("vae");
  if (call.has("mask") && use.net.loaded && use.net.loaded->network->hint().masked)
    cover(use, call.get<at::Tensor>("mask"));
  return use;
}

/// The conditioning with that use behind those it has.
Conditioning steered(Conditioning conditioning, const ControlUse& use, bool negative_too) {
  for (auto& item : conditioning) {
    auto own = std::make_shared<ControlUse>(use);
    own->previous = control_of(item);
    item.control = own;
    item.control_for_negative = negative_too;
  }
  return conditioning;
}

void run_apply(Call& call) {
  auto conditioning = call.get<Conditioning>("conditioning");
  auto use = use_of(call);
  if (use.strength != 0) conditioning = steered(std::move(conditioning), use, true);
  call.out(0, Value::of("CONDITIONING", std::move(conditioning)));
}

void run_apply_advanced(Call& call) {
  auto use = use_of(call);
  use.start_percent = call.number("start_percent");
  use.end_percent = call.number("end_percent");
  for (std::size_t slot : {0, 1}) {
    auto conditioning = call.get<Conditioning>(slot == 0 ? "positive" : "negative");
    if (use.strength != 0) conditioning = steered(std::move(conditioning), use, false);
    call.out(slot, Value::of("CONDITIONING", std::move(conditioning)));
  }
}

graph::Input strength() {
  return number("strength", {.def = 1.0,
                             .min = 0.0,
                             .max = 10.0,
                             .step = 0.01,
                             .tooltip = "How much of what the network says is added."});
}

graph::Input percent(const char* name, double usual) {
  return number(name, {.def = usual, .min = 0.0, .max = 1.0, .step = 0.001});
}

void add_loaders(graph::Catalog& catalog, App& app) {
  auto replaced = when_replaced(app, {{"controlnet", "control_net_name"}});
  auto files = choice("control_net_name", model_choices(app, "controlnet"),
                      {.tooltip = "ControlNet, union ControlNet, control LoRA or T2I-adapter."});
  add_placed_loader(catalog, {
                                 .name = "ControlNetLoader",
                                 .display_name = "Load ControlNet Model",
                                 .category = "loaders",
                                 .inputs = {files},
                                 .outputs = {"CONTROL_NET"},
                                 .run = run_loader,
                                 .change_key = replaced,
                             });
  add_placed_loader(
      catalog,
      {
          .name = "DiffControlNetLoader",
          .display_name = "Load ControlNet Model (diff)",
          .category = "loaders",
          .description = "Also reads files that hold only what differs from a model's weights.",
          .inputs = {link("model", "MODEL", {.tooltip = "The model that the file differs from."}),
                     files},
          .outputs = {"CONTROL_NET"},
          .run = run_difference_loader,
          .change_key = replaced,
      });
}

/// The nodes that steer both conditionings; they differ in what else they take.
graph::NodeType apply_to_both(std::string name, std::string display,
                              std::vector<graph::Input> before, std::vector<graph::Input> between) {
  graph::NodeType node{
      .name = std::move(name),
      .display_name = std::move(display),
      .category = "conditioning/controlnet",
      .inputs = {link("positive", "CONDITIONING"), link("negative", "CONDITIONING"),
                 link("control_net", "CONTROL_NET")},
      .outputs = {{"CONDITIONING", "positive"}, {"CONDITIONING", "negative"}},
      .run = run_apply_advanced,
  };
  auto add = [&](std::vector<graph::Input> inputs) {
    node.inputs.insert(node.inputs.end(), inputs.begin(), inputs.end());
  };
  add(std::move(before));
  add({link("image", "IMAGE", {.tooltip = "The picture that steers."})});
  add(std::move(between));
  add({strength(), percent("start_percent", 0.0), percent("end_percent", 1.0)});
  return node;
}

}  // namespace

void add_controlnet_nodes(graph::Catalog& catalog, App& app) {
  add_loaders(catalog, app);
  std::vector<std::string> types = {"auto"};
  for (const auto& name : models::control::union_control_types()) types.push_back(name);
  catalog.add({
      .name = "SetUnionControlNetType",
      .display_name = "SetUnionControlNetType",
      .category = "conditioning/controlnet",
      .description = "Tells a ControlNet for many kinds of pictures which kind it gets.",
      .python_module = "comfy_extras.nodes_controlnet",
      .inputs = {link("control_net", "CONTROL_NET"), choice("type", types)},
      .outputs = {"CONTROL_NET"},
      .run = run_union_type,
  });
  catalog.add({
      .name = "ControlNetApply",
      .display_name = "Apply ControlNet (OLD)",
      .category = "conditioning/controlnet",
      .inputs = {link("conditioning", "CONDITIONING"), link("control_net", "CONTROL_NET"),
                 link("image", "IMAGE"), strength()},
      .outputs = {"CONDITIONING"},
      .deprecated = true,
      .run = run_apply,
  });
  auto vae = link("vae", "VAE");
  auto advanced = apply_to_both("ControlNetApplyAdvanced", "Apply ControlNet", {}, {});
  advanced.inputs.push_back(graph::optional(vae));
  catalog.add(std::move(advanced));
  auto inpainting =
      apply_to_both("ControlNetInpaintingAliMamaApply", "ControlNetInpaintingAliMamaApply", {vae},
                    {link("mask", "MASK")});
  inpainting.python_module = "comfy_extras.nodes_controlnet";
  catalog.add(std::move(inpainting));
  auto with_vae = apply_to_both("ControlNetApplySD3", "Apply Controlnet with VAE", {vae}, {});
  with_vae.python_module = "comfy_extras.nodes_sd3";
  with_vae.deprecated = true;
  with_vae.newer_schema = true;
  catalog.add(std::move(with_vae));
}

}  // namespace distorch::nodes
