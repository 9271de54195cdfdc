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
  /// latent frame. `more`: a group follows, and what it needs is kept.
  virtual at::Tensor next(const at::Tensor& group, bool more) = 0;
};

/// An autoencoder of video: every one whose shape() has three dimensions.
class VideoVae : public VaeNetwork {
 public:
  /// Begins a clip, whose groups together give what encode_mean() and decode_pixels() give. Errors
  /// as theirs, with the group that does not fit.
  virtual std::unique_ptr<ClipCoding> encode_clip() const = 0;
  virtual std::unique_ptr<ClipCoding> decode_clip() const = 0;
};

}  // namespace distorch::models
