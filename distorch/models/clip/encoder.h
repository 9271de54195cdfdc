#pragma once
#include <memory>

#include "distorch/models/clip/config.h"
#include "distorch/models/text_encoder.h"

namespace distorch::models::clip {

/// How a family uses one of these encoders.
struct EncoderUse {
  /// The layer that is taken where nobody asks for another: unset the last, -2 the one before it.
  std::optional<int> layer;
  /// Apply the final norm to an intermediate layer's states too.
  bool normalize = true;
  /// Multiply the pooled output by the projection, where the file has one.
  bool project_pooled = true;
};

/// A CLIP text encoder with its tokenizer. Weights move each place's state away from that of the
/// empty prompt; all chunks and the empty prompt go through in one pass over the weights.
/// Source: ComfyUI comfy/sd1_clip.py, ClipTokenWeightEncoder and SDClipModel.
std::unique_ptr<TextEncoder> make_encoder(const TextConfig& config, const EncoderUse& use,
                                          std::shared_ptr<Vocabularies> vocabularies);

/// An encoder as a part of a recipe. `lora_prefixes` stand before its names in LoRA files, those
/// that end with "_" before names with underscores, others before names with dots.
TextPart text_part_of(std::string name, const weights::Checkpoint& part, TextKind kind,
                      const EncoderUse& use, std::vector<std::string> lora_prefixes);

}  // namespace distorch::models::clip
