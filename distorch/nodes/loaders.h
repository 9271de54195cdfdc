#pragma once
#include "distorch/graph/catalog.h"
#include "distorch/nodes/app.h"
#include "distorch/nodes/values.h"

/// What the loaders of both files (loaders.cpp, multigpu.cpp) share.
namespace distorch::nodes {

/// "cpu" and every accelerator that is there, as device lists show them.
graph::Choices device_choices();

/// Adds a node and its variant that takes a device, without those of DisTorch2.
void add_with_device(graph::Catalog& catalog, graph::NodeType node);

/// The files of a model folder type, with the folders for messages.
graph::Choices model_choices(App& app, const std::string& type);

/// Changes when one of the files that these inputs name is replaced: for NodeType::change_key, so
/// that a loader opens it again. `files` are pairs of a model folder type and an input.
std::function<std::optional<std::string>(const graph::Call&)> when_replaced(
    App& app, std::vector<std::pair<std::string, std::string>> files);

/// The placement that a loader's call asks for, from the inputs its variant adds: none (auto),
/// "device", or those of DisTorch2 ("compute_device" or "device", "virtual_vram_gb",
/// "donor_device", "expert_mode_allocations", "eject_models").
streaming::PlacementRequest placement_of(const graph::Call& call);
/// The DisTorch2 form from its parts; 0 GB, or a device as its own donor, without an expert string
/// is no wish at all.
streaming::PlacementRequest spread_request(const std::string& compute, double virtual_gb,
                                           const std::string& donors, const std::string& expert,
                                           bool eject);

/// Adds a loader and its device variants.
void add_placed_loader(graph::Catalog& catalog, graph::NodeType loader, bool text_encoder = false);
/// The check that takes devices which this machine lacks for inputs of these names: the engine
/// replaces them and says so (or refuses, where devices are strict).
graph::InputCheck any_device(std::vector<std::string> inputs);

/// MODEL of the file that "unet_name" names.
void load_unet(graph::Call& call, const std::string& weight_dtype);

/// Names of weight_dtype for ModelCache::diffusion() beside UNETLoader's: the numbers of GGUF blocks
/// are rounded to that type before they become what the model computes in. By default, where that
/// is float32, they are what ComfyUI-GGUF makes of them (models/gguf_names.h).
inline constexpr const char* kDecodedExactly = "decoded as float32";
inline constexpr const char* kDecodedAsHalf = "decoded as float16";
inline constexpr const char* kDecodedAsBFloat = "decoded as bfloat16";

/// Called by add_text_loader_nodes() (gguf_loaders.cpp).
void add_gguf_loader_nodes(graph::Catalog& catalog, App& app);

/// The types that CLIPLoader and DualCLIPLoader offer, GGUF loaders too.
std::vector<std::string> text_types();
std::vector<std::string> dual_text_types();

/// MODEL, CLIP and VAE of a checkpoint, each placed on its own.
struct CheckpointPlacement {
  streaming::PlacementRequest unet, text, vae;
};
void load_checkpoint(graph::Call& call, const CheckpointPlacement& placement);

}  // namespace distorch::nodes
