#include "distorch/device/thread_state.h"

#include <c10/core/InferenceMode.h>

#include "distorch/base/run_token.h"
#include "distorch/device/sim/sim.h"

namespace distorch::device {

struct ThreadState::Captured {
  std::shared_ptr<sim::Machine> machine;
  bool inference = false;
  std::shared_ptr<RunToken> run;
};

struct ThreadState::Scope::Entered {
  explicit Entered(const Captured& state)
      : machine(state.machine), inference(state.inference), run(state.run) {}
  sim::JoinScope machine;
  c10::InferenceMode inference;
  RunScope run;
};

ThreadState ThreadState::capture() {
  ThreadState state;
  state.captured_ = std::make_shared<const Captured>(
      Captured{sim::current_machine(), c10::InferenceMode::is_enabled(), current_run()});
  return state;
}

ThreadState::Scope::Scope(const ThreadState& state)
    : entered_(std::make_unique<Entered>(*state.captured_)) {}

ThreadState::Scope::~Scope() = default;

}  // namespace distorch::device
