#pragma once
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "distorch/graph/catalog.h"
#include "distorch/graph/events.h"
#include "distorch/streaming/engine_watch.h"
#include "distorch/streaming/machine.h"

namespace distorch::cli {

/// One part of a run, in the order in which they begin.
struct WaterfallPart {
  std::string name;  // "text encoders", "weights", "first step", "steps", ...
  double seconds = 0;
  /// What the machine needs for it at least, and of what that is made; nothing where nobody knows.
  std::optional<double> limit_s;
  std::string limit;
};

/// Where the time to the first picture goes: told by the events of a run, on their way to `next`,
/// and by what the engine says of its models, whose predictions are the limits. One run at a time;
/// models that compute on another thread are not looked at.
class Waterfall final : public graph::EventSink, public streaming::EngineObserver {
 public:
  using Clock = std::chrono::steady_clock;

  /// `prompt` in API format. All must outlive it.
  Waterfall(const streaming::Machine& machine, const graph::Catalog& catalog,
            const graph::Json& prompt, graph::EventSink& next);
  ~Waterfall() override;

  /// A part that was over before the run began.
  void add(const std::string& name, double seconds);
  void send(const graph::Event& event) override;
  void changed(const streaming::EngineEvent& event) override;

  std::vector<WaterfallPart> parts() const;
  /// A table, one line a part, with the sum; `title` names the run.
  std::string text(const std::string& title) const;
  graph::Json json() const;

 private:
  /// What a node's time is counted as.
  std::string part_of(const std::string& node) const;
  void pass(const std::string& name, Clock::time_point now);
  WaterfallPart& part(const std::string& name);
  enum class Steps { First, Next, All };
  void limit_steps(const std::string& name, Steps which);

  const streaming::Machine& machine_;
  const graph::Catalog& catalog_;
  const graph::Json& prompt_;
  graph::EventSink& next_;
  mutable std::mutex mutex_;
  std::vector<WaterfallPart> parts_;
  std::string node_;              // that runs; "" between runs
  std::set<std::string> models_;  // that it has used
  std::thread::id thread_;        // that runs the nodes
  Clock::time_point mark_;        // what comes before is counted
  int steps_ = 0;                 // of the node so far
};

/// Seconds since this process was started, by the system's own account; 0 where it keeps none.
double seconds_since_start();

}  // namespace distorch::cli
