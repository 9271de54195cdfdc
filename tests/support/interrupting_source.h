#pragma once
#include "distorch/base/run_token.h"
#include "distorch/streaming/streamed_model.h"

namespace distorch::test {

/// Stands in front of a model: counts its blocks, and interrupts the calling thread's run while the
/// one of number `stop_in` (counted over all steps) computes.
struct InterruptingSource final : weights::WeightSource {
  InterruptingSource(streaming::StreamedModel& streamed, int stop)
      : model(streamed), stop_in(stop) {
    model.manifest().attach(this);
  }
  ~InterruptingSource() override { model.manifest().attach(&model); }
  weights::Tensors run(int block, const weights::Tensors& inputs,
                       const weights::Body& body) override {
    return model.run(block, inputs, [&](const weights::Tensors& in) {
      if (begun++ == stop_in) current_run()->interrupt();
      auto results = body(in);
      ++ended;
      return results;
    });
  }
  streaming::StreamedModel& model;
  int stop_in;
  int begun = 0, ended = 0;
};

}  // namespace distorch::test
