#pragma once
#include <c10/core/Stream.h>

#include <memory>
#include <string>

namespace distorch::streaming {

class TraceSpans;

/// Collects what ran when: compute, copies, waits, each on its lane. While one lives, it is the
/// process's trace; without one nothing is recorded and nothing is paid.
class Trace {
 public:
  Trace();
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;
  static bool is_on();

  /// Chrome's trace format (open it in Perfetto or chrome://tracing). Waits for devices that still
  /// work; what has not ended yet is left out.
  std::string to_json();

 private:
  std::shared_ptr<TraceSpans> spans_;
};

/// A span for as long as it lives, on the trace that is on when it begins; nothing where none is.
/// Of a stream: from the point where it stands then to where it stands at the end. On the CPU the
/// host's time counts; devices that log their work themselves (device/work_log.h) are asked for it
/// at the end. The trace may end before it does: a worker may still fetch ahead.
class Traced {
 public:
  Traced(const std::string& lane, const std::string& name, const c10::Stream& stream);
  ~Traced();
  Traced(const Traced&) = delete;
  Traced& operator=(const Traced&) = delete;

 private:
  std::shared_ptr<TraceSpans> spans_;
  std::size_t span_ = 0;
  c10::Stream stream_;
};

}  // namespace distorch::streaming
