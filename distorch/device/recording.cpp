#include "distorch/device/recording.h"

#include <utility>

#include "distorch/device/kind.h"

namespace distorch::device {
namespace {

thread_local Recorder* current = nullptr;

}  // namespace

RecorderScope::RecorderScope(Recorder& recorder) : before_(std::exchange(current, &recorder)) {}
RecorderScope::~RecorderScope() { current = before_; }

std::unique_ptr<Recording> record(c10::Device device, const std::function<at::Tensor()>& body,
                                  const Recording* beside) {
  return kind_of(device.type()).record(device.index(), body, beside);
}

void aside(const std::function<void()>& action) {
  if (current)
    current->aside(action);
  else
    action();
}

bool recording() { return current != nullptr; }

}  // namespace distorch::device
