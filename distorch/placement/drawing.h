#pragma once
#include <string>

#include "distorch/placement/timeline.h"

namespace distorch::placement {

/// The bars of a report as an SVG picture: one lane per compute device that works, per link and for
/// activations, time from left to right, the steps marked. Without bars (report with recorded = 0)
/// the lanes are empty.
std::string draw_svg(const Model& model, const Report& report);

}  // namespace distorch::placement
