#include <algorithm>

#include "distorch/nodes/catalog.h"
#include "distorch/nodes/loaders.h"

namespace distorch::nodes {

using graph::boolean;
using graph::Call;
using graph::choice;
using graph::Choices;
using graph::integer;
using graph::link;
using graph::number;
using graph::text;
using graph::Value;

namespace {

constexpr const char* kModule = "custom_nodes.ComfyUI-MultiGPU";

void run_select(Call& call) {
  call.out(0, Value::of("MULTIGPUDEVICE", graph::Json(call.text("device"))));
}

void run_checkpoint_devices(Call& call) {
  load_checkpoint(call, {{.compute = call.text("unet_device")},
                         {.compute = call.text("clip_device")},
                         {.compute = call.text("vae_device")}});
}

void run_checkpoint_spread(Call& call) {
  bool eject = call.boolean("eject_models");
  auto part = [&](const std::string& name) {
    return spread_request(call.text(name + "_compute_device"),
                          call.number(name + "_virtual_vram_gb"), call.text(name + "_donor_device"),
                          call.text(name + "_expert_mode_allocations"), eject);
  };
  load_checkpoint(
      call, {part("unet"), part("clip"), {.compute = call.text("vae_device"), .eject = eject}});
}

/// In the reference this loader lets LoRAs round to the 8 bits of the weights that they change. Here
/// they are applied beside the weights, which stay as they are.
void run_low_precision(Call& call) { load_unet(call, "default"); }

void run_cfg_split(Call& call) {
  auto model = call.get<Model>("model");
  model.most_devices = static_cast<int>(std::min<std::int64_t>(call.integer("max_gpus"), 64));
  call.out(0, Value::of("MODEL", std::move(model)));
}

// The first accelerator, else "cpu".
graph::Json usual_device(const Choices& devices) {
  for (const auto& name : devices.read())
    if (name != "cpu") return name;
  return "cpu";
}

}  // namespace

void add_multigpu_nodes(graph::Catalog& catalog, App& app) {
  auto devices = device_choices();
  auto device = [&](const char* name) {
    return choice(name, devices, {.def = usual_device(devices)});
  };
  auto donor = [&](const char* name) { return choice(name, devices, {.def = "cpu"}); };
  auto gigabytes = [](const char* name, double usual) {
    return number(name, {.def = usual, .min = 0.0, .max = 128.0, .step = 0.1});
  };
  auto expert = [](const char* name) {
    return graph::optional(text(name, {.def = "", .multiline = false}));
  };
  auto checkpoint = choice("ckpt_name", model_choices(app, "checkpoints"));
  auto replaced = when_replaced(app, {{"checkpoints", "ckpt_name"}});

  catalog.add({
      .name = "DeviceSelectorMultiGPU",
      .display_name = "DeviceSelectorMultiGPU",
      .category = "multigpu",
      .python_module = kModule,
      .inputs = {choice("device", devices)},
      .outputs = {{"MULTIGPUDEVICE", "device"}},
      .run = run_select,
      .checks = {any_device({"device"})},
  });
  catalog.add({
      .name = "MultiGPU_WorkUnits",
      .display_name = "MultiGPU CFG Split",
      .category = "advanced/multigpu",
      .description = "Positive and negative may be computed on several devices at the same time. "
                     "It is done where it is predicted to be faster.",
      .python_module = "comfy_extras.nodes_multigpu",
      .inputs = {link("model", "MODEL"),
                 integer("max_gpus",
                         {.def = 2,
                          .min = 1,
                          .step = 1,
                          .tooltip = "At most so many devices, with the model's own."})},
      .outputs = {"MODEL"},
      .newer_schema = true,
      .run = run_cfg_split,
  });
  catalog.add({
      .name = "UNetLoaderLP",
      .display_name = "UNetLoaderLP",
      .category = "loaders",
      .python_module = kModule,
      .inputs = {choice("unet_name", model_choices(app, "diffusion_models"))},
      .outputs = {"MODEL"},
      .run = run_low_precision,
      .change_key = when_replaced(app, {{"diffusion_models", "unet_name"}}),
  });
  catalog.add({
      .name = "CheckpointLoaderAdvancedMultiGPU",
      .display_name = "CheckpointLoaderAdvancedMultiGPU",
      .category = "multigpu",
      .python_module = kModule,
      .inputs = {checkpoint, device("unet_device"), device("clip_device"), device("vae_device")},
      .outputs = {"MODEL", "CLIP", "VAE"},
      .run = run_checkpoint_devices,
      .change_key = replaced,
      .checks = {any_device({"unet_device", "clip_device", "vae_device"})},
  });
  catalog.add({
      .name = "CheckpointLoaderAdvancedDisTorch2MultiGPU",
      .display_name = "CheckpointLoaderAdvancedDisTorch2MultiGPU",
      .category = "multigpu/distorch_2",
      .python_module = kModule,
      .inputs = {checkpoint, device("unet_compute_device"), gigabytes("unet_virtual_vram_gb", 4.0),
                 donor("unet_donor_device"), donor("clip_compute_device"),
                 gigabytes("clip_virtual_vram_gb", 2.0), donor("clip_donor_device"),
                 device("vae_device"), expert("unet_expert_mode_allocations"),
                 expert("clip_expert_mode_allocations"),
                 graph::optional(boolean("high_precision_loras", {.def = true})),
                 graph::optional(boolean("eject_models", {.def = true}))},
      .outputs = {"MODEL", "CLIP", "VAE"},
      .run = run_checkpoint_spread,
      .change_key = replaced,
      .checks = {any_device({"unet_compute_device", "unet_donor_device", "clip_compute_device",
                             "clip_donor_device", "vae_device"})},
  });
}

}  // namespace distorch::nodes
