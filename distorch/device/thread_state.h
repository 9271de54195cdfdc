#pragma once
#include <memory>

namespace distorch::device {

/// What a thread hands on to threads that work for it: the run that it works for, the simulated
/// machine that its sim devices are, and whether it is in inference mode. Capture it where the work is given, enter it where the
/// work is done; whatever else workers should inherit from those that start them belongs here.
/// Streams and the current device are not inherited: each thread begins with its default ones.
class ThreadState {
 public:
  /// That of the calling thread.
  static ThreadState capture();

  /// Makes it the calling thread's for as long as this object lives.
  class Scope {
   public:
    explicit Scope(const ThreadState& state);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    struct Entered;
    std::unique_ptr<Entered> entered_;
  };

 private:
  struct Captured;
  std::shared_ptr<const Captured> captured_;
};

}  // namespace distorch::device
