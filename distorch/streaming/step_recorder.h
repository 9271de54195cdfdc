#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "distorch/device/recording.h"

namespace distorch::streaming {

/// Runs a model's whole step as one recording (device/recording.h) from the second time on, copies
/// of streamed weights included: where launching thousands of small operations takes longer than
/// the device needs for them, this is what makes it fast. Same kernels, same bits.
class StepRecorder {
 public:
  /// Undefined inputs stay undefined.
  using Tensors = std::vector<at::Tensor>;
  using Forward = std::function<at::Tensor(const Tensors&)>;

  /// What else than inputs a step depends on and changes: where the rings stand.
  class State {
   public:
    virtual ~State() = default;
    virtual std::string key() const = 0;
    /// Around every step; `recording` tells whether it is one that is recorded.
    virtual void begin(bool recording) = 0;
    virtual void end(bool recording) = 0;
    /// The device's stream waits for whatever is still on its way to the rings.
    virtual void settle() = 0;
    /// A function that brings the rings back to where they stand now.
    virtual std::function<void()> keep() const = 0;
  };

  explicit StepRecorder(c10::Device device) : device_(device) {}

  /// The result of `forward(inputs)`. For every shape of inputs and state the first call runs it as
  /// it is, the second records it; later ones copy the inputs to where the recording reads them and
  /// replay. `forward` must do the same operations for inputs of the same shapes; `state` must
  /// outlive this object's recordings.
  at::Tensor run(const Tensors& inputs, const Forward& forward, State& state);
  /// Memory of the device that recordings keep, bytes.
  std::int64_t held_bytes() const { return held_bytes_; }
  /// Forgets all recordings: when weights move, patches change, or memory is short.
  void clear();

 private:
  struct Step {
    std::string key;
    bool refused = false;
    Tensors inputs;
    std::unique_ptr<device::Recording> recording;
    std::function<void()> after;  // sets the state as the step leaves it
  };
  Step& step_for(const std::string& key, bool& is_new);
  void record(Step& step, const Tensors& inputs, const Forward& forward, State& state);

  c10::Device device_;
  std::list<Step> steps_;  // last used first; recordings know their addresses
  std::int64_t held_bytes_ = 0;
};

}  // namespace distorch::streaming
