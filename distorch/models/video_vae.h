#pragma once
#include <ATen/core/Tensor.h>

#include <memory>

#include "distorch/models/vae_network.h"

namespace distorch::models {

/// One clip on its way through a video autoencoder, group of frames by group of frames. What the
/// layers remember of the groups before lies here and nowhere else, so that memory does not grow
/// with the clip, and clips that are coded in turn do not mix.
class ClipCoding {
 public:
  virtual ~ClipCoding() = default;
  /// The next group of the one clip: when decoding a latent frame [1, C, 1, h, w], which gives
  /// pixels [1, 3, 1 (the first) or time_downscale, H, W]; when encoding such pixels, which give a
  /// latent frame. `more`: a group follows, and what it needs is kept. Some hold frames back: then
  /// a result has none, and a later one more.
  virtual at::Tensor next(const at::Tensor& group, bool more) = 0;
};

/// An autoencoder of video: every one whose shape() has three dimensions and says nothing of whole
/// clips.
class VideoVae : public VaeNetwork {
 public:
  /// Begins a clip. Error(Shape) of its next() where a group is no latent or no frames of this
  /// autoencoder's.
  virtual std::unique_ptr<ClipCoding> encode_clip() const = 0;
  virtual std::unique_ptr<ClipCoding> decode_clip() const = 0;

  /// Whole clips of a batch, one after the other: frames [B, 3, T, H, W], -1..1 -> latents
  /// [B, C, 1 + (T - 1) / time_downscale, h, w]; frames that make no whole latent frame are left
  /// out.
  at::Tensor encode_mean(const at::Tensor& pixels) const final;
  /// latents [B, C, T, h, w] -> [B, 3, 1 + (T - 1) · time_downscale, H, W].
  at::Tensor decode_pixels(const at::Tensor& latent) const final;
};

}  // namespace distorch::models
