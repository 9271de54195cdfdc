#include "distorch/nodes/changed_model.h"

#include <fmt/format.h>

#include "distorch/nodes/stream_weights.h"

namespace distorch::nodes {

std::shared_ptr<LoadedDiffusion> changed_model(const LoadedDiffusion& model,
                                               const ModelChange& change,
                                               streaming::Engine& engine) {
  auto loaded = std::make_shared<LoadedDiffusion>();
  loaded->identity = fmt::format("{} of {}", change.key, model.identity);
  loaded->placement = model.placement;
  loaded->family = change.family ? change.family : model.family;
  loaded->sampling = model.sampling;
  loaded->lora_names = model.lora_names;
  loaded->file_guard = model.file_guard;
  loaded->make = [family = loaded->family] { return family->make_network(); };
  loaded->network = loaded->make();
  auto streamed = model.weights->options();
  streamed.dtype = change.dtype.value_or(streamed.dtype);
  constexpr bool many_steps = true;
  stream_weights(engine, *loaded, change.tensors.value_or(model.weights->checkpoint()), streamed,
                 loaded->placement, many_steps);
  return loaded;
}

}  // namespace distorch::nodes
