#pragma once
#include <string>

#include "distorch/weights/checkpoint.h"

namespace distorch::models {

/// One dimension of a tensor, for configurations that are read off shapes. Errors:
/// Error(MissingWeight) where there is no such tensor, Error(Shape) naming it where it has not that
/// dimension or none of it.
std::int64_t size_of(const weights::Checkpoint& checkpoint, const std::string& name,
                     std::size_t dim);

/// The first number of a small tensor; `otherwise` where there is no such tensor. Error(Shape)
/// naming it where it holds no number.
double number_in(const weights::Checkpoint& checkpoint, const std::string& name, double otherwise);

}  // namespace distorch::models
