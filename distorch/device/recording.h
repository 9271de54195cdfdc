#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

namespace distorch::device {

/// The operations of a function on one accelerator, recorded once, started again as a whole: the
/// host issues one thing instead of a thousand. They read and write the memory that they used while
/// being recorded, so whatever the function reads must stay where it is; what it returned is
/// overwritten by each replay. The memory of everything in between stays reserved.
class Recording {
 public:
  virtual ~Recording() = default;
  /// Starts the operations on the device's current stream.
  virtual void replay() = 0;
  /// What the function returned; holds the values of the last replay.
  const at::Tensor& result() const { return result_; }

 protected:
  at::Tensor result_;
};

/// Records `body`, which must have run once before (libraries choose their kernels then), must not
/// wait for the device and must use this device alone. Gives cached memory back first; waits for
/// the device. `beside`: a recording of which no two replays overlap with this one's: they share
/// their memory. Null where the kind of device cannot record or this body cannot be recorded (the
/// log says why); the device works on as before.
std::unique_ptr<Recording> record(c10::Device device, const std::function<at::Tensor()>& body,
                                  const Recording* beside = nullptr);

}  // namespace distorch::device
