#pragma once
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "distorch/cli/prompt_time.h"
#include "distorch/graph/events.h"
#include "distorch/server/placement_routes.h"
#include "distorch/streaming/engine.h"
#include "distorch/streaming/engine_watch.h"

namespace distorch::cli {

/// Tells the page where models rest while they are placed and steps run: joins what the engine says
/// with the events of the run. Steps are told twice a second at most, changes of models at once.
class PlacementReports final : public streaming::EngineObserver {
 public:
  /// One at a time. `messages`: the way to the page; must outlive it.
  PlacementReports(streaming::Engine& engine, server::Messages& messages);
  ~PlacementReports() override;
  PlacementReports(const PlacementReports&) = delete;
  PlacementReports& operator=(const PlacementReports&) = delete;

  server::PlacementFeed& feed() { return feed_; }
  void changed(const streaming::EngineEvent& event) override;
  /// Something ended: the last word, whatever was told just before.
  void settle();
  /// What a prompt will take, which runs or will run; kept of the newest few.
  void expect(const std::string& prompt_id, NodeSeconds seconds);

  /// Passes a run's events on, and notes from them how far it is.
  class Run final : public graph::EventSink {
   public:
    Run(PlacementReports* reports, graph::EventSink& sink, const graph::Json& prompt,
        const std::vector<std::string>& outputs);
    ~Run() override;
    void send(const graph::Event& event) override;

   private:
    PlacementReports* reports_;  // null: events are only passed on
    graph::EventSink& sink_;
    const graph::Json& prompt_;
  };

 private:
  using Clock = std::chrono::steady_clock;
  /// How far the node is that runs.
  struct Progress {
    std::string prompt_id, node, type;
    double value = 0, most = 0;
    double step_s = 0;  // measured; 0 before the second step
    std::optional<Clock::time_point> last_step;
  };
  void note(const graph::Event& event, const graph::Json& prompt);
  void tell(Clock::duration pause);
  server::Json now() const;
  server::Json devices(const streaming::EngineState& state) const;
  server::Json links(const streaming::EngineState& state) const;
  server::Json run(const streaming::EngineState& state) const;
  server::Json left_of_prompt(std::optional<double> running_s) const;

  const placement::System system_;  // budgets of all devices
  server::PlacementFeed feed_;
  mutable std::mutex mutex_;
  std::optional<Progress> progress_;
  std::optional<PromptTime> time_;                             // of the prompt that runs
  std::vector<std::pair<std::string, NodeSeconds>> expected_;  // the newest last
  Clock::time_point told_{};
  // Bytes of links when their speed was looked at last, and what it was.
  mutable std::map<std::string, std::int64_t> carried_;
  mutable std::map<std::string, double> speeds_;
  mutable Clock::time_point looked_{};
};

}  // namespace distorch::cli
