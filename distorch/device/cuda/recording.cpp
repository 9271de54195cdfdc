#include "distorch/device/cuda/recording.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <fmt/format.h>

#include <atomic>
#include <map>
#include <optional>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/device/cuda/libraries.h"
#include "distorch/device/kind.h"
#include "distorch/device/memory.h"
#include "distorch/device/streams.h"

namespace distorch::device::cuda {
namespace {

// The stream that records, one per device and thread: libraries keep a workspace for each stream
// that they have worked on. Nobody else has it: what another thread issues on a stream that is being
// recorded becomes part of the recording.
c10::Stream recording_stream(c10::Device device) {
  thread_local std::map<int, c10::Stream> streams;
  auto at = streams.find(device.index());
  if (at == streams.end())
    at = streams.emplace(device.index(), module().new_stream(/*high_priority=*/true)).first;
  return at->second;
}

// Stretches that are recorded now, by any thread.
std::atomic<int> captures{0};

// While it lives, what this thread issues goes to the stream that records.
class Capture {
 public:
  explicit Capture(const c10::Stream& stream) : on_stream_(stream) { ++captures; }
  ~Capture() { --captures; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

 private:
  c10::StreamGuard on_stream_;
};

// A stretch in which nothing was issued is no mistake.
class Silence final : public c10::WarningHandler {
 public:
  void process(const c10::Warning&) override {}
};

class GraphRecording final : public Recording, public Recorder {
 public:
  GraphRecording(c10::Device device, const GraphRecording* beside)
      : device_(device), stream_(recording_stream(device)) {
    if (beside) pool_ = beside->pool_;
  }
  /// Replays may still run, on a stream that the memory they work in is not known to belong to: an
  /// allocator that gives pieces of its memory back waits for that stream only.
  ~GraphRecording() override {
    result_ = at::Tensor();
    try {
      if (replayed_) replayed_->synchronize();
    } catch (const std::exception& error) {
      log::debug("a recorded step was given up on a device that has failed: {}",
                 sentence_of(error));
    }
  }

  /// Does what `body` does, and keeps it.
  void record(const std::function<at::Tensor()>& body) {
    RecorderScope scope(*this);
    std::exception_ptr failure;
    try {
      begin();
      result_ = body();
    } catch (...) {
      failure = std::current_exception();
    }
    try {
      if (capture_) end(!failure);
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
    if (failure) std::rethrow_exception(failure);
  }

  void aside(const std::function<void()>& action) override {
    if (!capture_) return action();  // recording has failed: what cleans up is still to be done
    end(true);
    segments_.back().then = action;
    action();
    begin();
  }

  void replay() override {
    c10::DeviceGuard guard(device_);
    try {
      for (auto& part : segments_) {
        if (part.something) part.graph->replay();
        if (part.then) part.then();
      }
    } catch (...) {
      mark_replayed();  // what came before is on its way
      throw;
    }
    mark_replayed();
  }

 private:
  struct Segment {
    std::unique_ptr<Graph> graph;
    bool something = false;
    std::function<void()> then;
  };

  void begin() {
    segments_.push_back({module().graph(), false, {}});
    auto& graph = *segments_.back().graph;
    capture_.emplace(stream_);  // the default stream cannot be recorded
    try {
      graph.begin(pool_);
    } catch (...) {
      capture_.reset();
      throw;
    }
  }

  // Whether operations were issued since begin(); true where the driver cannot tell.
  bool something_issued() const {
    if (!driver().capture_info) return true;
    int status = 0;
    std::uint64_t id = 0;
    void* graph = nullptr;
    const void* last = nullptr;
    std::size_t count = 0;
    return driver().capture_info(module().stream(stream_), &status, &id, &graph, &last, &count) !=
               0 ||
           count > 0;
  }

  void end(bool do_it) {
    auto& part = segments_.back();
    part.something = something_issued();
    try {
      static Silence silence;
      c10::WarningUtils::WarningHandlerGuard quiet(&silence);
      part.graph->end();
    } catch (...) {
      capture_.reset();
      throw;
    }
    capture_.reset();
    pool_ = part.graph->pool();  // known from here on; the same for all stretches
    if (!do_it || !part.something) return;
    part.graph->replay();
    mark_replayed();
  }

  // Not the whole device is waited for: another thread may be recording there.
  void mark_replayed() {
    if (!replayed_) replayed_.emplace(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
    replayed_->record(current_stream(device_));
  }

  c10::Device device_;
  c10::Stream stream_;
  std::optional<Capture> capture_;  // while operations are recorded
  Graph::Pool pool_{0, 0};
  std::vector<Segment> segments_;
  std::optional<c10::Event> replayed_;  // what was replayed last
};

}  // namespace

bool is_recording() { return captures > 0; }

std::unique_ptr<Recording> record(c10::Device device, const std::function<at::Tensor()>& body,
                                  const Recording* beside) {
  c10::DeviceGuard guard(device);
  std::unique_ptr<GraphRecording> recording;
  try {
    recording =
        std::make_unique<GraphRecording>(device, static_cast<const GraphRecording*>(beside));
    recording->record(body);
  } catch (const Error& error) {
    module().forget_error();
    throw;  // what the body itself finds wrong
  } catch (const std::exception& error) {
    module().forget_error();
    const auto why =
        fmt::format("a step could not be recorded and is issued operation by operation: {}",
                    sentence_of(error));
    // On a full device that is no fault: the weights need the room more.
    if (is_out_of_memory(error))
      log::debug("{}", why);
    else
      log::warn_once(why);
    return nullptr;
  }
  return recording;
}

}  // namespace distorch::device::cuda
