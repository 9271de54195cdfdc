#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "distorch/models/network.h"

/// Shift, scale and gate by which the blocks of a transformer follow the noise level (adaptive layer
/// norm; "Scalable Diffusion Models with Transformers", 2212.09748). They are products of the level's
/// embedding, the same for all tokens and pictures of a prompt, and the weights that make them are a
/// quarter of FLUX.1's and a third of Qwen-Image's. So they can be made for all levels of a run at
/// once, and a step that is given them has no use for those weights.
namespace distorch::models {

/// The input that holds them, [Modulated::modulation_numbers()]; without it a step makes them.
inline constexpr const char* kModulations = "modulations";

/// What a Network is beside that where a step may be given its modulations.
class Modulated {
 public:
  virtual ~Modulated() = default;
  /// The inputs that they follow beside the timestep.
  virtual std::vector<std::string> modulating_inputs() const = 0;
  /// How many numbers a step with the inputs of `call` takes, which may be without data; 0: such a
  /// call makes them itself.
  virtual std::int64_t modulation_numbers(const Inputs& call) const = 0;
  /// For the inputs of `call` but for its timestep: at each of `timesteps` ([B] each), [levels,
  /// numbers] on the CPU, in the type that the network computes in. The same bits as a step makes.
  virtual at::Tensor modulations(const Inputs& call,
                                 const std::vector<at::Tensor>& timesteps) const = 0;
};

/// The input, as such a network lists it.
InputSpec modulations_spec();

/// The modulations that a step was given.
class GivenModulations {
 public:
  /// Undefined: none. Error(Shape) where they are not `wanted` numbers.
  GivenModulations(const at::Tensor& numbers, std::int64_t wanted, at::ScalarType dtype);
  explicit operator bool() const { return numbers_.defined(); }
  /// [batch, 1, width], of the block before which others have `before` numbers for each of the batch,
  /// in the order in which MadeModulations got them.
  at::Tensor of(std::int64_t before, std::int64_t batch, std::int64_t width) const;

 private:
  at::Tensor numbers_;
};

/// Gathers what blocks make for all levels.
class MadeModulations {
 public:
  /// `by_level`: what the next block gives at each level.
  void add(const std::vector<at::Tensor>& by_level);
  /// [levels, numbers] on the CPU.
  at::Tensor all() const;

 private:
  std::vector<at::Tensor> blocks_;  // [levels, numbers of the block]
};

}  // namespace distorch::models
