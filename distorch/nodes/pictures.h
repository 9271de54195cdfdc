#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/graph/call.h"
#include "distorch/nodes/resize.h"
#include "distorch/sampling/ksampler.h"

/// What the nodes for images, masks and latents share: their inputs, checked, and their outputs.
namespace distorch::nodes {

/// The IMAGE of an input, [B, H, W, C]. Error(Shape) that names node and input where it has other
/// dimensions or no pixels.
const at::Tensor& image_input(const graph::Call& call, const char* name);
/// The MASK of an input as [B, H, W]. Errors as above.
at::Tensor mask_input(const graph::Call& call, const char* name);
/// The LATENT of an input: samples with at least four dimensions. Errors as above.
const sampling::Latent& latent_input(const graph::Call& call, const char* name);

void image_out(graph::Call& call, std::size_t slot, at::Tensor image);
void mask_out(graph::Call& call, std::size_t slot, at::Tensor mask);
void latent_out(graph::Call& call, sampling::Latent latent);
/// The same latent with other samples.
void latent_out(graph::Call& call, const sampling::Latent& like, at::Tensor samples);

/// The first `items` along dimension 0; a shorter batch is repeated from its start.
at::Tensor fit_batch(const at::Tensor& x, std::int64_t items);
/// An IMAGE with that many channels: alpha is dropped, or added as opaque; gray becomes a colour.
at::Tensor match_channels(const at::Tensor& image, std::int64_t channels);
/// resize() of an IMAGE [B, H, W, C].
at::Tensor resize_image(const at::Tensor& image, const Resize& target);
/// `latent` in the height and width of `like` (bilinear, cut around the middle).
at::Tensor latent_like(const at::Tensor& latent, const at::Tensor& like);

}  // namespace distorch::nodes
