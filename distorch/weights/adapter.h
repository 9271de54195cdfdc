#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

namespace distorch::weights {

/// The ways in which LoRA files change a weight W [out, in, kernel...], written R for the rows of
/// all dimensions but the first taken together. s: strength, α: alpha over the rank (1 without an
/// alpha). Source: ComfyUI comfy/weight_adapter and comfy/lora.py.
enum class AdapterKind {
  LowRank,      // W + sα · Up Down, with a kernel between them: Up Mid Down (LoRA, LoCon)
  Hadamard,     // W + sα · (W1a W1b ∘ W2a W2b), each with a core T1, T2 or without (LoHa)
  Kronecker,    // W + sα · W1 ⊗ W2, each whole or as a product W1a W1b, W2a [T2] W2b (LoKr)
  Generalized,  // W + sα · (W A1 A2 + B1 B2) (GLoRA; the old order is W A2 A1 + B2 B1)
  Rotation,     // W + s² · (Rᵀ - 1) W, R a block diagonal of rotations (OFT)
  Butterfly,    // W + s · (Rescale ∘ R_m ... R_1 W - W), blocks shuffled between the R (BOFT)
  Difference,   // W + s · Value (".diff", ".diff_b", ".w_norm")
  Replacement   // Value, whatever the strength (".set_weight")
};

/// What a tensor of an adapter is. Shapes: see the kinds in adapter.cpp's misfit().
enum class Part {
  Up,
  Down,
  Mid,
  W1,
  W1a,
  W1b,
  W2,
  W2a,
  W2b,
  T1,
  T2,
  A1,
  A2,
  B1,
  B2,
  Blocks,
  Rescale,
  Value,
  Magnitude
};

/// One change of one weight, as a layer applies it while it runs (nn/adapted.h): a value, cheap to
/// copy. A slot holds a list of them, first applied first.
///
/// Magnitude makes it a DoRA: with V = W + α · change, W becomes W + s · (V ∘ g - W), where g is
/// Magnitude [out, 1...] over the norms of W's rows, or Magnitude [1, in, 1...] over the norms of
/// V's columns.
struct Adapter {
  AdapterKind kind = AdapterKind::LowRank;
  /// On the device that computes, as the file has them: any dtype, linear layers' factors with or
  /// without trailing 1x1 kernel dimensions.
  std::map<Part, at::Tensor> parts;
  std::optional<double> alpha;
  /// The weight is first padded with zeros to this shape; empty: it stays as it is.
  std::vector<std::int64_t> reshape;
  /// The rows of the weight that it changes, as if they were a weight of their own; no rows: all.
  std::int64_t first_row = 0, rows = 0;
  double strength = 1.0;

  /// Undefined where it has none of that kind.
  at::Tensor part(Part which) const;
  /// Whether it leaves the weight as it is.
  bool is_nothing() const {
    return strength == 0 && kind != AdapterKind::Replacement && reshape.empty();
  }
};

using PartShapes = std::map<Part, std::vector<std::int64_t>>;

/// Why an adapter with parts of these shapes does not fit a weight of `shape`, as the end of a
/// sentence ("has a factor of shape [4, 8] ..."); empty where it fits.
std::string misfit(AdapterKind kind, const PartShapes& parts, std::vector<std::int64_t> shape,
                   const std::vector<std::int64_t>& reshape = {});

}  // namespace distorch::weights
