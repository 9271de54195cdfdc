#pragma once
#include <ATen/core/Tensor.h>

#include <list>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "distorch/models/modulated.h"
#include "distorch/nodes/planned_call.h"
#include "distorch/nodes/values.h"
#include "distorch/sampling/guidance.h"

namespace distorch::nodes {

/// What runs have made of a model's modulations (models/modulated.h), for the runs after them: another
/// seed of the same prompt needs none of the weights that make them. For whoever uses the model.
struct KeptModulations {
  /// Of a LoRA: which, and its strength. Does not keep it.
  using Lora = std::pair<std::weak_ptr<const void>, double>;
  /// Those of one conditioning.
  struct Told {
    std::vector<Lora> loras;
    std::int64_t batch = 0;
    std::string inputs;                       // the bytes of Modulated::modulating_inputs()
    std::map<float, at::Tensor> by_timestep;  // [numbers] on the CPU
    std::int64_t bytes() const;
  };
  std::list<std::shared_ptr<Told>> all;  // last used first
};

/// Gives the steps of a run their modulations, made for all its levels at the first of them.
class StepModulations {
 public:
  explicit StepModulations(const Model& model);

  /// Steps of this call will be given them: planned so, the weights that make them have no part in a
  /// step.
  void plan(PlannedCall& call);
  bool planned() const { return planned_; }
  /// The levels of the run that begins.
  void expect(const std::vector<float>& sigmas) { sigmas_ = sigmas; }
  /// Adds the input to a call that has all others, where its network takes it. One thread at a time.
  void add_to(models::Inputs& call, const sampling::CallFacts& facts);

 private:
  using Told = KeptModulations::Told;
  Told& told_of(const models::Inputs& call, const std::vector<const void*>& owners);
  std::vector<float> sigmas_for(const Told& told, float sigma) const;
  void make(Told& told, const models::Inputs& call, const std::vector<float>& sigmas);

  const Model model_;
  const models::Modulated* network_;  // null: it takes none
  bool planned_ = false;
  std::vector<float> sigmas_;
  /// Of this run's calls, by whose conditionings are in them, for how many pictures.
  std::map<std::pair<std::vector<const void*>, std::int64_t>, std::shared_ptr<Told>> told_;
};

}  // namespace distorch::nodes
