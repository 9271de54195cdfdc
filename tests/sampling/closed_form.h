#pragma once
#include <ATen/ATen.h>

#include <memory>
#include <vector>

#include "distorch/sampling/ksampler.h"

namespace distorch::test {

/// The denoiser of the parity dumps (tests/parity/README.md): x0 = tanh(0.8 x / sqrt(1 + sigma^2) +
/// c), with a constant c a channel, which is the prompt.
class ClosedForm : public sampling::X0Model {
 public:
  explicit ClosedForm(
      std::shared_ptr<const sampling::ModelSampling> sampling = sampling::discrete_sampling())
      : sampling_(std::move(sampling)) {}

  const sampling::ModelSampling& sampling() const override { return *sampling_; }
  at::Device device() const override { return at::kCPU; }
  at::Tensor apply(const at::Tensor& x, const at::Tensor& sigma,
                   const sampling::BatchedInputs& inputs, const sampling::CallFacts&) override {
    batches.push_back(x.size(0));
    const at::Tensor s = sigma.view({-1, 1, 1, 1});
    const at::Tensor c = inputs.at("c_crossattn").value.select(1, 0).unsqueeze(-1).unsqueeze(-1);
    return at::tanh(0.8 * x / (1.0 + s * s).sqrt() + c);
  }
  bool fits(at::IntArrayRef shape,
            const std::vector<const sampling::ModelInputs*>&) const override {
    return shape[0] <= largest_batch;
  }

  std::vector<std::int64_t> batches;  // rows of every call so far
  std::int64_t largest_batch = 1000;

 private:
  std::shared_ptr<const sampling::ModelSampling> sampling_;
};

inline sampling::Conditioning prompt(std::vector<float> constants) {
  sampling::ConditioningItem item;
  item.cross_attn = at::tensor(constants).view({1, 1, -1});
  return {item};
}
inline sampling::Conditioning positive() { return prompt({0.30f, -0.20f, 0.10f, 0.50f}); }
inline sampling::Conditioning negative() { return prompt({-0.10f, 0.15f, -0.30f, 0.05f}); }

}  // namespace distorch::test
