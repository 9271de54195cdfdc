#pragma once
#include <functional>
#include <set>
#include <string>

#include "distorch/models/network.h"
#include "distorch/nodes/values.h"
#include "distorch/sampling/guidance.h"

namespace distorch::nodes {

/// What a run of a diffusion model will look like, known before its first step.
struct RunShape {
  std::vector<std::int64_t> latent;  // [B, C, h, w] or [B, C, T, h, w]
  int steps = 1;
  double cfg = 1;  // 1: the negative is not asked for
  const sampling::Conditioning& positive;
  const sampling::Conditioning& negative;
  const sampling::Conditioning* third = nullptr;  // of guiders over three
  int at_once = 1;  // calls that conditionings are shared out over (team.h)
};

/// The largest call that a run will make of its network: told by what its conditionings are encoded
/// to, so that every input (reference pictures, tokens) has the size that it will have.
struct PlannedCall {
  models::CallSizes sizes;
  models::KnownInputs known;
  /// How many such calls a step makes, of those that run at once the most on one device.
  std::int64_t calls = 1;
  /// The same text for calls of the same inputs and sizes.
  std::string key() const;
};

/// The inputs that a conditioning is encoded to; tensors may be without data.
using Encode = std::function<sampling::ModelInputs(const sampling::ConditioningItem&,
                                                   const sampling::EncodeContext&)>;

/// Conditionings share a call, one of every kind at a time, where their inputs allow it; else the call is planned
/// for one that has the largest of every input.
PlannedCall plan_call(const models::InputSpecs& specs, const RunShape& shape, const Encode& encode);

}  // namespace distorch::nodes
