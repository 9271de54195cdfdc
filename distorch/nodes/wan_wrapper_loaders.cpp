// The loaders of the WanVideoWrapper, and what places a model's weights.
#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/nodes/clip_vision.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/wan_wrapper.h"
#include "distorch/nodes/wan_wrapper_models.h"

namespace distorch::nodes::wan_wrapper {

using graph::boolean;
using graph::Call;
using graph::choice;
using graph::Choices;
using graph::integer;
using graph::link;
using graph::number;
using graph::optional;
using graph::Value;

namespace {

void out_device(Call& call) {
  if (call.node_type().outputs.size() > 1)
    call.out(1, Value::of("MULTIGPUDEVICE", graph::Json(named_device(call))));
}

void run_model(Call& call) {
  const auto name = call.text("model");
  const auto& folders = call.context<ModelFolders>();
  auto found = folders.find("diffusion_models", name);
  if (!found) found = folders.find("unet_gguf", name);
  WanModel model{.file = found ? *found : folders.get("diffusion_models", name),
                 .precision = call.text("base_precision"),
                 .compute = named_device(call)};
  model.weight_dtype = weight_dtype_of(model.file, call.text("quantization"));
  model.swap = optional_input<BlockSwap>(call, "block_swap_args");
  model.offload = optional_input<Offload>(call, "vram_management_args");
  for (const char* more : {"multitalk_model", "fantasyportrait_model"})
    if (call.node_type().find_input(more) && call.has(more))
      throw Error(ErrorKind::Usage, call.place(),
                  fmt::format("input '{}' brings a model that distorch does not run yet", more));
  if (call.has("fantasytalking_model"))
    model.speech = call.get<std::shared_ptr<Speech>>("fantasytalking_model");
  open(model, call.context<ModelCache>());
  if (call.has("lora")) add_loras(model, call.get<LoraChoices>("lora"), call.context<ModelCache>());
  call.out(0, Value::of("WANVIDEOMODEL", std::move(model)));
  out_device(call);
}

/// Of both loaders: Wan's own autoencoders, and the small ones of vae_approx.
void load_vae(Call& call, const char* folder) {
  auto path = call.context<ModelFolders>().get(folder, call.text("model_name"));
  auto loaded = call.context<ModelCache>().vae(path, {.compute = named_device(call)});
  if (!loaded)
    throw Error(ErrorKind::Format, path.string(),
                "holds no autoencoder that distorch knows; " + call.node_type().name +
                    " wants Wan 2.1's or 2.2's");
  if (loaded->network->shape().dimensions != 3)
    throw Error(ErrorKind::Format, path.string(),
                "holds an autoencoder of pictures; " + call.node_type().name +
                    " wants Wan 2.1's or 2.2's, which code video");
  Vae vae{loaded};
  if (call.text("precision") == "fp32")
    vae = in_float32(vae, {.compute = named_device(call)}, call.context<streaming::Engine>());
  call.out(0, Value::of("WANVAE", std::move(vae)));
  out_device(call);
}

void run_vae(Call& call) { load_vae(call, "vae"); }
void run_small_vae(Call& call) { load_vae(call, "vae_approx"); }

void run_text_encoder(Call& call) {
  WanText text{.file = call.context<ModelFolders>().get("text_encoders", call.text("model_name")),
               .placement = {.compute = named_device(call)}};
  text.clip = open_text(text.file, text.placement, call.context<ModelCache>());
  call.out(0, Value::of("WANTEXTENCODER", std::move(text)));
  out_device(call);
}

void run_vision(Call& call) {
  const auto& folders = call.context<ModelFolders>();
  const auto name = call.text("model_name");
  auto found = folders.find("clip_vision", name);
  const auto path = found ? *found : folders.get("text_encoders", name);
  auto loaded = call.context<ModelCache>().vision(path, {.compute = named_device(call)});
  if (!loaded)
    throw Error(ErrorKind::Format, path.string(),
                "holds no picture encoder that distorch knows (CLIP ViT-H would fit)");
  call.out(0, Value::of("CLIP_VISION", ClipVision{std::move(loaded)}));
  out_device(call);
}

void run_block_swap(Call& call) {
  BlockSwap swap{.blocks = call.integer("blocks_to_swap"),
                 .vace_blocks = call.integer("vace_blocks_to_swap")};
  if (call.node_type().find_input("swap_device")) swap.device = call.text("swap_device");
  call.out(0, Value::of("BLOCKSWAPARGS", swap));
}

void run_set_block_swap(Call& call) {
  auto model = call.get<WanModel>("model");
  if (call.has("block_swap_args")) {
    model.swap = call.get<BlockSwap>("block_swap_args");
    open(model, call.context<ModelCache>());
  }
  call.out(0, Value::of("WANVIDEOMODEL", std::move(model)));
}

void run_offload(Call& call) {
  call.out(0, Value::of("VRAM_MANAGEMENTARGS", Offload{call.number("offload_percent")}));
}

void run_compile(Call& call) {
  log::info("{}: nothing needs compiling here; the settings are taken and do nothing",
            call.place());
  call.out(0, Value::of("WANCOMPILEARGS", graph::Json::object()));
}

Choices model_files(App& app) {
  return Choices([&app] {
           auto names = app.folders.list("unet_gguf");
           for (const auto& name : app.folders.list("diffusion_models")) names.push_back(name);
           std::ranges::sort(names);
           names.erase(std::ranges::unique(names).begin(), names.end());
           return names;
         })
      .with_origin([&app] { return app.folders.searched("diffusion_models"); });
}

Choices vision_files(App& app) {
  return Choices([&app] {
           auto names = app.folders.list("clip_vision");
           for (const auto& name : app.folders.list("text_encoders")) names.push_back(name);
           return names;
         })
      .with_origin([&app] { return app.folders.searched("clip_vision"); });
}

std::vector<graph::Input> model_inputs(App& app, bool with_devices) {
  std::vector<graph::Input> inputs = {
      choice("model", model_files(app)),
      choice("base_precision", {"fp32", "bf16", "fp16", "fp16_fast"},
             {.def = "bf16",
              .tooltip = "What the model computes in; a CPU without bf16 takes float32."}),
      choice("quantization",
             {"disabled", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e4m3fn_scaled",
              "fp8_e4m3fn_scaled_fast", "fp8_e5m2", "fp8_e5m2_fast", "fp8_e5m2_scaled",
              "fp8_e5m2_scaled_fast"},
             {.def = "disabled",
              .tooltip = "What weights rest in. Files that are packed already stay as they are."}),
      with_devices ? optional(load_device_input()) : load_device_input(),
  };
  if (with_devices) inputs.push_back(optional(device_input("compute_device")));
  auto add = [&](graph::Input input) { inputs.push_back(optional(std::move(input))); };
  add(choice(
      "attention_mode",
      {"sdpa", "flash_attn_2", "flash_attn_3", "sageattn", "sageattn_3", "radial_sage_attention"},
      {.def = "sdpa",
       .tooltip = "All are the same here: the fastest exact attention that there is."}));
  add(link("compile_args", "WANCOMPILEARGS"));
  add(link("block_swap_args", "BLOCKSWAPARGS"));
  const graph::Json none = {{"default", nullptr}};
  add(link("lora", "WANVIDLORA", {.extra = none}));
  add(link("vram_management_args", "VRAM_MANAGEMENTARGS", {.extra = none}));
  add(link("extra_model", "VACEPATH", {.extra = none}));
  if (with_devices) add(link("vace_model", "VACEPATH", {.extra = none}));
  add(link("fantasytalking_model", "FANTASYTALKINGMODEL", {.extra = none}));
  add(link("multitalk_model", "MULTITALKMODEL", {.extra = none}));
  add(link("fantasyportrait_model", "FANTASYPORTRAITMODEL", {.extra = none}));
  add(choice("rms_norm_function", {"default", "pytorch"}, {.def = "default"}));
  // The choice of older workflows, which had one device for both.
  if (with_devices) add(device_input("device"));
  return inputs;
}

graph::NodeType model_loader(App& app) {
  return {
      .name = "WanVideoModelLoader",
      .display_name = "WanVideo Model Loader",
      .category = kCategory,
      .description =
          "Opens a Wan video model. Its weights are brought into place when a video is "
          "sampled, and rest wherever there is room.",
      .python_module = kModule,
      .inputs = model_inputs(app, false),
      .outputs = {{"WANVIDEOMODEL", "model"}},
      .run = run_model,
      .change_key = when_replaced(app, {{"diffusion_models", "model"}}),
  };
}

void add_model_loaders(graph::Catalog& catalog, App& app) {
  catalog.add(model_loader(app));
  auto placed = multigpu_variant(model_loader(app));
  placed.inputs = model_inputs(app, true);
  placed.outputs.emplace_back("MULTIGPUDEVICE", "compute_device");
  take_devices(placed);
  auto second = placed;
  second.name = second.display_name = "WanVideoModelLoaderMultiGPU_2";
  catalog.add(std::move(placed));
  catalog.add(std::move(second));
}

void add_vae_loaders(graph::Catalog& catalog, App& app) {
  graph::NodeType loader{
      .name = "WanVideoVAELoader",
      .display_name = "WanVideo VAE Loader",
      .category = kCategory,
      .description = "Opens Wan's autoencoder of video.",
      .python_module = kModule,
      .inputs = {choice("model_name", model_choices(app, "vae")),
                 optional(choice("precision", {"fp16", "fp32", "bf16"}, {.def = "bf16"})),
                 optional(link("compile_args", "WANCOMPILEARGS"))},
      .outputs = {{"WANVAE", "vae"}},
      .run = run_vae,
      .change_key = when_replaced(app, {{"vae", "model_name"}}),
  };
  auto placed = multigpu_variant(loader);
  placed.inputs.insert(placed.inputs.begin() + 1, optional(device_input("load_device")));
  placed.outputs.emplace_back("MULTIGPUDEVICE", "load_device");
  placed.inputs.push_back(optional(device_input("device")));
  placed.checks.push_back(any_device({"load_device", "device"}));
  catalog.add(std::move(loader));
  catalog.add(std::move(placed));

  graph::NodeType small{
      .name = "WanVideoTinyVAELoader",
      .display_name = "WanVideo Tiny VAE Loader",
      .category = kCategory,
      .description = "Opens a small autoencoder of Wan's video (TAEHV): faster and coarser.",
      .python_module = kModule,
      .inputs = {choice("model_name", model_choices(app, "vae_approx"),
                        {.extra = graph::Json::object()}),
                 optional(choice("precision", {"fp16", "fp32", "bf16"}, {.def = "fp16"})),
                 optional(boolean("parallel",
                                  {.def = false,
                                   .tooltip = "Makes no difference here: frames are decoded as "
                                              "many at a time as there is room for."}))},
      .outputs = {{"WANVAE", "vae"}},
      .run = run_small_vae,
      .change_key = when_replaced(app, {{"vae_approx", "model_name"}}),
  };
  auto small_placed = multigpu_variant(small);
  small_placed.inputs.insert(small_placed.inputs.begin() + 1,
                             optional(device_input("load_device")));
  small_placed.outputs.emplace_back("MULTIGPUDEVICE", "load_device");
  small_placed.checks.push_back(any_device({"load_device"}));
  catalog.add(std::move(small));
  catalog.add(std::move(small_placed));
}

void add_encoder_loaders(graph::Catalog& catalog, App& app) {
  graph::NodeType text{
      .name = "LoadWanVideoT5TextEncoder",
      .display_name = "WanVideo T5 Text Encoder Loader",
      .category = kCategory,
      .description = "Opens UMT5-XXL under its own names or ComfyUI's.",
      .python_module = kModule,
      .inputs = {choice("model_name", model_choices(app, "text_encoders")),
                 choice("precision", {"fp32", "bf16"}, {.def = "bf16"}),
                 optional(load_device_input()),
                 optional(choice("quantization", {"disabled", "fp8_e4m3fn"}, {.def = "disabled"}))},
      .outputs = {{"WANTEXTENCODER", "wan_t5_model"}},
      .run = run_text_encoder,
      .change_key = when_replaced(app, {{"text_encoders", "model_name"}}),
  };
  graph::NodeType vision{
      .name = "LoadWanVideoClipTextEncoder",
      .display_name = "WanVideo CLIP Text Encoder Loader",
      .category = kCategory,
      .description = "Opens the picture encoder CLIP ViT-H.",
      .python_module = kModule,
      .inputs = {choice("model_name", vision_files(app)),
                 choice("precision", {"fp16", "fp32", "bf16"}, {.def = "fp16"}),
                 optional(load_device_input())},
      .outputs = {{"CLIP_VISION", "wan_clip_vision"}},
      .run = run_vision,
      .change_key = when_replaced(app, {{"clip_vision", "model_name"}}),
  };
  for (auto* loader : {&text, &vision}) {
    auto placed = multigpu_variant(*loader);
    placed.inputs[2] = optional(device_input("device"));
    placed.outputs.emplace_back("MULTIGPUDEVICE", "load_device");
    take_devices(placed);
    catalog.add(std::move(*loader));
    catalog.add(std::move(placed));
  }
}

void add_block_swap(graph::Catalog& catalog) {
  graph::NodeType swap{
      .name = "WanVideoBlockSwap",
      .display_name = "WanVideo Block Swap",
      .category = kCategory,
      .description =
          "So many layers of the model do not stay on the device that computes: they "
          "stream to it in every step, while it computes with those before.",
      .python_module = kModule,
      .inputs = {integer("blocks_to_swap", {.def = 20, .min = 0, .max = 40, .step = 1}),
                 boolean("offload_img_emb", {.def = false}),
                 boolean("offload_txt_emb", {.def = false}),
                 optional(boolean("use_non_blocking", {.def = false})),
                 optional(
                     integer("vace_blocks_to_swap", {.def = 0, .min = 0, .max = 15, .step = 1})),
                 optional(integer("prefetch_blocks", {.def = 0, .min = 0, .max = 40, .step = 1})),
                 optional(boolean("block_swap_debug", {.def = false}))},
      .outputs = {{"BLOCKSWAPARGS", "block_swap_args"}},
      .run = run_block_swap,
  };
  auto placed = multigpu_variant(swap);
  placed.inputs.push_back(optional(device_input("swap_device", "cpu")));
  take_devices(placed);
  catalog.add(std::move(swap));
  catalog.add(std::move(placed));
}

}  // namespace

void add_loaders(graph::Catalog& catalog, App& app) {
  add_model_loaders(catalog, app);
  add_vae_loaders(catalog, app);
  add_encoder_loaders(catalog, app);
  add_block_swap(catalog);
  catalog.add({
      .name = "WanVideoSetBlockSwap",
      .display_name = "WanVideo Set BlockSwap",
      .category = kCategory,
      .description = "The same model with other layers streaming.",
      .python_module = kModule,
      .inputs = {link("model", "WANVIDEOMODEL"),
                 optional(link("block_swap_args", "BLOCKSWAPARGS"))},
      .outputs = {{"WANVIDEOMODEL", "model"}},
      .run = run_set_block_swap,
  });
  catalog.add({
      .name = "WanVideoVRAMManagement",
      .display_name = "WanVideo VRAM Management",
      .category = kCategory,
      .description = "This part of the model's weights does not stay on the device that computes.",
      .python_module = kModule,
      .inputs = {number("offload_percent", {.def = 1.0, .min = 0.0, .max = 1.0, .step = 0.01})},
      .outputs = {{"VRAM_MANAGEMENTARGS", "vram_management_args"}},
      .run = run_offload,
  });
  catalog.add({
      .name = "WanVideoTorchCompileSettings",
      .display_name = "WanVideo Torch Compile Settings",
      .category = kCategory,
      .description = "For workflows that have it: nothing needs compiling here.",
      .python_module = kModule,
      .inputs = {choice("backend", {"inductor", "cudagraphs"}, {.def = "inductor"}),
                 boolean("fullgraph", {.def = false}),
                 choice(
                     "mode",
                     {"default", "max-autotune", "max-autotune-no-cudagraphs", "reduce-overhead"},
                     {.def = "default"}),
                 boolean("dynamic", {.def = false}),
                 integer("dynamo_cache_size_limit", {.def = 64, .min = 0, .max = 1024, .step = 1}),
                 boolean("compile_transformer_blocks_only", {.def = true}),
                 optional(integer("dynamo_recompile_limit",
                                  {.def = 128, .min = 0, .max = 1024, .step = 1}))},
      .outputs = {{"WANCOMPILEARGS", "torch_compile_args"}},
      .run = run_compile,
  });
}

}  // namespace distorch::nodes::wan_wrapper
