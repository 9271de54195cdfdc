#pragma once
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/device/device.h"
#include "distorch/graph/call.h"
#include "distorch/streaming/engine.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

/// Plans one call of a network of one tensor (ids, or numbers in float32), whose weights are in place
/// for as long as the result lives.
template <class Loaded, class Forward>
streaming::Engine::Use plan_call(graph::Call& call, Loaded& loaded, const at::Tensor& input,
                                 const Forward& forward) {
  const auto dtype =
      at::isIntegralType(input.scalar_type(), false) ? input.scalar_type() : at::kFloat;
  streaming::RunNeeds needs;
  needs.key = fmt::format("forward {}", fmt::join(input.sizes(), "x"));
  needs.profile = [&](const RigDevice& compute) {
    auto fresh = loaded.make();
    return streaming::profile_model(
        *loaded.weights, fresh->manifest(), compute, [&](at::Device device) {
          forward(*fresh,
                  at::empty(input.sizes(), at::TensorOptions().device(device).dtype(dtype)));
        });
  };
  return call.context<streaming::Engine>().prepare(loaded.weights, needs);
}

/// One call of a network of one tensor: planned, then computed on its device. What is empty where only
/// plans are wanted.
template <class Loaded, class Forward>
auto run_network(graph::Call& call, Loaded& loaded, const at::Tensor& input, Forward forward) {
  auto use = plan_call(call, loaded, input, forward);
  if (call.context<streaming::Engine>().plan_only())
    return decltype(forward(*loaded.network, input)){};
  auto device = device::to_torch(loaded.weights->options().compute);
  return forward(*loaded.network, input.to(device));
}

}  // namespace distorch::nodes
