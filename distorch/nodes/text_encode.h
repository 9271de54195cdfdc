#pragma once
#include <map>
#include <string>

#include "distorch/graph/call.h"
#include "distorch/nodes/model_cache.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

/// Prompts by encoder: `all` for those that `by_encoder` ("clip_l", "t5xxl") does not name.
struct Prompts {
  models::Prompt all;
  std::map<std::string, models::Prompt> by_encoder;
  const models::Prompt& of(const std::string& encoder) const;
};

/// The CLIP at an input. Error(Usage) where the checkpoint that it comes from has no text encoder.
const Clip& text_encoders_of(const graph::Call& call, const std::string& input);

/// Prompts as one conditioning, all on the CPU in float32: every encoder of the clip makes its
/// states, and they are joined as the model wants them. A prompt of fewer chunks than another
/// encoder's is filled up with empty ones. "embedding:NAME" takes NAME from the model folder
/// "embeddings"; one of another width is left out with a warning. Source: ComfyUI comfy/sd.py, CLIP,
/// and comfy_extras/nodes_clip_sdxl.py.
sampling::Conditioning encode_prompts(const Clip& clip, const Prompts& prompts, ModelCache& models);

/// The states of tokens that are made already, float32 on the CPU; where only plans are wanted zeros
/// of their sizes.
models::TextStates encode_tokens(LoadedEncoder& encoder, const models::TokenBatch& batch,
                                 streaming::Engine& engine);

/// The vectors [rows, width] of a textual inversion file; undefined where there is no such file or
/// it cannot be used. `key` is preferred among its tensors.
at::Tensor load_embedding(const std::string& name, const std::string& key, ModelCache& models);

}  // namespace distorch::nodes
