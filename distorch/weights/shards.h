#pragma once
#include <filesystem>
#include <memory>
#include <vector>

#include "distorch/weights/checkpoint.h"

namespace distorch::weights {

/// The files of the model that `file` is a part of, in order. A part is told by its name,
/// "NAME-00002-of-00005.safetensors"; the parts are those that "NAME.safetensors.index.json" beside
/// it lists, without an index as many as the name says. Of an index itself those that it lists. For
/// any other file: itself alone.
/// Error(Format) for an index that is broken or lists nothing.
/// Source: the layout in which the transformers and diffusers libraries save large models.
std::vector<std::filesystem::path> shards_of(const std::filesystem::path& file);

/// The same, and all of them are there: one Error(MissingFile) names every one that is not.
std::vector<std::filesystem::path> complete_shards_of(const std::filesystem::path& file);

/// The tensors of all files of one model; the first file is its path(). Error(Format) naming both
/// files where two hold the same name.
Checkpoint joined_shards(const std::vector<std::shared_ptr<const formats::TensorFile>>& files);

}  // namespace distorch::weights
