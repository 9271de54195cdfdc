#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "distorch/models/patches.h"
#include "distorch/sampling/guidance.h"
#include "distorch/weights/manifest.h"

namespace distorch::models {

/// Sizes of one call of a network. B counts conditions times pictures: cond and uncond go in one
/// batch, so that weights are fetched once.
struct CallSizes {
  std::int64_t batch = 1;
  std::vector<std::int64_t> cells;  // of the latent behind its channels: [h, w] or [T, h, w]
  std::int64_t tokens = 0;          // of the text
};

/// One dimension of an input, as a call's sizes tell it.
struct Extent {
  enum class Of {
    Number,  // always `value`
    Batch,
    Tokens,
    Cells,  // stands for all dimensions of the latent, each divided by `value`, rounded up
    Any,    // told by the conditioning alone
  };
  Of of = Of::Number;
  std::int64_t value = 1;

  static constexpr Extent number(std::int64_t value) { return {Of::Number, value}; }
  static constexpr Extent batch() { return {Of::Batch, 1}; }
  static constexpr Extent tokens() { return {Of::Tokens, 1}; }
  static constexpr Extent cells(std::int64_t each = 1) { return {Of::Cells, each}; }
  static constexpr Extent any() { return {Of::Any, 1}; }
};

/// What a network wants to be called with. From the one list of these come the encoding of
/// conditionings, the joining of cond and uncond, the inputs of dry runs, the order in which a
/// recording takes its inputs, and what errors say.
struct InputSpec {
  enum class Source {
    Sampler,       // the latent and its noise level
    Conditioning,  // Family::encode makes it from a conditioning
    Control,       // another network's output inside the step
  };
  using Kind = sampling::ModelInput::Kind;

  std::string name;
  /// In the user's words, for errors: "text conditioning".
  std::string meaning;
  Kind kind = Kind::Regular;
  /// No dimension: a number on the host, in Inputs::number().
  std::vector<Extent> shape;
  at::ScalarType dtype = at::kFloat;
  bool optional = false;
  Source source = Source::Conditioning;
};
using InputSpecs = std::vector<InputSpec>;

/// The inputs of one call by name, in the order they were set. Small: looked up one by one.
class Inputs {
 public:
  Inputs() = default;
  Inputs(std::initializer_list<std::pair<std::string, at::Tensor>> tensors) : tensors_(tensors) {}

  void set(const std::string& name, at::Tensor tensor);
  void set_number(const std::string& name, double number);
  /// Undefined where the call has none of that name.
  const at::Tensor& operator[](const std::string& name) const;
  /// `otherwise` where the call has none of that name.
  double number(const std::string& name, double otherwise) const;
  bool has(const std::string& name) const;

  const std::vector<std::pair<std::string, at::Tensor>>& tensors() const { return tensors_; }
  const std::vector<std::pair<std::string, double>>& numbers() const { return numbers_; }

 private:
  std::vector<std::pair<std::string, at::Tensor>> tensors_;
  std::vector<std::pair<std::string, double>> numbers_;
};

/// A network without samplers around it: a denoising model, or a ControlNet.
class Network {
 public:
  virtual ~Network() = default;
  /// Its weights and blocks. Someone attaches a source to it before apply().
  virtual weights::Manifest& manifest() = 0;
  /// Everything apply() takes. Never changes.
  virtual const InputSpecs& inputs() const = 0;
  /// The network's raw output (noise or velocity), float32, shape of "x". Computes in the dtype of
  /// its weights. Error(Shape) where an input does not fit the model.
  virtual at::Tensor apply(const Inputs& inputs, const Patches& patches = {}) const = 0;
};

/// The shape of an input in a call of these sizes; 1 in each place that the sizes do not tell.
std::vector<std::int64_t> shape_of(const InputSpec& spec, const CallSizes& sizes);

/// Inputs of a call before their values are known.
struct KnownInputs {
  std::map<std::string, std::vector<std::int64_t>> shapes;
  std::map<std::string, double> numbers;
};

/// Inputs without values for a dry run: all that the network must have, and the optional ones whose
/// names are in `optional` or that are known. What is known is taken as it is.
Inputs blank_inputs(const InputSpecs& specs, const CallSizes& sizes, at::Device device,
                    const std::set<std::string>& optional = {}, const KnownInputs& known = {});

/// Error(Shape) that names the input and says what was expected and what came, where an input is
/// missing, of another number of dimensions or of another fixed size.
void check_inputs(const InputSpecs& specs, const Inputs& inputs,
                  const std::string& network = "diffusion model");

/// The tensors in the order of the specs, undefined where there is none: what a recording takes.
std::vector<at::Tensor> in_order(const InputSpecs& specs, const Inputs& inputs);
/// The other way round; numbers come from `inputs`.
Inputs from_order(const InputSpecs& specs, const std::vector<at::Tensor>& tensors,
                  const Inputs& inputs);
/// Which inputs there are and what numbers they hold, for keys of plans and recordings.
std::string inputs_key(const Inputs& inputs);

}  // namespace distorch::models
