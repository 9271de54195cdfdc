#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "distorch/graph/catalog.h"
#include "distorch/nodes/app.h"
#include "distorch/nodes/values.h"

/// XLabs' nodes for FLUX.1: ControlNets, LoRAs and IP-Adapters of their files (folders xlabs/loras,
/// xlabs/controlnets and xlabs/ipadapters), and the sampler that these go with.
namespace distorch::nodes {

inline constexpr const char* kXlabsModule = "custom_nodes.x-flux-comfyui";
inline constexpr const char* kXlabsCategory = "XLabsNodes";

/// What travels over links of type FluxControlNet.
struct XlabsControlNet {
  std::shared_ptr<LoadedControl> loaded;
};

/// One use of such a network. A list of them travels over links of type ControlNetCondition.
struct XlabsControl {
  XlabsControlNet net;
  at::Tensor image;  // [B, H, W, 3] 0..1 on the CPU
  double strength = 1.0;
  // Parts of the run that it counts in: 0 the first step, 1 the last.
  double start = 0.0, end = 1.0;
};

/// An input that need not be linked, as XLabs' nodes declare one.
graph::Input xlabs_optional(std::string name, std::string type);

/// A picture [H, W, 3] 0..1 as CLIP's image processor of transformers makes it: 8 bits, the shorter
/// side `size` (bicubic), cut around the middle, normalised. [1, 3, size, size] float32.
at::Tensor clip_processor_pixels(const at::Tensor& picture, std::int64_t size);

/// xlabs_loaders.cpp, xlabs_sampler.cpp, xlabs_prompts.cpp.
void add_xlabs_loader_nodes(graph::Catalog& catalog, App& app);
void add_xlabs_sampler_node(graph::Catalog& catalog);
void add_xlabs_prompt_nodes(graph::Catalog& catalog, App& app);

}  // namespace distorch::nodes
