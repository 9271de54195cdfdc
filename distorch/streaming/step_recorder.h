#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/device/recording.h"

namespace distorch::streaming {

/// Thrown within a replay (device::aside) where what the recording reads no longer lies where it
/// lay.
class Moved : public Error {
 public:
  Moved(std::string where, const std::string& what)
      : Error(ErrorKind::Internal, std::move(where), what) {}
};

/// Runs a model's whole step as a recording (device/recording.h) from the second time on: where
/// launching thousands of small operations takes longer than the device needs for them, this is
/// what makes it fast. Same kernels, same bits.
class StepRecorder {
 public:
  /// Undefined inputs stay undefined.
  using Tensors = std::vector<at::Tensor>;
  using Forward = std::function<at::Tensor(const Tensors&)>;

  explicit StepRecorder(c10::Device device);

  /// The result of `forward(inputs)`. For every shape of inputs and `state` (what else the
  /// addresses that a step uses depend on) the first call runs it as it is, the second records it;
  /// later ones copy the inputs to where the recording reads them and replay. `forward` must do the
  /// same operations for inputs of the same shapes. A recording whose replay ends with Moved is
  /// forgotten, and the step is run as it is.
  at::Tensor run(const Tensors& inputs, const Forward& forward, const std::string& state);
  /// Seconds of a device between two moments of its current stream, asked for once they are over.
  struct Timer {
    virtual ~Timer() = default;
    virtual void start() = 0;
    virtual void stop() = 0;
    virtual std::optional<double> seconds() = 0;  // nothing while the device is not past them
  };
  /// Whether both ways are timed from now on, twice each before and after recording, and the shorter
  /// one is kept: where copies hold a step up, recorded ones are not always faster. What was found
  /// stays when recordings go, until forget(). Without timers (nothing for most kinds of devices)
  /// steps are recorded.
  void compare(bool wanted) { compares_ = wanted; }
  void time_with(std::function<std::unique_ptr<Timer>()> make_timer) {
    make_timer_ = std::move(make_timer);
  }
  void forget() { trials_.clear(); }
  /// Memory of the device that recordings keep, bytes.
  std::int64_t held_bytes() const;
  /// How often a step was recorded, or could not be.
  int recorded() const { return recorded_; }
  /// Forgets all recordings: when weights move, patches change, or memory is short.
  void clear();

 private:
  /// The memory that recordings made beside one another share; it goes with the last of them.
  struct Pool {
    std::int64_t bytes = 0;
  };
  struct Step {
    std::string key;
    bool refused = false;
    Tensors inputs;
    std::unique_ptr<device::Recording> recording;
    std::shared_ptr<Pool> pool;
  };
  /// What is known of the two ways for inputs of some shapes.
  struct Trial {
    std::vector<double> issued_s, recorded_s;
    std::vector<std::unique_ptr<Timer>> issued, recorded;  // not read yet
    std::optional<bool> records;                           // once it is decided
  };
  at::Tensor timed(std::vector<std::unique_ptr<Timer>>& timers,
                   const std::function<at::Tensor()>& action);
  static void decide(Trial& trial);
  std::shared_ptr<Step> step_for(const std::string& key, bool& is_new);
  void record(Step& step, const Tensors& inputs, const Forward& forward);
  bool replay(Step& step, const Tensors& inputs);

  c10::Device device_;
  bool compares_ = false;
  int recorded_ = 0;
  std::function<std::unique_ptr<Timer>()> make_timer_;
  std::map<std::string, Trial> trials_;     // by shapes of inputs
  std::list<std::shared_ptr<Step>> steps_;  // last used first; one that runs may be cleared
};

}  // namespace distorch::streaming
