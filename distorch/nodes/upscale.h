#pragma once
#include "distorch/models/upscale/upscale.h"
#include "distorch/nodes/values.h"
#include "distorch/streaming/engine.h"

namespace distorch::nodes {

using LoadedUpscale = Loaded<models::upscale::UpscaleNetwork>;

/// What travels over links of type UPSCALE_MODEL.
struct UpscaleModel {
  std::shared_ptr<LoadedUpscale> loaded;
};

/// Called after each tile with the number done and the number in all.
using UpscaleProgress = std::function<void(std::int64_t done, std::int64_t total)>;

/// An IMAGE [B, H, W, C] enlarged, in tiles of 512 pixels that overlap by 32, or smaller ones (down
/// to 128) where memory runs out. Float32 0..1 on the CPU. Source: ComfyUI
/// comfy_extras/nodes_upscale_model.py.
at::Tensor upscale_image(const UpscaleModel& model, streaming::Engine& engine,
                         const at::Tensor& image, const UpscaleProgress& progress = nullptr);

}  // namespace distorch::nodes
