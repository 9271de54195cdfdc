#pragma once
#include <memory>
#include <optional>
#include <string>

#include "distorch/nodes/model_cache.h"

namespace distorch::nodes {

/// What else a model does with the same weights, and with some beside them.
struct ModelChange {
  std::string key;                               // tells changes apart
  std::shared_ptr<const models::Family> family;  // in place of its own; null: that
  std::optional<at::ScalarType> dtype;           // that it computes in; nothing: as before
  /// The family's tensors where it has more than the model; nothing: the model's.
  std::optional<weights::Checkpoint> tensors = {};
};

/// The model so changed, open beside the other one: it shares the file, and rests and streams on its
/// own.
std::shared_ptr<LoadedDiffusion> changed_model(const LoadedDiffusion& model,
                                               const ModelChange& change,
                                               streaming::Engine& engine);

}  // namespace distorch::nodes
