#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "tools/make_random_model/kinds.h"

namespace distorch::random_model {

struct WriteOptions {
  Size size = Size::Full;
  /// Of the matrices, as headers of safetensors files name it; everything else stays in the kind's
  /// own where this is an 8-bit type. Nothing: the kind's own for all. Of .gguf files the type of
  /// their blocks (write_gguf.h).
  std::optional<std::string> dtype;
  bool scaled = false;  // each 8-bit matrix with a scale beside it ("scale_weight")
  bool empty = false;   // holes in place of numbers: headers for planning, no room on the disk
  std::uint64_t seed = 0;
};

/// Writes the file, GGUF where it is called so, with numbers that depend on the seed and each tensor's name alone; layers keep
/// the spread of what goes through them. Errors: Usage for a dtype that is none, and those of
/// write_safetensors.
void write_model(const std::filesystem::path& path, const Kind& kind, const WriteOptions& options);

}  // namespace distorch::random_model
