#pragma once
#include <memory>
#include <string>

#include "distorch/graph/events.h"
#include "distorch/nodes/settings.h"

namespace distorch::cli {

enum class Reporting {
  Bar,   // a progress bar with ETA on standard error where that is a terminal, one line a node
         // elsewhere
  Json,  // every event as one JSON line on standard output
  Quiet  // only what was written, and errors
};

/// Shows a run. The names of pictures written go to standard output, one a line (Bar and Quiet);
/// everything else to standard error. `prompt` gives the nodes' titles.
std::unique_ptr<graph::EventSink> make_reporter(Reporting reporting, graph::Json prompt,
                                                const nodes::Settings& settings);

/// "[#####.....]  8/20  1.21 s/it, 14.5 s left": one line of a bar, `width` characters between the
/// brackets.
std::string format_bar(double value, double max, double elapsed_s, int width);

}  // namespace distorch::cli
