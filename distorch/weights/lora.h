#pragma once
#include <map>
#include <string>
#include <vector>

#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

namespace distorch::weights {

/// A patch for the declared weight of that name; tensors on the CPU as the file has them.
struct NamedPatch {
  std::string weight;
  Patch patch;  // scale = alpha / rank (1 where the file has no alpha)
};

struct LoraFile {
  std::vector<NamedPatch> patches;
  std::vector<std::string> unknown;  // tensors that no known weight wants
};

/// Matches a LoRA file with a model. `names` maps a base name as LoRA files write it
/// ("lora_unet_..._to_q", "unet.down_blocks.0...to_q") to a declared weight. Understood per base
/// name:
///   .lora_up/.lora_down[/.lora_mid].weight with .alpha (kohya), _lora.up/_lora.down.weight,
///   .lora.up/.lora.down.weight, .lora_A/.lora_B[.default][.weight],
///   .lora_linear_layer.up/.down.weight (diffusers, peft), .diff and .diff_b.
/// Source of the spellings: ComfyUI comfy/weight_adapter/lora.py and comfy/lora.py.
/// Errors: Error(Format) for files with DoRA scales or other adapters that would change the picture
/// if left out.
LoraFile match_lora(const Checkpoint& file, const std::map<std::string, std::string>& names);

/// The patch shaped for a weight of `shape` (a linear layer's factors may be stored as 1x1
/// convolutions and the other way round), with its scale multiplied by `strength`, in `dtype` on
/// `device`. Error(Shape) naming the weight.
Patch fit_patch(const NamedPatch& named, const std::vector<std::int64_t>& shape, double strength,
                at::ScalarType dtype, at::Device device);

}  // namespace distorch::weights
