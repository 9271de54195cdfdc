#pragma once
#include <string>
#include <vector>

#include "distorch/streaming/engine.h"
#include "distorch/streaming/streamed_model.h"

namespace distorch::nodes {

/// Layers of a model that do not stay on the device that computes.
struct SwappedLayers {
  std::vector<int> blocks;  // of the weights' manifest; a layer may be several
  std::size_t count = 0;    // layers
  std::size_t of = 0;       // layers that the model has
  std::string device = "cpu";
};

/// The expert string that lets as many bytes rest elsewhere as these layers have; the plan spreads
/// them over the steps. "" where nothing is to be moved, or there is nowhere to move it to. The log
/// says what it comes to.
std::string allocation_of(const streaming::StreamedModel& weights, const SwappedLayers& layers,
                          const streaming::Engine& engine);

/// Weights stay on `compute` but for so many bytes.
std::string expert_string(const std::string& compute, const std::string& device,
                          std::int64_t bytes);

}  // namespace distorch::nodes
