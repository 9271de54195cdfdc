#pragma once
#include <memory>

#include "distorch/models/control/control.h"
#include "distorch/models/flux/config.h"

namespace distorch::models::flux {

/// The first double blocks of a FLUX.1, with the features of a picture added to its tokens; a matrix
/// of each block's picture tokens is its residual (XLabs' ControlNets: canny, depth, HED). FLUX deals
/// the residuals out to its double blocks in turn: block k gets the one of block k mod their number.
/// The hint is a picture whose sides are multiples of 16 pixels. Blocks: "input_hint_block",
/// "pos_embed_input", "img_in" with the rest of the first layers, and by turns a double block and its
/// matrix. Source: XLabs-AI x-flux, controlnet.py; ComfyUI comfy/ldm/flux/controlnet.py.
class ControlNet final : public control::ControlNetwork {
 public:
  /// `hint_widths`: channels of the hint, then of each of the convolutions that encode it.
  ControlNet(const Config& config, const std::vector<std::int64_t>& hint_widths);
  ~ControlNet() override;

  const Config& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  control::HintFormat hint() const override;
  const std::vector<control::Place>& places() const override { return places_; }
  /// "guide": what is added to the tokens, [B, hidden, rows, columns].
  Inputs encode(const at::Tensor& hint, std::optional<int> type) const override;
  const InputSpecs& inputs() const override { return inputs_; }
  /// [blocks, B, picture tokens, hidden].
  at::Tensor apply(const Inputs& inputs) const override;
  Inputs residuals(const at::Tensor& packed, at::IntArrayRef x) const override;

 private:
  struct Parts;

  Config config_;
  std::int64_t hint_channels_;
  InputSpecs inputs_;
  std::vector<control::Place> places_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

/// The tensors of a file that holds one, under FLUX's original names; else empty.
weights::Checkpoint control_tensors(const weights::Checkpoint& file);
/// `part` as control_tensors() gives it. Error(Shape) where its sizes do not go together.
std::unique_ptr<control::ControlNetwork> make_control_net(const weights::Checkpoint& part);

}  // namespace distorch::models::flux
