#pragma once
#include <ATen/core/Tensor.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "distorch/convert/output.h"

namespace distorch::convert {

/// Writes in a thread of its own, so that the next piece is packed meanwhile. Some megabytes may
/// wait; then write() waits. An error of the disk comes out of the next call.
class WriteBehind {
 public:
  explicit WriteBehind(Output& output);
  /// Drops what has not been written.
  ~WriteBehind();
  WriteBehind(const WriteBehind&) = delete;
  WriteBehind& operator=(const WriteBehind&) = delete;

  /// The tensor's bytes, which nobody changes from now on, to this place of the file.
  void write(std::int64_t offset, at::Tensor bytes);
  /// Returns when all has been written.
  void finish();

 private:
  struct Piece {
    std::int64_t offset = 0;
    at::Tensor bytes;
  };
  void run();
  void throw_error() const;  // where there is one; with the lock

  Output& output_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Piece> waiting_;
  std::size_t waiting_bytes_ = 0;  // of those that wait and of the one being written
  std::exception_ptr error_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace distorch::convert
