#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::upscale {

/// What a network that enlarges or repairs pictures does to their sizes.
struct UpscaleShape {
  std::int64_t scale = 4;
  std::int64_t in_channels = 3;
  std::int64_t out_channels = 3;
  std::int64_t smallest = 0;     // of both sides, in pixels
  std::int64_t multiple_of = 1;  // both sides
};

/// Pictures in, larger pictures out.
class UpscaleNetwork {
 public:
  virtual ~UpscaleNetwork() = default;
  virtual weights::Manifest& manifest() = 0;
  virtual UpscaleShape shape() const = 0;
  /// image [B, in_channels, H, W] float32 0..1 with sides as shape() wants them ->
  /// [B, out_channels, H·scale, W·scale] float32, about 0..1.
  virtual at::Tensor forward(const at::Tensor& image) const = 0;
};

/// The same for any sides: the picture is continued as in a mirror where it is too small, and the
/// result cut back; clamped to 0..1. Source: spandrel, ImageModelDescriptor.
at::Tensor upscale(const UpscaleNetwork& network, const at::Tensor& image);

/// A network found in a file: its tensors under the names that it uses, and how to make it.
struct UpscalePart {
  weights::Checkpoint part;
  std::function<std::unique_ptr<UpscaleNetwork>()> make;
};

/// Tells the kind by tensor names and shapes, as spandrel does. Error(Format) naming the kinds that
/// are known.
UpscalePart find_upscale(const weights::Checkpoint& file);

}  // namespace distorch::models::upscale
