#pragma once
#include <string>
#include <vector>

#include "distorch/weights/manifest.h"
#include "tools/make_random_model/kinds.h"

namespace distorch::random_model {

using Shapes = std::vector<Shape>;

/// What a model declares, below a prefix.
inline Shapes declared(const weights::Manifest& manifest, const std::string& prefix = "") {
  Shapes shapes;
  for (const auto& weight : manifest.weights())
    shapes.push_back({prefix + weight.name, weight.shape});
  return shapes;
}

inline Shapes operator+(Shapes first, const Shapes& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

}  // namespace distorch::random_model
