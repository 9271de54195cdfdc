#include "distorch/models/token_table.h"

#include "distorch/base/error.h"

namespace distorch::models {

using at::Tensor;
using weights::Tensors;

TokenTable::TokenTable(const weights::Scope& scope, std::int64_t count, std::int64_t width)
    : block_(scope), table_(scope, count, width), width_(width) {}

Tensor TokenTable::rows(const Tensor& ids, const std::vector<Replacement>& replacements) const {
  std::vector<std::int64_t> places;
  Tensors inputs = {ids}, vectors;
  for (const auto& r : replacements) {
    if (r.vector.numel() != width_)
      throw Error(ErrorKind::Shape, "embedding",
                  "has " + std::to_string(r.vector.numel()) +
                      " numbers a token, this text encoder needs " + std::to_string(width_));
    places.push_back(r.row * ids.size(1) + r.column);
    vectors.push_back(r.vector.reshape({width_}).to(ids.device(), at::kFloat));
  }
  if (!places.empty()) {
    inputs.push_back(at::tensor(places, at::kLong).to(ids.device()));
    inputs.push_back(at::stack(vectors));
  }
  return block_.run1(inputs, [this](const Tensors& in) {
    auto x = table_(in[0]).to(at::kFloat);
    return in.size() < 2 ? x : x.flatten(0, 1).index_copy(0, in[1], in[2]).view(x.sizes());
  });
}

}  // namespace distorch::models
