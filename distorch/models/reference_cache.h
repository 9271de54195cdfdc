#pragma once
#include <ATen/core/Tensor.h>

/// What a transformer makes of its reference pictures in one step, for the steps after it: the keys
/// and values of their tokens in every block. A network that can keep them has two more inputs: the
/// number kKeepReferences, with which it gives them behind its prediction, and kReferenceCache, which
/// stands in the place of the pictures. So what a step keeps is a result of it, and what it is given an
/// input, as everything else that plans, recordings and split blocks know of. Source: ComfyUI
/// comfy_extras/nodes_flux.py, FluxKVCache.
namespace distorch::models {

inline constexpr const char* kKeepReferences = "keep_references";
inline constexpr const char* kReferenceCache = "reference_cache";

/// The result of a network that keeps its references: bytes [n], those of the prediction last.
struct KeptStep {
  at::Tensor prediction;  // [shape of x] float32
  at::Tensor cache;       // bytes [n], for kReferenceCache
};
KeptStep split_kept(const at::Tensor& packed, at::IntArrayRef x);

/// Room for such a result. Keys and values are filled in block by block, so that they exist once.
class KeptReferences {
 public:
  /// `pieces` tensors of `shape` and type.
  KeptReferences(std::int64_t pieces, at::IntArrayRef shape, const at::TensorOptions& options,
                 at::IntArrayRef x);
  void keep(std::int64_t piece, const at::Tensor& value);
  /// With the prediction [shape of x] float32.
  at::Tensor packed(const at::Tensor& prediction);

 private:
  at::Tensor bytes_, pieces_, prediction_;
};

}  // namespace distorch::models
