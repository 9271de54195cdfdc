#pragma once
#include "distorch/weights/manifest.h"

namespace distorch::models {

/// A block in which two kinds of tokens attend together, as three weights::Blocks that run one after
/// the other: what modulates the tokens, attention, the MLPs. Of its numbers, 36 · width^2 in FLUX.1
/// and Qwen-Image, 12, 8 and 16 have to be there at a time.
struct JointParts {
  /// `place`: where its weights are, "double_blocks.0"; the block of attention has that name.
  /// `modulated`: whether it has numbers of its own for that; else nothing may use `modulation`.
  JointParts(const weights::Scope& place, bool modulated)
      // In this order: blocks are declared as they run.
      : modulation_scope(modulated ? place.block(place.prefix() + ".modulation") : place),
        attention_scope(place.block()),
        mlp_scope(place.block(place.prefix() + ".mlp")),
        modulation(modulation_scope),
        attention(attention_scope),
        mlp(mlp_scope) {}

  weights::Scope modulation_scope, attention_scope, mlp_scope;
  weights::Block modulation, attention, mlp;
};

}  // namespace distorch::models
