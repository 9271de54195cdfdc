#pragma once
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/device/device.h"
#include "distorch/graph/call.h"
#include "distorch/streaming/engine.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

/// One call of a network of one tensor: planned, then computed on its device.
template <class Loaded, class Forward>
auto run_network(graph::Call& call, Loaded& loaded, const at::Tensor& input, Forward forward) {
  auto& engine = call.context<streaming::Engine>();
  streaming::RunNeeds needs;
  needs.key = fmt::format("forward {}", fmt::join(input.sizes(), "x"));
  needs.profile = [&](const RigDevice& compute) {
    auto fresh = loaded.make();
    return streaming::profile_model(
        *loaded.weights, fresh->manifest(), compute, [&](at::Device device) {
          forward(*fresh,
                  at::empty(input.sizes(), at::TensorOptions().device(device).dtype(at::kFloat)));
        });
  };
  auto use = engine.prepare(loaded.weights, needs);
  auto device = device::to_torch(loaded.weights->options().compute);
  return forward(*loaded.network, input.to(device));
}

}  // namespace distorch::nodes
