#pragma once
#include <string>
#include <vector>

#include "distorch/models/family.h"
#include "distorch/nodes/saved_weights.h"

/// What the tensors of whole checkpoints are called, so that ComfyUI and others find them. Source:
/// ComfyUI comfy/supported_models.py (process_..._for_saving) and comfy/diffusers_convert.py.
namespace distorch::nodes {

/// Where the parts of a family's checkpoints lie.
struct SavedLayout {
  std::string diffusion;  // prefix: "model.diffusion_model."
  std::string vae;        // prefix
  /// Where each text encoder lies, by its name ("clip_l"); others do not belong to this family.
  struct Text {
    std::string encoder, prefix;
    enum class Names {
      Transformers,  // "text_model.encoder.layers.0....", as CLIP-L has them
      OpenClip,      // "transformer.resblocks.0....", fused projections
      Own            // those of the encoder itself, whatever it is
    } names = Names::Own;
  };
  std::vector<Text> texts;  // empty: each below "text_encoders.NAME.transformer."
};

SavedLayout saved_layout(const models::Family& family);

/// The tensors of a text encoder below `prefix` under such names.
std::vector<SavedWeight> saved_text(const SavedModel& encoder, const std::string& prefix,
                                    SavedLayout::Text::Names names);

}  // namespace distorch::nodes
