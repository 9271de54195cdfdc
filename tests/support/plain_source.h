#pragma once
#include <functional>

#include "distorch/weights/checkpoint.h"

namespace distorch::test {

/// Holds every weight of a model in one dtype on one device and runs blocks in place: the simplest
/// source there is, to compare others with.
class PlainSource : public weights::WeightSource {
 public:
  PlainSource(weights::Manifest& manifest, const weights::Checkpoint& checkpoint,
              at::ScalarType dtype, at::Device device = at::kCPU)
      : PlainSource(manifest, [&](const weights::Declared& weight) {
          const auto* stored = checkpoint.find(weight.name);
          return stored ? weights::read_dense(*stored, dtype).to(device) : at::Tensor();
        }) {}
  /// Weights by name, for made-up numbers.
  PlainSource(weights::Manifest& manifest,
              const std::function<at::Tensor(const weights::Declared&)>& make) {
    for (std::size_t i = 0; i < manifest.weights().size(); ++i)
      manifest.slot(i).value = make(manifest.weights()[i]);
    manifest.attach(this);
  }
  weights::Tensors run(int /*block*/, const weights::Tensors& inputs,
                       const weights::Body& body) override {
    return body(inputs);
  }
};

}  // namespace distorch::test
