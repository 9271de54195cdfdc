#include "distorch/device/retry.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"

namespace distorch::device {

namespace {

using Stack = torch::jit::Stack;

// Torch keeps this one free for whoever wants to see every operation of a thread.
constexpr auto key = c10::DispatchKey::TESTING_ONLY_GenericMode;

thread_local RetryScope* innermost = nullptr;

}  // namespace

/// What the dispatcher calls in place of every operation while a scope with a function lives.
class Retry {
 public:
  static void operation(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
    const auto below = keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, key);
    if (!innermost || !innermost->make_room_) return op.redispatchBoxed(below, stack);
    const auto first = stack->size() - op.schema().arguments().size();
    const Stack arguments(stack->begin() + static_cast<std::ptrdiff_t>(first), stack->end());
    for (int attempt = 0;; ++attempt) {
      try {
        return op.redispatchBoxed(below, stack);
      } catch (const std::exception& error) {
        if (!is_out_of_memory(error)) throw;
        if (attempt >= attempts || !room_for(arguments, attempt)) give_up(op, arguments, error);
      }
      stack->resize(first);
      stack->insert(stack->end(), arguments.begin(), arguments.end());
    }
  }

  static void update_key() {
    c10::impl::tls_set_dispatch_key_included(key, innermost && innermost->make_room_);
  }

 private:
  static constexpr int attempts = 16;

  // The device that is asked for by name first, then those of the tensors, the host last.
  static std::vector<c10::Device> devices_of(const Stack& arguments) {
    std::vector<c10::Device> devices;
    auto add = [&](c10::Device device) {
      if (device.type() != c10::DeviceType::Meta &&
          std::find(devices.begin(), devices.end(), device) == devices.end())
        devices.push_back(device);
    };
    for (const auto& value : arguments)
      if (value.isDevice()) add(value.toDevice());
    for (const auto& value : arguments) {
      if (value.isTensor() && value.toTensor().defined()) add(value.toTensor().device());
      if (value.isTensorList())
        for (const auto& tensor : value.toTensorVector()) add(tensor.device());
    }
    std::stable_partition(devices.begin(), devices.end(),
                          [](c10::Device device) { return !device.is_cpu(); });
    if (devices.empty()) devices.emplace_back(c10::DeviceType::CPU);
    return devices;
  }

  static bool room_for(const Stack& arguments, int attempt) {
    const auto make_room = innermost->make_room_;
    RetryScope once;
    constexpr auto least = std::int64_t{64} << 20;
    const auto devices = devices_of(arguments);
    return std::any_of(devices.begin(), devices.end(),
                       [&](c10::Device device) { return make_room(device, least << attempt); });
  }

  [[noreturn]] static void give_up(const c10::OperatorHandle& op, const Stack& arguments,
                                   const std::exception& error) {
    if (dynamic_cast<const Error*>(&error)) throw;
    throw Error(ErrorKind::OutOfMemory, name_of(devices_of(arguments).front()),
                "what " + op.schema().name() +
                    " makes does not fit even with every weight moved out: " + sentence_of(error));
  }
};

RetryScope::RetryScope(MakeRoom make_room) : make_room_(std::move(make_room)), outer_(innermost) {
  // The library takes its function back when it is destroyed: it lives as long as the process.
  static auto* const library = [] {
    auto* all = new torch::Library(torch::Library::IMPL, "_", key, __FILE__, __LINE__);
    all->fallback(torch::CppFunction::makeFromBoxedFunction<&Retry::operation>());
    return all;
  }();
  (void)library;
  innermost = this;
  Retry::update_key();
}

RetryScope::~RetryScope() {
  innermost = outer_;
  Retry::update_key();
}

}  // namespace distorch::device
