#pragma once
#include <nlohmann/json.hpp>

#include "distorch/weights/checkpoint.h"

namespace distorch::cli {

/// Reads all of a file's weights: for each {"name", "form", "shape", "bytes", "hash" (XXH3 of its
/// bytes and those of what explains them), "nan", "inf" (numbers of those, packed ones decoded)}, in
/// "weights"; in "hash" that of all names and hashes, in "faulty" the names of weights with NaN or
/// infinite numbers. Reads by pieces: memory does not depend on the file.
nlohmann::ordered_json verified(const weights::Checkpoint& file);

}  // namespace distorch::cli
