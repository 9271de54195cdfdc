#pragma once
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace distorch::streaming {

/// Collects what ran when: compute, copies, waits, each on its lane. While one lives, it is the
/// process's trace (Trace::current()); without one nothing is recorded and nothing is paid.
class Trace {
 public:
  Trace();
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;
  static Trace* current();

  /// Work of the host between two moments of host_now().
  void host_span(const std::string& lane, const std::string& name, double start_s, double end_s);
  static double host_now();

  /// Work of a stream: from the point that open() marks to the one that close() marks. On the CPU
  /// the host's time counts; devices that log their work themselves (device/work_log.h) are asked for it at the end.
  std::size_t open(const std::string& lane, const std::string& name, const c10::Stream& stream);
  void close(std::size_t span, const c10::Stream& stream);

  /// Chrome's trace format (open it in Perfetto or chrome://tracing). Waits for devices that still
  /// work.
  std::string to_json();

 private:
  struct Span {
    std::string lane, name;
    double start_s = 0, end_s = 0;
    std::optional<c10::Event> begin, end;
  };
  struct Origin {
    c10::Event event;
    double host_s;
  };
  std::mutex mutex_;
  std::deque<Span> spans_;
  std::map<c10::Device, Origin, bool (*)(const c10::Device&, const c10::Device&)> origins_;
};

/// A span for as long as it lives; nothing where no trace is on.
class Traced {
 public:
  Traced(const std::string& lane, const std::string& name, const c10::Stream& stream);
  ~Traced();
  Traced(const Traced&) = delete;
  Traced& operator=(const Traced&) = delete;

 private:
  Trace* trace_;
  std::size_t span_ = 0;
  c10::Stream stream_;
};

}  // namespace distorch::streaming
