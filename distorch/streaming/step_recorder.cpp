#include "distorch/streaming/step_recorder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "distorch/base/interrupt.h"
#include "distorch/device/memory.h"

namespace distorch::streaming {

namespace {

/// Cond and uncond may come one by one or together, a prompt may be edited, a ring may alternate.
constexpr std::size_t most_steps = 6;

std::string key_of(const StepRecorder::Tensors& inputs) {
  std::string key;
  for (const auto& input : inputs)
    key += input.defined()
               ? fmt::format("{} {} {};", fmt::join(input.sizes(), "x"),
                             fmt::join(input.strides(), ","), c10::toString(input.scalar_type()))
               : "-;";
  return key;
}

}  // namespace

StepRecorder::Step& StepRecorder::step_for(const std::string& key, bool& is_new) {
  auto at =
      std::find_if(steps_.begin(), steps_.end(), [&](const Step& step) { return step.key == key; });
  is_new = at == steps_.end();
  if (is_new) {
    if (steps_.size() == most_steps) steps_.pop_back();
    steps_.push_front({key, false, {}, nullptr});
  } else {
    steps_.splice(steps_.begin(), steps_, at);
  }
  return steps_.front();
}

void StepRecorder::record(Step& step, const Tensors& inputs, const Forward& forward) {
  const device::Recording* beside = nullptr;
  for (const auto& other : steps_)
    if (other.recording) beside = other.recording.get();
  device::empty_cache(device_);
  auto reserved = device::memory_use(device_).reserved;
  step.inputs.clear();
  for (const auto& input : inputs) step.inputs.push_back(input.defined() ? input.clone() : input);
  step.recording =
      device::record(device_, [&step, forward] { return forward(step.inputs); }, beside);
  step.refused = !step.recording;
  if (step.refused) step.inputs.clear();
  device::empty_cache(device_);
  held_bytes_ += std::max<std::int64_t>(0, device::memory_use(device_).reserved - reserved);
}

at::Tensor StepRecorder::run(const Tensors& inputs, const Forward& forward,
                             const std::string& state) {
  bool is_new = false;
  auto& step = step_for(key_of(inputs) + state, is_new);
  if (is_new || step.refused) return forward(inputs);
  throw_if_interrupted();
  if (!step.recording) {
    record(step, inputs, forward);
    if (step.refused) return forward(inputs);
  } else {
    for (std::size_t i = 0; i < inputs.size(); ++i)
      if (inputs[i].defined()) step.inputs[i].copy_(inputs[i], true);
    step.recording->replay();
  }
  return step.recording->result().clone();
}

void StepRecorder::clear() {
  steps_.clear();
  held_bytes_ = 0;
}

}  // namespace distorch::streaming
