#pragma once
#include <exception>
#include <string>
#include <utility>

#include "distorch/base/error.h"

namespace distorch::media::ffmpeg {

/// "Invalid data found ...", with what FFmpeg logged on this thread since forget_messages().
std::string text_of(int code);
/// FFmpeg's messages of errors are kept for text_of() and not printed.
void keep_messages();
void forget_messages();

/// What a callback threw while FFmpeg ran: it must not pass FFmpeg's functions, so it waits here.
class Pending {
 public:
  /// Does `work`; what it throws is kept, and -1 returned.
  template <class Work>
  std::int64_t guard(Work work) noexcept {
    try {
      return work();
    } catch (...) {
      if (!thrown_) thrown_ = std::current_exception();
      return -1;
    }
  }
  void rethrow() {
    if (auto thrown = std::exchange(thrown_, nullptr)) std::rethrow_exception(thrown);
  }

 private:
  std::exception_ptr thrown_;
};

}  // namespace distorch::media::ffmpeg
