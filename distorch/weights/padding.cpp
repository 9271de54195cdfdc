#include "distorch/weights/padding.h"

#include <algorithm>

#include "distorch/base/align.h"
#include "distorch/quant/encoding.h"

namespace distorch::weights {
namespace {

/// Whether a weight of the declared shape, filled up to whole multiples, has the stored one.
bool is_padded(const Stored& stored, const std::vector<std::int64_t>& declared) {
  if (!stored.encoding || stored.shape == declared || stored.shape.size() != declared.size())
    return false;
  const auto multiple = stored.encoding->padding();
  return multiple > 1 && std::equal(declared.begin(), declared.end(), stored.shape.begin(),
                                    [&](std::int64_t own, std::int64_t filled) {
                                      return align_up(own, multiple) == filled;
                                    });
}

}  // namespace

Checkpoint without_padding(const Manifest& manifest, Checkpoint checkpoint) {
  for (const auto& weight : manifest.weights()) {
    const auto* stored = checkpoint.find(weight.name);
    if (!stored || !is_padded(*stored, weight.shape)) continue;
    auto rest = *stored;
    if (rest.value_shape.empty()) rest.value_shape = rest.shape;
    rest.shape = weight.shape;
    rest.shape[0] = stored->shape[0];
    checkpoint.add_rows(weight.name, rest, 0, weight.shape[0]);
  }
  return checkpoint;
}

}  // namespace distorch::weights
