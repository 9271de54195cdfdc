#pragma once
#include <chrono>
#include <functional>
#include <string>

namespace distorch::server {

/// A body that is made while it is sent (server-sent events). Belongs to one answer; destroyed with
/// its connection.
class BodyStream {
 public:
  struct Piece {
    std::string text;  // to be sent now; may be empty
    bool ended = false;
    /// Where nothing is sent: how long until next() is to be asked again, unless it is woken.
    std::chrono::milliseconds again_in{15'000};
  };
  virtual ~BodyStream() = default;
  /// What there is to send. On a thread of the handlers, one call after the other; must not wait for
  /// anything to happen.
  virtual Piece next() = 0;
  /// `wake` is to be called, from any thread, whenever next() has something new. It stays callable
  /// after the connection is gone.
  virtual void wake_with(std::function<void()> wake) = 0;
};

}  // namespace distorch::server
