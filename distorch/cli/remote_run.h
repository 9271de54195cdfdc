#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "distorch/cli/progress.h"
#include "distorch/graph/events.h"

namespace distorch::cli {

struct RemoteOptions {
  std::string server;  // http://host:8188
  std::string token;
  std::string output = "output";  // where pictures are stored here
  /// Changes the prompt before it is sent (--set).
  std::function<void(graph::Json&)> change;
  Reporting reporting = Reporting::Bar;
};

/// Runs a workflow on a server, shows its progress as if it ran here and brings what it saved into
/// the output folder. Returns the exit code. `text` and `where`: of the workflow's file. Ctrl-C stops
/// the prompt there.
int run_remotely(const RemoteOptions& options, const std::string& text, const std::string& where);

/// A message {"type", "data"} of a server as the event it tells of; nothing for others.
std::optional<graph::Event> event_of(const graph::Json& message);

}  // namespace distorch::cli
