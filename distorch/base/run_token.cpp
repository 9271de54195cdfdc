#include "distorch/base/run_token.h"

#include <utility>

#include "distorch/base/error.h"

namespace distorch {

namespace {
thread_local std::shared_ptr<RunToken> current;
}  // namespace

void RunToken::set_deadline(Clock::time_point when) noexcept {
  deadline_.store(when.time_since_epoch().count(), std::memory_order_relaxed);
}

void RunToken::throw_if_stopped() const {
  if (interrupted()) throw Error(ErrorKind::Interrupted, "", "interrupted");
  auto deadline = deadline_.load(std::memory_order_relaxed);
  if (deadline != Clock::duration::max().count() &&
      Clock::now().time_since_epoch().count() > deadline)
    throw Error(ErrorKind::Interrupted, "", "took longer than it was given");
}

RunScope::RunScope(std::shared_ptr<RunToken> token)
    : before_(std::exchange(current, std::move(token))) {}
RunScope::~RunScope() { current = std::move(before_); }

std::shared_ptr<RunToken> current_run() { return current; }

void throw_if_interrupted() {
  if (current) current->throw_if_stopped();
}

}  // namespace distorch
