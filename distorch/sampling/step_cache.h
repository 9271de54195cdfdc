#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "distorch/sampling/guidance_stages.h"
#include "distorch/sampling/model_sampling.h"

namespace distorch::sampling {

/// Leaves out computations whose result can be told from the one before: output = input + what was
/// the difference, as long as the change that adds up stays below a threshold. How much a change of
/// the input changes the output is measured whenever both are computed. One object serves one run.
/// Source: ComfyUI comfy_extras/nodes_easycache.py.
class StepCache {
 public:
  StepCache(const CachedSteps& settings, const ModelSampling& sampling);

  /// A new evaluation begins: what its first call decides holds for all its calls.
  void begin();
  /// compute() or what stands for it. x and the result have parts of equal size, one for each of
  /// `owners`, in their order; the first owner ever seen decides.
  at::Tensor through(const at::Tensor& x, float sigma, const std::vector<const void*>& owners,
                     const std::function<at::Tensor()>& compute);

  int skipped() const { return skipped_; }

 private:
  at::Tensor sample_of(const at::Tensor& x, const std::vector<const void*>& owners) const;
  std::optional<at::Tensor> reuse(const at::Tensor& x, const std::vector<const void*>& owners);
  bool little_changed(double input_change);
  void reset_unless_alike(const at::Tensor& x);
  void learn(const at::Tensor& x, const at::Tensor& output, const std::vector<const void*>& owners,
             std::optional<double> input_change);

  CachedSteps settings_;
  float start_, end_;
  bool skip_ = false;
  const void* first_ = nullptr;  // the owner that decides
  std::optional<double> rate_;   // output change for a unit of input change
  double added_up_ = 0;
  at::Tensor last_input_, last_output_;     // every eighth cell of the first owner's
  std::optional<double> last_output_norm_;  // mean of absolute values
  std::map<const void*, at::Tensor> differences_;
  std::optional<std::vector<std::int64_t>> shape_;  // of one picture
  int skipped_ = 0;
};

}  // namespace distorch::sampling
