#include "distorch/nodes/two_models.h"

#include <fmt/format.h>

#include "distorch/base/error.h"

namespace distorch::nodes {

using at::Tensor;
using sampling::ModelInput;
using sampling::ModelInputs;

namespace {

/// Which model an item's inputs are for: a number by which those of both never share a call.
constexpr const char* kWhich = "of the negative model";

bool is_negative(const ModelInputs& inputs) {
  auto which = inputs.find(kWhich);
  return which != inputs.end() && which->second.number == 1.0;
}

}  // namespace

void prepare_both(streaming::Engine& engine, SampledModel& positive, SampledModel& negative,
                  const RunShape& positive_shape, const RunShape& negative_shape) {
  const auto& first = positive.value();
  const auto& second = negative.value();
  const bool same = first.loaded->weights == second.loaded->weights;
  if (same && first.loras != second.loras)
    throw Error(ErrorKind::Usage, second.loaded->weights->options().name,
                "is both models of the guider, with different LoRAs: the same weights cannot be "
                "in place twice; give both the same LoRAs, or the negative a file of its own");
  auto wanted = positive.wanted(engine, positive_shape);
  if (positive.device() != negative.device()) {
    positive.hold(engine.prepare(wanted));
    return negative.prepare(engine, negative_shape);
  }
  auto more = negative.wanted(engine, negative_shape);
  if (same) more.erase(more.begin());
  const auto count = static_cast<std::ptrdiff_t>(wanted.size());
  wanted.insert(wanted.end(), more.begin(), more.end());
  auto uses = engine.prepare(wanted);
  auto middle = std::make_move_iterator(uses.begin() + count);
  positive.hold({std::make_move_iterator(uses.begin()), middle});
  negative.hold({middle, std::make_move_iterator(uses.end())});
}

Tensor TwoModels::apply(const Tensor& x, const Tensor& sigma, const sampling::BatchedInputs& inputs,
                        const sampling::CallFacts& facts) {
  auto own = inputs;
  own.erase(kWhich);
  if (!is_negative(inputs)) return positive_.apply(x, sigma, own, facts);
  for (auto& [name, input] : own)
    if (input.value.defined()) input.value = input.value.to(negative_.device());
  auto result = negative_.apply(x.to(negative_.device()), sigma.to(negative_.device()), own, facts);
  return result.to(x.device());
}

ModelInputs TwoModels::encode(const sampling::ConditioningItem& item,
                              const sampling::EncodeContext& context) const {
  auto inputs = (context.positive ? positive_ : negative_).encode(item, context);
  inputs[kWhich] = {ModelInput::Kind::Constant, {}, context.positive ? 0.0 : 1.0};
  return inputs;
}

bool TwoModels::fits(at::IntArrayRef x_shape, const std::vector<const ModelInputs*>& inputs) const {
  const auto& model = is_negative(*inputs.front()) ? negative_ : positive_;
  return model.fits(x_shape, inputs);
}

}  // namespace distorch::nodes
