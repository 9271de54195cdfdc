#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "distorch/weights/manifest.h"

namespace distorch::streaming {

/// Activations on their way to blocks that run where they rest, and back. What a block gave is
/// copied to the compute device beside the donor's work, and a block behind it on the donor that is
/// given the same again takes it from there: of blocks in a row on one donor the activations cross
/// the link before the first and behind each, which nobody waits for but at the end.
class Carried {
 public:
  /// The tensors on `donor`: where they lie there unchanged since fetch(), else copies.
  weights::Tensors send(const weights::Tensors& tensors, at::Device donor) const;
  /// The tensors on `compute`. They are remembered as long as somebody holds them.
  weights::Tensors fetch(const weights::Tensors& results, at::Device compute);
  /// Forgets what nobody holds on the compute device any more: its twins take the donor's memory.
  void forget_gone();
  /// Forgets what is remembered.
  void clear() { twins_.clear(); }

 private:
  /// One tensor in two places.
  struct Twin {
    c10::weak_intrusive_ptr<c10::TensorImpl> here;  // on the compute device; it may be gone
    std::int64_t version = 0;  // of it, which grows when it is changed in place
    at::Tensor there;
  };
  at::Tensor fetched(const at::Tensor& result, at::Device compute);

  std::vector<Twin> twins_;
  std::optional<c10::Stream> side_;  // of the donor, for copies from it
};

}  // namespace distorch::streaming
