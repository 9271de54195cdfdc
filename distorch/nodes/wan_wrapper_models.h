#pragma once
#include "distorch/nodes/model_cache.h"
#include "distorch/nodes/wan_wrapper.h"

/// How the wrapper's choices for a model are carried out here.
namespace distorch::nodes::wan_wrapper {

/// The name of ModelCache::diffusion() for a choice of "quantization". Files that are packed stay
/// as they are, with a warning where the choice says otherwise.
std::string weight_dtype_of(const std::filesystem::path& file, const std::string& quantization);

/// The model computing in a type by the wrapper's name, "fp32", "bf16" or another for float16.
std::shared_ptr<LoadedDiffusion> in_precision(const std::shared_ptr<LoadedDiffusion>& loaded,
                                              const std::string& precision, ModelCache& models);

/// Opens the model that file, weight_dtype, precision, compute, swap and offload describe, and says
/// where its weights are to rest. LoRAs that are there stay. Error(Format) naming the file where it
/// holds no Wan model; Error(Usage) where both a swap and an offload are there.
void open(WanModel& model, ModelCache& models);

/// Adds LoRAs behind those that are there; they are applied beside the weights, which stay as they
/// are. Errors: add_lora() (loaders.h).
void add_loras(WanModel& model, const LoraChoices& choices, ModelCache& models);

/// The autoencoder computing in float32, whatever the device likes best.
Vae in_float32(const Vae& vae, const streaming::PlacementRequest& placement,
               streaming::Engine& engine);

/// UMT5. Error(Format) naming the file where it holds another encoder.
Clip open_text(const std::filesystem::path& file, const streaming::PlacementRequest& placement,
               ModelCache& models);

/// The expert string that lets as many bytes rest on the swap's device as the last `swap.blocks`
/// layers have; the plan spreads them over the steps. "" where nothing is to be moved, or there is
/// nowhere to move it to.
std::string allocation_of(const streaming::StreamedModel& weights, const BlockSwap& swap,
                          const streaming::Engine& engine);

}  // namespace distorch::nodes::wan_wrapper
