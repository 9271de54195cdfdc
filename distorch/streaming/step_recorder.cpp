#include "distorch/streaming/step_recorder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "distorch/base/log.h"
#include "distorch/base/run_token.h"
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

std::shared_ptr<StepRecorder::Step> StepRecorder::step_for(const std::string& key, bool& is_new) {
  auto at = std::find_if(steps_.begin(), steps_.end(),
                         [&](const auto& step) { return step->key == key; });
  is_new = at == steps_.end();
  if (is_new) {
    if (steps_.size() == most_steps) steps_.pop_back();
    steps_.push_front(std::make_shared<Step>(Step{key, false, {}, nullptr, nullptr}));
  } else {
    steps_.splice(steps_.begin(), steps_, at);
  }
  return steps_.front();
}

void StepRecorder::record(Step& step, const Tensors& inputs, const Forward& forward) {
  const device::Recording* beside = nullptr;
  auto pool = std::make_shared<Pool>();
  for (const auto& other : steps_)
    if (other->recording) {
      beside = other->recording.get();
      pool = other->pool;
    }
  device::empty_cache(device_);
  auto reserved = device::memory_use(device_).reserved;
  Tensors kept;
  for (const auto& input : inputs) kept.push_back(input.defined() ? input.clone() : input);
  auto recording = device::record(device_, [kept, forward] { return forward(kept); }, beside);
  step.refused = !recording;
  if (step.refused) return;
  step.inputs = std::move(kept);
  step.recording = std::move(recording);
  step.pool = std::move(pool);
  device::empty_cache(device_);
  step.pool->bytes += std::max<std::int64_t>(0, device::memory_use(device_).reserved - reserved);
}

/// False where the recording reads from where nothing lies any more.
bool StepRecorder::replay(Step& step, const Tensors& inputs) {
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].defined()) step.inputs[i].copy_(inputs[i], true);
  try {
    step.recording->replay();
    return true;
  } catch (const Moved& moved) {
    log::debug("a recorded step is given up: {}", moved.what());
    return false;
  }
}

at::Tensor StepRecorder::run(const Tensors& inputs, const Forward& forward,
                             const std::string& state) {
  bool is_new = false;
  auto step = step_for(key_of(inputs) + state, is_new);
  if (is_new || step->refused) return forward(inputs);
  throw_if_interrupted();
  if (!step->recording) {
    record(*step, inputs, forward);
    if (step->refused) return forward(inputs);
  } else if (!replay(*step, inputs)) {
    steps_.remove(step);
    return forward(inputs);
  }
  return step->recording->result().clone();
}

std::int64_t StepRecorder::held_bytes() const {
  std::set<const Pool*> pools;
  std::int64_t bytes = 0;
  for (const auto& step : steps_)
    if (step->pool && pools.insert(step->pool.get()).second) bytes += step->pool->bytes;
  return bytes;
}

void StepRecorder::clear() { steps_.clear(); }

}  // namespace distorch::streaming
