#pragma once
#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "distorch/graph/events.h"

namespace distorch::cli {

/// Seconds that a plan gives to each node which it runs; nothing for a node that uses no model, or
/// one whose speed is not known: it may take no time, or long. Loading is in none of them.
using NodeSeconds = std::map<std::string, std::optional<double>>;

/// {"ID": seconds or null}, and back.
graph::Json as_json(const NodeSeconds& seconds);

/// Nodes of a prompt in API format that a run still needs for its outputs when the results of
/// `cached` are there, those of `outputs` included. Links that lead nowhere are left out.
std::set<std::string> nodes_to_run(const graph::Json& prompt,
                                   const std::vector<std::string>& outputs,
                                   const std::set<std::string>& cached);

/// How much of a running prompt is left, from its events and its plan. Not for several threads.
class PromptTime {
 public:
  using Clock = std::chrono::steady_clock;

  /// `outputs` are the nodes that the run is asked for.
  PromptTime(graph::Json prompt, std::vector<std::string> outputs);
  void note(const graph::Event& event);

  struct Left {
    std::optional<double> seconds;     // of those that the plan knows; nothing if it knows none
    std::size_t nodes = 0;             // that are to run, the running one included
    std::vector<std::string> unknown;  // those of them that are not in the seconds
  };
  /// `running_s`: what the node that runs still takes by its own steps, where that is known.
  Left left(const NodeSeconds& planned, std::optional<double> running_s,
            Clock::time_point now = Clock::now()) const;

 private:
  std::optional<double> left_of(const std::string& node, const std::optional<double>& planned,
                                std::optional<double> running_s, Clock::time_point now) const;

  const graph::Json prompt_;
  const std::vector<std::string> outputs_;
  std::set<std::string> needed_, finished_;
  std::string running_;
  std::map<std::string, Clock::time_point> began_;
};

}  // namespace distorch::cli
