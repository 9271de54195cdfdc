#include "distorch/streaming/step_recorder.h"

#include <c10/core/Event.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "distorch/base/log.h"
#include "distorch/base/run_token.h"
#include "distorch/device/memory.h"
#include "distorch/device/streams.h"

namespace distorch::streaming {

namespace {

/// Cond and uncond may come one by one or together, a prompt may be edited, a ring may alternate.
constexpr std::size_t most_steps = 6;
constexpr std::size_t kTimed = 2;  // steps of either way that are timed

/// Events of the device's current stream.
class EventTimer final : public StepRecorder::Timer {
 public:
  explicit EventTimer(c10::Device device)
      : device_(device),
        begin_(device.type(), c10::EventFlag::BACKEND_DEFAULT),
        end_(device.type(), c10::EventFlag::BACKEND_DEFAULT) {}
  void start() override { begin_.record(device::current_stream(device_)); }
  void stop() override { end_.record(device::current_stream(device_)); }
  std::optional<double> seconds() override {
    if (!end_.query()) return std::nullopt;
    return begin_.elapsedTime(end_) / 1e3;
  }

 private:
  c10::Device device_;
  c10::Event begin_, end_;
};

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

StepRecorder::StepRecorder(c10::Device device) : device_(device) {
  if (device.is_cuda())
    make_timer_ = [device]() -> std::unique_ptr<Timer> {
      return std::make_unique<EventTimer>(device);
    };
}

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
  ++recorded_;
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
  const auto shapes = key_of(inputs);
  auto step = step_for(shapes + state, is_new);
  if (step->refused) return forward(inputs);
  const bool seen = trials_.count(shapes) > 0;
  auto* trial = compares_ && make_timer_ ? &trials_[shapes] : nullptr;
  const auto times_issued = [&] {
    return trial && !trial->records && trial->issued_s.size() + trial->issued.size() < kTimed;
  };
  // The very first step of these shapes loads kernels: it tells nothing about the others.
  if (is_new)
    return seen && times_issued() ? timed(trial->issued, [&] { return forward(inputs); })
                                  : forward(inputs);
  throw_if_interrupted();
  if (trial) {
    decide(*trial);
    if (trial->records == false) {
      *step = Step{step->key, true, {}, nullptr, nullptr};
      return forward(inputs);
    }
    if (times_issued()) return timed(trial->issued, [&] { return forward(inputs); });
  }
  if (!step->recording) {
    record(*step, inputs, forward);
    if (step->refused) return forward(inputs);
    return step->recording->result().clone();
  }
  const auto replayed = [&] {
    if (replay(*step, inputs)) return step->recording->result().clone();
    steps_.remove(step);
    return forward(inputs);
  };
  if (trial && !trial->records) return timed(trial->recorded, replayed);
  return replayed();
}

at::Tensor StepRecorder::timed(std::vector<std::unique_ptr<Timer>>& timers,
                               const std::function<at::Tensor()>& action) {
  auto timer = make_timer_();
  timer->start();
  auto result = action();
  timer->stop();
  timers.push_back(std::move(timer));
  return result;
}

/// Reads the timers that are over; decides once both ways have been timed often enough.
void StepRecorder::decide(Trial& trial) {
  const auto read = [](auto& timers, std::vector<double>& seconds) {
    std::erase_if(timers, [&](auto& timer) {
      const auto passed = timer->seconds();
      if (passed) seconds.push_back(*passed);
      return passed.has_value();
    });
  };
  read(trial.issued, trial.issued_s);
  read(trial.recorded, trial.recorded_s);
  if (trial.records || trial.issued_s.size() < kTimed || trial.recorded_s.size() < kTimed) return;
  const auto issued = *std::min_element(trial.issued_s.begin(), trial.issued_s.end());
  const auto recorded = *std::min_element(trial.recorded_s.begin(), trial.recorded_s.end());
  trial.records = recorded <= issued;
  log::debug("a step takes {:.4g} s recorded, {:.4g} s issued", recorded, issued);
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
