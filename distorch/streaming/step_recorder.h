#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "distorch/device/recording.h"

namespace distorch::streaming {

/// Runs a model's whole step as a recording (device/recording.h) from the second time on: where
/// launching thousands of small operations takes longer than the device needs for them, this is
/// what makes it fast. Same kernels, same bits.
class StepRecorder {
 public:
  /// Undefined inputs stay undefined.
  using Tensors = std::vector<at::Tensor>;
  using Forward = std::function<at::Tensor(const Tensors&)>;

  explicit StepRecorder(c10::Device device) : device_(device) {}

  /// The result of `forward(inputs)`. For every shape of inputs and `state` (what else the
  /// addresses that a step uses depend on) the first call runs it as it is, the second records it;
  /// later ones copy the inputs to where the recording reads them and replay. `forward` must do the
  /// same operations for inputs of the same shapes.
  at::Tensor run(const Tensors& inputs, const Forward& forward, const std::string& state);
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
  };
  Step& step_for(const std::string& key, bool& is_new);
  void record(Step& step, const Tensors& inputs, const Forward& forward);

  c10::Device device_;
  std::list<Step> steps_;  // last used first; recordings know their addresses
  std::int64_t held_bytes_ = 0;
};

}  // namespace distorch::streaming
