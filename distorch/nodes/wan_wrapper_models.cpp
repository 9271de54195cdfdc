#include "distorch/nodes/wan_wrapper_models.h"

#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/text.h"
#include "distorch/base/units.h"
#include "distorch/models/wan/family.h"
#include "distorch/models/wan/transformer.h"
#include "distorch/nodes/block_swap.h"
#include "distorch/nodes/changed_model.h"
#include "distorch/nodes/lora_files.h"
#include "distorch/nodes/stream_weights.h"
#include "distorch/placement/placement.h"

namespace distorch::nodes::wan_wrapper {

namespace {

const models::wan::Config& config_of(const WanModel& model) {
  const auto* network =
      dynamic_cast<const models::wan::Transformer*>(model.model.loaded->network.get());
  if (!network)
    throw Error(ErrorKind::Format, model.file.string(),
                fmt::format("holds {}, and the wrapper's nodes want a video model of Wan",
                            model.model.loaded->family->name()));
  return network->config();
}

/// For which of the models that have published coefficients a file is taken. Source:
/// ComfyUI-WanVideoWrapper, nodes_model_loading.py.
std::string variant_of(const std::filesystem::path& file, const models::wan::Config& config) {
  constexpr std::int64_t small = 1536, first_frame_channels = 36;
  const auto name = lower(file.filename().string());
  auto names = [&](const char* part) { return name.find(part) != std::string::npos; };
  if (names("high") || names("low")) return names("i2v") ? "i2v_14B_2.2" : "14B_2.2";
  if (config.width == small) return "1_3B";
  const bool sees = config.vision_width > 0 && config.in_channels >= first_frame_channels;
  if (sees && (names("480") || names("fun") || names("a2") || names("540"))) return "i2v_480";
  if (sees && names("720")) return "i2v_720";
  return "14B";
}

/// The expert string that moves a part of the weights to RAM.
std::string allocation_of(const streaming::StreamedModel& weights, const Offload& offload) {
  const auto& compute = weights.options().compute;
  const auto bytes =
      static_cast<std::int64_t>(offload.part * static_cast<double>(weights.total_file_bytes()));
  if (bytes == 0 || placement::kind_of(compute) == placement::DeviceKind::Host) return "";
  log::info("{}: {:.2f} GB rest on cpu and stream to {} in every step", weights.options().name,
            static_cast<double>(bytes) / GB, compute);
  return expert_string(compute, "cpu", bytes);
}

}  // namespace

std::shared_ptr<LoadedDiffusion> in_precision(const std::shared_ptr<LoadedDiffusion>& loaded,
                                              const std::string& precision, ModelCache& models) {
  const auto& options = loaded->weights->options();
  auto dtype = at::kFloat;
  if (precision != "fp32")
    dtype = unet_dtype(models.settings(), models.engine().describe(options.compute),
                       precision == "bf16" ? formats::DType::BF16 : formats::DType::F16);
  if (dtype == options.dtype) return loaded;
  return changed_model(*loaded, {.key = "computed in " + precision, .family = {}, .dtype = dtype},
                       models.engine());
}

namespace {

/// The model with the layers of FantasyTalking beside its own; one for each model.
std::shared_ptr<LoadedDiffusion> with_speech(const std::shared_ptr<LoadedDiffusion>& loaded,
                                             Speech& speech, streaming::Engine& engine) {
  if (auto open = speech.models.find(loaded->identity)) return open;
  auto diffusion = loaded->family->diffusion(), tensors = loaded->weights->checkpoint();
  models::wan::add_speech(diffusion, speech.tensors);
  models::wan::add_speech(tensors, speech.tensors);
  auto made = changed_model(*loaded,
                            {.key = "with " + speech.file.string(),
                             .family = models::wan::detect(diffusion, diffusion),
                             .dtype = {},
                             .tensors = std::move(tensors)},
                            engine);
  speech.models.keep(loaded->identity, made);
  return made;
}

}  // namespace

std::string weight_dtype_of(const std::filesystem::path& file, const std::string& quantization) {
  if (quantization == "disabled") return "default";
  if (lower(file.extension().string()) == ".gguf") {
    log::warn("{}: holds packed weights, which stay as they are; quantization '{}' is left out",
              file.filename().string(), quantization);
    return "default";
  }
  // A scaled file has its 8-bit numbers and their scales already.
  if (quantization.find("_scaled") != std::string::npos) return "default";
  return quantization == "fp8_e5m2_fast" ? "fp8_e5m2" : quantization;
}

std::string allocation_of(const streaming::StreamedModel& weights, const BlockSwap& swap,
                          const streaming::Engine& engine) {
  std::vector<int> layers, vace_layers;
  const auto& names = weights.contents().manifest().blocks();
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i].starts_with("blocks.")) layers.push_back(static_cast<int>(i));
    if (names[i].starts_with("vace_blocks.")) vace_layers.push_back(static_cast<int>(i));
  }
  SwappedLayers swapped{
      .blocks = {}, .of = layers.size() + vace_layers.size(), .device = swap.device};
  auto take = [&](const std::vector<int>& of, std::int64_t wanted) {
    const auto most = static_cast<std::int64_t>(of.size());
    swapped.blocks.insert(swapped.blocks.end(), of.end() - std::min(wanted, most), of.end());
  };
  take(layers, swap.blocks);
  take(vace_layers, swap.vace_blocks);
  swapped.count = swapped.blocks.size();
  return nodes::allocation_of(weights, swapped, engine);
}

void open(WanModel& model, ModelCache& models) {
  if (model.swap && model.offload)
    throw Error(ErrorKind::Usage, model.file.filename().string(),
                "gets block_swap_args and vram_management_args: both say where its weights rest, "
                "link one of them");
  streaming::PlacementRequest placement{.compute = model.compute};
  auto opened = [&] {
    auto plain = models.diffusion(model.file, placement, model.weight_dtype);
    model.model.loaded = plain;
    config_of(model);  // refuses what is no model of Wan
    return model.speech ? with_speech(plain, *model.speech, models.engine()) : plain;
  };
  auto loaded = opened();
  model.model.loaded = loaded;
  model.variant = variant_of(model.file, config_of(model));
  if (model.swap)
    placement.allocation = allocation_of(*loaded->weights, *model.swap, models.engine());
  if (model.offload) placement.allocation = allocation_of(*loaded->weights, *model.offload);
  if (!placement.allocation.empty()) loaded = opened();
  model.model.loaded = in_precision(loaded, model.precision, models);
}

void add_loras(WanModel& model, const LoraChoices& choices, ModelCache& models) {
  for (const auto& choice : choices) {
    auto acts = std::ranges::find_if(choice.strengths, [](double one) { return one != 0; });
    if (acts == choice.strengths.end()) continue;
    const auto before = model.model.loras.size();
    add_lora(models, models.folders().get("loras", choice.name), model.model, *acts);
    for (auto i = before; i < model.model.loras.size(); ++i) {
      model.model.loras[i].strength = choice.strengths.front();
      model.strengths.push_back(choice.strengths);
    }
  }
}

Vae in_float32(const Vae& vae, const streaming::PlacementRequest& placement,
               streaming::Engine& engine) {
  auto options = vae.loaded->weights->options();
  if (options.dtype == at::kFloat) return vae;
  options.dtype = at::kFloat;
  auto loaded = std::make_shared<LoadedVae>();
  loaded->make = vae.loaded->make;
  loaded->network = loaded->make();
  constexpr bool many_steps = false;
  stream_weights(engine, *loaded, vae.loaded->weights->checkpoint(), options, placement,
                 many_steps);
  return {loaded};
}

Clip open_text(const std::filesystem::path& file, const streaming::PlacementRequest& placement,
               ModelCache& models) {
  return {.loaded = models.text({file}, "wan", placement), .loras = {}, .layer = {}};
}

}  // namespace distorch::nodes::wan_wrapper
