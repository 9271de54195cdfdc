#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

namespace distorch::device {

/// The operations of a function on one accelerator, recorded once, started again as a whole: the
/// host issues a few things instead of a thousand. They read and write the memory that they used
/// while being recorded, so whatever the function reads must stay where it is; what it returned is
/// overwritten by each replay. The memory of everything in between stays reserved.
class Recording {
 public:
  virtual ~Recording() = default;
  /// Starts the operations on the device's current stream and does what was given to aside() in
  /// between, on the host. What that throws ends the replay.
  virtual void replay() = 0;
  /// What the function returned; holds the values of the last replay, at first of the recorded run.
  const at::Tensor& result() const { return result_; }

 protected:
  at::Tensor result_;
};

/// Runs `body` and records what it does. It must have run once before (libraries choose their
/// kernels then), must not wait for the device and must use this device alone, but for what it
/// gives to aside(). `beside`: a recording of which no two replays overlap with this one's: they
/// share their memory. Null where the kind of device cannot record or this body cannot be recorded
/// (the log says why): it is then to be run again, and the device works on as before. An Error of
/// the body is thrown on.
std::unique_ptr<Recording> record(c10::Device device, const std::function<at::Tensor()>& body,
                                  const Recording* beside = nullptr);

/// Does `action`. Where this thread is recording, it is not part of what is recorded, but done
/// again at the same point of each replay: copies on other streams, what waits for them,
/// bookkeeping of the host. It issues operations after those that came before, and sees as current
/// the stream on which they run.
void aside(const std::function<void()>& action);

/// Whether this thread is recording: then nothing may wait for the device or give memory back.
bool recording();

}  // namespace distorch::device
