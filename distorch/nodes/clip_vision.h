#pragma once
#include "distorch/models/clip_vision/style_model.h"
#include "distorch/models/clip_vision/vision_model.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

using LoadedVision = Loaded<models::clip_vision::VisionModel>;
using LoadedStyle = Loaded<models::clip_vision::StyleNetwork>;

/// What travels over links of type CLIP_VISION.
struct ClipVision {
  std::shared_ptr<LoadedVision> loaded;
};

/// What travels over links of type STYLE_MODEL.
struct StyleModel {
  std::shared_ptr<LoadedStyle> loaded;
};

/// What travels over links of type CLIP_VISION_OUTPUT, on the CPU.
using VisionOutput = models::clip_vision::VisionStates;

}  // namespace distorch::nodes
