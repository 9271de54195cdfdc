#include "distorch/models/tensor_size.h"

#include <fmt/format.h>

#include "distorch/base/error.h"

namespace distorch::models {

std::int64_t size_of(const weights::Checkpoint& checkpoint, const std::string& name,
                     std::size_t dim) {
  const auto& shape = checkpoint.shape(name);
  if (dim < shape.size() && shape[dim] > 0) return shape[dim];
  throw Error(ErrorKind::Shape, checkpoint.path(),
              fmt::format("'{}' has not the {} dimensions it should have", name, dim + 1));
}

double number_in(const weights::Checkpoint& checkpoint, const std::string& name, double otherwise) {
  const auto* stored = checkpoint.find(name);
  if (!stored) return otherwise;
  auto numbers = weights::read_dense(*stored, at::kDouble).reshape({-1});
  if (numbers.numel() == 0)
    throw Error(ErrorKind::Shape, checkpoint.path(),
                fmt::format("'{}' should be a number and holds none", name));
  return numbers[0].item<double>();
}

}  // namespace distorch::models
