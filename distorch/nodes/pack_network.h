#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>

#include <array>
#include <functional>
#include <utility>
#include <vector>

#include "distorch/models/network.h"
#include "distorch/nodes/app.h"
#include "distorch/streaming/engine.h"

/// A video model as the sampler of a node pack calls it: with inputs of its own, and several passes
/// (prompts, guidance) in one call, so that one pass over the weights serves all.
namespace distorch::nodes {

/// What a call gives that keeps what its blocks add.
struct KeptCall {
  at::Tensor velocity;  // [B, C, T, h, w]
  at::Tensor change;    // [B, L, width]
};

/// What the engine has to know of a network for calls with such inputs. Shapes are enough: tensors may
/// be on the device "meta". `also`: what else the network does before its first call, without values.
streaming::Engine::Wanted wanted_for(
    Loaded<models::Network>& loaded, const models::Inputs& call, int steps,
    std::vector<streaming::LoraUse> loras = {},
    std::function<void(const models::Network&, at::Device)> also = {});

/// One step of a network that is in place; float32 or, of control networks, what they compute in.
at::Tensor run_step(Loaded<models::Network>& loaded, const models::Inputs& call,
                    const models::Patches& patches = {});

/// The model of a run, its weights in place for as long as this object lives.
class PackNetwork {
 public:
  PackNetwork(const Model& model, streaming::Engine& engine);

  /// Plans for a call with such inputs, among them "x" [B, C, T, h, w] and "context" [B, n, width],
  /// and brings the weights. Shapes are enough: tensors may be on the device "meta". `more`: networks
  /// that run within the steps of this one.
  void prepare(const models::Inputs& call, int steps,
               std::vector<streaming::Engine::Wanted> more = {});

  /// The network's result, float32.
  at::Tensor run(const models::Inputs& call, const models::Patches& patches);
  /// The same where the number `keep` asks for what the blocks of that width add.
  KeptCall run_kept(models::Inputs call, const models::Patches& patches, const char* keep,
                    std::int64_t width);

  at::Device device() const { return device_; }
  const LoadedDiffusion& loaded() const { return loaded_; }
  LoadedDiffusion& loaded() { return loaded_; }

 private:
  const Model& model_;
  streaming::Engine& engine_;
  LoadedDiffusion& loaded_;
  at::Device device_;
  std::vector<streaming::Engine::Use> uses_;
};

/// Inputs "x" and "timestep" of a call of so many passes over one latent x [1, C, T, h, w].
models::Inputs latent_inputs(const at::Tensor& x, float timestep, std::int64_t passes);

/// The network's inputs that the members of a pass fill, by name.
template <class Pass, std::size_t N>
using PassParts = std::array<std::pair<const char*, at::Tensor Pass::*>, N>;

/// What the passes have under each name, one behind the other; what none has is left out.
template <class Pass, std::size_t N>
void set_parts(models::Inputs& inputs, const std::vector<Pass>& passes,
               const PassParts<Pass, N>& parts, at::Device device) {
  for (const auto& [name, part] : parts) {
    std::vector<at::Tensor> all;
    for (const auto& pass : passes)
      if (const auto& one = pass.*part; one.defined()) all.push_back(one.to(device, at::kFloat));
    if (!all.empty()) inputs.set(name, at::cat(all));
  }
}

/// The passes' shapes, for a dry run.
template <class Pass, std::size_t N>
std::vector<Pass> shapes_of(std::vector<Pass> passes, const PassParts<Pass, N>& parts) {
  for (auto& pass : passes)
    for (const auto& [name, part] : parts)
      if ((pass.*part).defined()) pass.*part = (pass.*part).to(at::kMeta);
  return passes;
}

}  // namespace distorch::nodes
