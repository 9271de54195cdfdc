#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

namespace distorch::server {

/// One message of a web socket, shared by all that it goes to.
struct Frame {
  std::shared_ptr<const std::string> bytes;
  bool is_text = true;
  /// A preview (the number of its kind): a newer one of the kind takes its place, and it goes first
  /// where a client reads too slowly. 0 for what must arrive.
  std::uint32_t preview = 0;
};

struct OutboxLimits {
  std::size_t bytes = 32u << 20;
  std::size_t frames = 8192;
};

/// What waits for one client, in its order. Not for several threads.
class Outbox {
 public:
  explicit Outbox(OutboxLimits limits = {}) : limits_(limits) {}

  /// False where the client is so slow that what must arrive has no room: give it up.
  bool push(Frame frame);
  /// The next one, or nothing.
  std::optional<Frame> pop();
  std::size_t bytes() const { return bytes_; }
  std::size_t frames() const { return waiting_.size(); }

 private:
  void drop_previews(std::uint32_t kind);
  bool is_full() const { return bytes_ > limits_.bytes || waiting_.size() > limits_.frames; }

  OutboxLimits limits_;
  std::deque<Frame> waiting_;
  std::size_t bytes_ = 0;
};

}  // namespace distorch::server
