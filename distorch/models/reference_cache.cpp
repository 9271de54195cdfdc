#include "distorch/models/reference_cache.h"

#include <c10/util/accumulate.h>

namespace distorch::models {

using at::Tensor;

namespace {

std::int64_t prediction_bytes(at::IntArrayRef x) {
  return c10::multiply_integers(x) * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace

KeptStep split_kept(const Tensor& packed, at::IntArrayRef x) {
  auto size = prediction_bytes(x), rest = packed.size(0) - size;
  return {packed.narrow(0, rest, size).view(at::kFloat).view(x), packed.narrow(0, 0, rest)};
}

KeptReferences::KeptReferences(std::int64_t pieces, at::IntArrayRef shape,
                               const at::TensorOptions& options, at::IntArrayRef x) {
  auto all = shape.vec();
  all.insert(all.begin(), pieces);
  auto size = c10::multiply_integers(all) * static_cast<std::int64_t>(options.dtype().itemsize());
  bytes_ = at::empty({size + prediction_bytes(x)}, options.dtype(at::kByte));
  pieces_ = bytes_.narrow(0, 0, size).view(at::typeMetaToScalarType(options.dtype())).view(all);
  prediction_ = bytes_.narrow(0, size, prediction_bytes(x)).view(at::kFloat).view(x);
}

void KeptReferences::keep(std::int64_t piece, const Tensor& value) {
  pieces_.select(0, piece).copy_(value);
}

Tensor KeptReferences::packed(const Tensor& prediction) {
  prediction_.copy_(prediction);
  return bytes_;
}

}  // namespace distorch::models
