#include "distorch/models/clip/recipes.h"

#include "distorch/models/clip/encoder.h"

namespace distorch::models::clip {

using weights::Checkpoint;

namespace {

TextStates side_by_side(const std::vector<TextStates>& each) {
  const auto &l = each.at(0), &g = each.at(1);
  auto tokens = std::min(l.states.size(1), g.states.size(1));
  return {at::cat({l.states.narrow(1, 0, tokens), g.states.narrow(1, 0, tokens)}, -1), g.pooled};
}

std::vector<std::string> first_prefixes(const std::string& name) {
  return {"lora_te_", "lora_te1_", "text_encoder.", "text_encoders." + name + ".transformer."};
}

}  // namespace

TextRecipe single_recipe(const Checkpoint& part, TextKind kind) {
  if (part.empty()) return {};
  switch (kind) {
    case TextKind::ClipL:
      return {{text_part_of("clip_l", part, kind, {}, first_prefixes("clip_l"))}};
    case TextKind::ClipH:
      return {{text_part_of("clip_h", part, kind, {.layer = -2}, first_prefixes("clip_h"))}};
    case TextKind::ClipG: break;
  }
  return {{text_part_of(
      "clip_g", part, kind, {.layer = -2, .normalize = false},
      {"lora_te_", "lora_prior_te_", "text_encoder.", "text_encoders.clip_g.transformer."})}};
}

TextRecipe sdxl_recipe(const Checkpoint& clip_l, const Checkpoint& clip_g) {
  if (clip_l.empty() || clip_g.empty()) return {};
  const EncoderUse use{.layer = -2, .normalize = false};
  return {{text_part_of("clip_l", clip_l, TextKind::ClipL, use, first_prefixes("clip_l")),
           text_part_of("clip_g", clip_g, TextKind::ClipG, use,
                        {"lora_te2_", "text_encoder_2.", "text_encoders.clip_g.transformer."})},
          side_by_side};
}

Checkpoint find(const Checkpoint& file, TextKind kind) {
  auto part = text_part(file);
  return !part.empty() && detect_text_kind(part) == kind ? part : Checkpoint{};
}

}  // namespace distorch::models::clip
