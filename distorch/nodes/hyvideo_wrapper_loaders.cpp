// The HunyuanVideoWrapper's loaders of networks and autoencoders, and what goes with them.
#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/text.h"
#include "distorch/models/hunyuan_video/transformer.h"
#include "distorch/nodes/block_swap.h"
#include "distorch/nodes/hyvideo_wrapper.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/lora_files.h"
#include "distorch/nodes/wan_wrapper_models.h"

namespace distorch::nodes::hyvideo {

using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::Json;
using graph::link;
using graph::number;
using graph::optional;
using graph::Value;

namespace {

constexpr std::int64_t kDoubles = 20, kSingles = 40;  // blocks of the published model

const models::hunyuan_video::Config& config_of(const HyModel& model) {
  const auto* network =
      dynamic_cast<const models::hunyuan_video::Transformer*>(model.model.loaded->network.get());
  if (!network)
    throw Error(ErrorKind::Format, model.file.string(),
                fmt::format("holds {}, and HyVideoModelLoader wants HunyuanVideo",
                            model.model.loaded->family->name()));
  if (network->config().is_15())
    throw Error(ErrorKind::Format, model.file.string(),
                "holds HunyuanVideo 1.5, which the HunyuanVideoWrapper does not know: UNETLoader "
                "opens it");
  return network->config();
}

/// Told by the file's name where its shapes are those of a model of text alone. Source:
/// ComfyUI-HunyuanVideoWrapper, nodes.py.
Condition condition_of(const std::filesystem::path& file,
                       const models::hunyuan_video::Config& config) {
  const auto name = lower(file.filename().string());
  if (config.beside() > 0) return Condition::Concat;
  if (name.find("i2v") != std::string::npos) return Condition::Replace;
  return name.find("custom") != std::string::npos ? Condition::Reference : Condition::Concat;
}

std::string weight_dtype_of(const Call& call, const HyModel& model, ModelCache& models) {
  const auto wish = call.text("quantization");
  if (wish.starts_with("torchao")) {
    log::warn("{}: quantization '{}' is left out, its weights stay as they are in the file",
              model.file.filename().string(), wish);
    return "default";
  }
  if (wish != "fp8_scaled") return wan_wrapper::weight_dtype_of(model.file, wish);
  const auto file = models.checkpoint(model.file);
  // Scales are no entries of their own: they belong to packed weights.
  if (std::ranges::none_of(file.tensors(), [](const auto& entry) { return entry.second.encoding; }))
    throw Error(ErrorKind::Usage, model.file.string(),
                "has no scales beside its weights, which 'fp8_scaled' needs; choose fp8_e4m3fn, or "
                "a file whose name says scaled");
  return "default";
}

/// Layers "double_blocks." or "single_blocks.", the first so many of them. Blocks whose names begin
/// with "double_blocks.0" are parts of one layer.
void take_first(const std::vector<std::string>& names, const char* kind, std::int64_t count,
                SwappedLayers& layers) {
  std::string_view layer;
  bool taken = false;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string_view name = names[i];
    if (!name.starts_with(kind)) continue;
    if (const auto its = name.substr(0, name.find('.', std::string_view(kind).size()));
        its != layer) {
      layer = its;
      taken = count-- > 0;
      ++layers.of;
      layers.count += taken;
    }
    if (taken) layers.blocks.push_back(static_cast<int>(i));
  }
}

void open(HyModel& model, const std::string& device, const std::string& weight_dtype,
          const std::optional<BlockSwap>& swap, ModelCache& models) {
  streaming::PlacementRequest placement{.compute = device};
  model.model.loaded = models.diffusion(model.file, placement, weight_dtype);
  model.condition = condition_of(model.file, config_of(model));
  if (!swap) return;
  const auto& weights = *model.model.loaded->weights;
  SwappedLayers layers;
  take_first(weights.contents().manifest().blocks(), "double_blocks.", swap->doubles, layers);
  take_first(weights.contents().manifest().blocks(), "single_blocks.", swap->singles, layers);
  placement.allocation = allocation_of(weights, layers, models.engine());
  if (!placement.allocation.empty())
    model.model.loaded = models.diffusion(model.file, placement, weight_dtype);
}

/// Of the LoRA that was added last only what concerns these blocks.
void keep_blocks(Model& model, const LoraChoice& choice) {
  auto& use = model.loras.back();
  auto kept = std::make_shared<std::vector<weights::NamedAdapter>>();
  for (const auto& adapter : *use.adapters)
    for (const auto& block : *choice.blocks)
      if (adapter.weight.starts_with(block)) kept->push_back(adapter);
  if (kept->empty()) {
    log::warn("{}: changes none of the blocks that are chosen", choice.name);
    model.loras.pop_back();
    return;
  }
  for (const auto& block : *choice.blocks) use.key += "|" + block;
  use.adapters = std::move(kept);
}

void add_loras(HyModel& model, const LoraChoices& choices, ModelCache& models) {
  for (const auto& choice : choices) {
    if (choice.strength == 0) continue;
    const auto before = model.model.loras.size();
    add_lora(models, models.folders().get("loras", choice.name), model.model, choice.strength);
    if (choice.blocks && model.model.loras.size() > before) keep_blocks(model.model, choice);
  }
}

void run_model(Call& call) {
  auto& models = call.context<ModelCache>();
  const auto precision = call.text("base_precision");
  HyModel model{.file = models.folders().get("diffusion_models", call.text("model")),
                .precision = precision == "fp32" ? at::kFloat : at::kBFloat16};
  open(model, named_device(call), weight_dtype_of(call, model, models),
       optional_input<BlockSwap>(call, "block_swap_args"), models);
  model.model.loaded = wan_wrapper::in_precision(model.model.loaded, precision, models);
  if (auto loras = optional_input<LoraChoices>(call, "lora")) add_loras(model, *loras, models);
  call.out(0, Value::of("HYVIDEOMODEL", std::move(model)));
}

void run_vae(Call& call) {
  const streaming::PlacementRequest placement{.compute = named_device(call)};
  const auto path = call.context<ModelFolders>().get("vae", call.text("model_name"));
  auto loaded = call.context<ModelCache>().vae(path, placement);
  constexpr std::int64_t channels = 16;
  // Wan's has the same shapes, but passes frame by frame.
  if (!loaded || !loaded->network->shape().whole_clips ||
      loaded->network->shape().latent_channels != channels)
    throw Error(ErrorKind::Format, path.string(),
                "holds no autoencoder of HunyuanVideo (hunyuan_video_vae_bf16.safetensors), which "
                "HyVideoVAELoader wants");
  Vae vae{loaded};
  if (call.text("precision") == "fp32")
    vae = wan_wrapper::in_float32(vae, placement, call.context<streaming::Engine>());
  call.out(0, Value::of("VAE", std::move(vae)));
}

void run_block_swap(Call& call) {
  call.out(0, Value::of("BLOCKSWAPARGS", BlockSwap{call.integer("double_blocks_to_swap"),
                                                   call.integer("single_blocks_to_swap")}));
}

void run_compile(Call& call) {
  log::info("{}: nothing needs compiling here; the settings are taken and do nothing",
            call.place());
  call.out(0, Value::of("COMPILEARGS", Json::object()));
}

void run_lora(Call& call) {
  auto choices = optional_input<LoraChoices>(call, "prev_lora").value_or(LoraChoices{});
  choices.push_back(
      {call.text("lora"), call.number("strength"), optional_input<Blocks>(call, "blocks")});
  call.out(0, Value::of("HYVIDLORA", std::move(choices)));
}

void run_blocks(Call& call) {
  Blocks blocks;
  for (const auto& input : call.node_type().inputs)
    if (call.boolean(input.name)) blocks.insert(input.name);
  call.out(0, Value::of("SELECTEDBLOCKS", std::move(blocks)));
}

std::vector<graph::Input> model_inputs(App& app, std::vector<std::string> quantizations,
                                       std::vector<std::string> devices,
                                       std::vector<std::string> attention) {
  std::vector<graph::Input> inputs = {
      choice("model", model_choices(app, "diffusion_models")),
      choice("base_precision", {"fp32", "bf16"},
             {.def = "bf16", .tooltip = "What the model computes in, and what noise is drawn in."}),
      choice("quantization", std::move(quantizations),
             {.def = "disabled",
              .tooltip = "What weights rest in. Files that are packed already stay as they are."}),
      choice("load_device", std::move(devices), {.def = "main_device"})};
  auto add = [&](graph::Input input) { inputs.push_back(optional(std::move(input))); };
  add(choice("attention_mode", std::move(attention),
             {.def = "flash_attn",
              .tooltip = "All are the same here: the fastest exact attention that there is."}));
  add(link("compile_args", "COMPILEARGS"));
  add(link("block_swap_args", "BLOCKSWAPARGS"));
  add(link("lora", "HYVIDLORA", {.extra = {{"default", nullptr}}}));
  add(boolean("auto_cpu_offload",
              {.def = false, .tooltip = "Weights rest wherever there is room, either way."}));
  return inputs;
}

void add_model_loaders(graph::Catalog& catalog, App& app) {
  graph::NodeType loader{
      .name = "HyVideoModelLoader",
      .display_name = "HunyuanVideo Model Loader",
      .category = kCategory,
      .description =
          "Opens a HunyuanVideo model. Its weights are brought into place when a video is "
          "sampled, and rest wherever there is room.",
      .python_module = kModule,
      .inputs =
          model_inputs(app, {"disabled", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2", "fp8_scaled"},
                       {"main_device", "offload_device"},
                       {"sdpa", "flash_attn_varlen", "sageattn", "sageattn_varlen", "comfy"}),
      .outputs = {{"HYVIDEOMODEL", "model"}},
      .run = run_model,
      .change_key = when_replaced(app, {{"diffusion_models", "model"}}),
  };
  auto placed = loader;
  loader.inputs.push_back(optional(
      boolean("upcast_rope", {.def = true, .tooltip = "Positions are exact here, either way."})));
  catalog.add(std::move(loader));
  placed.inputs = model_inputs(
      app,
      {"disabled", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_scaled", "torchao_fp8dq",
       "torchao_fp8dqrow", "torchao_int8dq", "torchao_fp6", "torchao_int4", "torchao_int8"},
      {"main_device"}, {"sdpa", "flash_attn_varlen", "sageattn_varlen", "comfy"});
  add_device_variant(catalog, std::move(placed));
}

void add_vae_loaders(graph::Catalog& catalog, App& app) {
  graph::NodeType loader{
      .name = "HyVideoVAELoader",
      .display_name = "HunyuanVideo VAE Loader",
      .category = kCategory,
      .description = "Opens HunyuanVideo's autoencoder of video.",
      .python_module = kModule,
      .inputs = {choice("model_name", model_choices(app, "vae")),
                 optional(choice("precision", {"fp16", "fp32", "bf16"}, {.def = "bf16"})),
                 optional(link("compile_args", "COMPILEARGS"))},
      .outputs = {{"VAE", "vae"}},
      .run = run_vae,
      .change_key = when_replaced(app, {{"vae", "model_name"}}),
  };
  catalog.add(loader);
  add_device_variant(catalog, std::move(loader));
}

void add_lora_nodes(graph::Catalog& catalog, App& app) {
  auto select =
      setting("HyVideoLoraSelect", "HunyuanVideo Lora Select",
              {choice("lora", model_choices(app, "loras")),
               number("strength", {.def = 1.0, .min = -10.0, .max = 10.0, .step = 0.0001}),
               optional(link("prev_lora", "HYVIDLORA", {.extra = {{"default", nullptr}}})),
               optional(link("blocks", "SELECTEDBLOCKS"))},
              {"HYVIDLORA", "lora"}, run_lora);
  select.description = "A LoRA for a HunyuanVideo model, behind those chosen before.";
  select.change_key = when_replaced(app, {{"loras", "lora"}});
  catalog.add(std::move(select));
  std::vector<graph::Input> blocks;
  auto add = [&](const char* kind, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i)
      blocks.push_back(boolean(fmt::format("{}.{}.", kind, i), {.def = true}));
  };
  add("double_blocks", kDoubles);
  add("single_blocks", kSingles);
  catalog.add(setting("HyVideoLoraBlockEdit", "HunyuanVideo Lora Block Edit", std::move(blocks),
                      {"SELECTEDBLOCKS", "blocks"}, run_blocks));
}

void add_compile(graph::Catalog& catalog) {
  auto node = setting(
      "HyVideoTorchCompileSettings", "HunyuanVideo Torch Compile Settings",
      {choice("backend", {"inductor", "cudagraphs"}, {.def = "inductor"}),
       boolean("fullgraph", {.def = false}),
       choice("mode", {"default", "max-autotune", "max-autotune-no-cudagraphs", "reduce-overhead"},
              {.def = "default"}),
       boolean("dynamic", {.def = false}),
       integer("dynamo_cache_size_limit", {.def = 64, .min = 0, .max = 1024, .step = 1}),
       boolean("compile_single_blocks", {.def = true}),
       boolean("compile_double_blocks", {.def = true}), boolean("compile_txt_in", {.def = false}),
       boolean("compile_vector_in", {.def = false}),
       boolean("compile_final_layer", {.def = false})},
      {"COMPILEARGS", "torch_compile_args"}, run_compile);
  node.description = "For workflows that have it: nothing needs compiling here.";
  catalog.add(std::move(node));
}

}  // namespace

void add_loaders(graph::Catalog& catalog, App& app) {
  add_model_loaders(catalog, app);
  add_vae_loaders(catalog, app);
  add_lora_nodes(catalog, app);
  add_compile(catalog);
  auto swap = setting(
      "HyVideoBlockSwap", "HunyuanVideo BlockSwap",
      {integer("double_blocks_to_swap", {.def = kDoubles, .min = 0, .max = kDoubles, .step = 1}),
       integer("single_blocks_to_swap", {.def = 0, .min = 0, .max = kSingles, .step = 1}),
       boolean("offload_txt_in", {.def = false}), boolean("offload_img_in", {.def = false})},
      {"BLOCKSWAPARGS", "block_swap_args"}, run_block_swap);
  swap.description =
      "So many blocks of the model, counted from the first, do not stay on the device that "
      "computes: they stream to it in every step, while it computes with those before.";
  catalog.add(std::move(swap));
}

}  // namespace distorch::nodes::hyvideo
