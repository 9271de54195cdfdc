#pragma once
#include <filesystem>

#include "distorch/nodes/model_cache.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

/// Adds the LoRA of a file to a model. Error(Format) or Error(Shape) naming both files where it
/// changes nothing there: it was made for another kind or size of model.
void add_lora(ModelCache& models, const std::filesystem::path& file, Model& model, double strength);
/// The same of tensors that are a part of a file; `key` tells them from any others.
void add_lora(const weights::Checkpoint& tensors, const std::string& key, Model& model,
              double strength);

}  // namespace distorch::nodes
