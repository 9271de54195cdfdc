#pragma once
#include <string>

#include "distorch/nodes/model_cache.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

/// A prompt as one conditioning: cross_attn [1, 77 * chunks, width] and the pooled output of the
/// first chunk [1, width], both float32 on the CPU. Weights move each token's state away from that
/// of the empty prompt. All chunks and the empty prompt go through the text encoder in one pass
/// over its weights. "embedding:NAME" takes NAME from the model folder "embeddings"; one of another
/// width is left out with a warning. Source: ComfyUI comfy/sd1_clip.py, ClipTokenWeightEncoder and
/// SDClipModel.
sampling::Conditioning encode_prompt(const Clip& clip, const std::string& prompt,
                                     ModelCache& models);

/// The vectors [rows, width] of a textual inversion file; undefined where there is no such file or
/// it cannot be used. `key` is preferred among its tensors.
at::Tensor load_embedding(const std::string& name, const std::string& key, ModelCache& models);

}  // namespace distorch::nodes
