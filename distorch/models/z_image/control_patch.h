#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "distorch/models/family.h"
#include "distorch/models/z_image/layer.h"

namespace distorch::models::z_image {

/// A control layer: a layer of the network over the picture's control tokens, with a matrix behind it
/// that says what the image tokens get; the first of its row starts from the image tokens, too.
class ControlLayer {
 public:
  ControlLayer(const weights::Scope& scope, const NextDitConfig& config, bool first);

  struct Result {
    at::Tensor control;  // [B, n, width], for the next control layer
    at::Tensor added;    // [B, n, width], for the image tokens
  };
  /// control [B, n, width]; image [B, L, width]: the tokens before the row of layers.
  Result forward(const at::Tensor& control, const at::Tensor& image, const nn::RopeTable& rope,
                 const at::Tensor& level) const;

 private:
  /// A block of one matrix.
  struct Matrix {
    Matrix(const weights::Scope& scope, std::int64_t width)
        : block(scope), linear(scope, width, width) {}
    weights::Block block;
    nn::Linear linear;
  };

  std::optional<Matrix> before_;
  Layer layer_;
  Matrix after_;
};

/// The union ControlNet of Z-Image as a model patch: control layers behind the noise refiners and
/// behind every so many of the layers. Source: ComfyUI comfy/ldm/lumina/controlnet.py and
/// comfy_extras/nodes_model_patch.py, ZImageControlPatch.
class ControlPatch {
 public:
  /// Declares what embeds the picture; the rest is declared by add_refiner() and add_layer(), so that
  /// its blocks lie among the network's in the order of execution.
  ControlPatch(const weights::Scope& scope, const NextDitConfig& config,
               const ControlConfig& control);
  /// What runs behind the network's next noise refiner, or next layer.
  void add_refiner();
  void add_layer();

  /// One call of the network: what is carried from layer to layer.
  struct State {
    at::Tensor control;  // [B, n, width]
    /// The image tokens before the row of layers that runs; the first control layer forgets them.
    at::Tensor image;
    double strength = 1.0;
  };
  /// latent [1 or B, channels, h, w] of the picture in the network's scale; rope of n tokens or more.
  State start(const at::Tensor& latent, std::int64_t batch, const nn::RopeTable& rope,
              const at::Tensor& level, double strength) const;
  /// What runs behind noise refiner i and behind layer i: changes the first n of the image tokens
  /// [B, n or more, width] in place.
  void after_refiner(std::int64_t i, State& state, const at::Tensor& image,
                     const nn::RopeTable& rope, const at::Tensor& level) const;
  void after_layer(std::int64_t i, State& state, const at::Tensor& image, const nn::RopeTable& rope,
                   const at::Tensor& level) const;

 private:
  ControlPatch(const weights::Scope& scope, const weights::Scope& entry,
               const NextDitConfig& config, const ControlConfig& control);
  /// `image`: undefined where nothing is added.
  void run(const ControlLayer& layer, State& state, const at::Tensor& image,
           const nn::RopeTable& rope, const at::Tensor& level) const;

  weights::Scope scope_;
  NextDitConfig config_;
  ControlConfig control_;
  weights::Block block_;
  nn::Linear embed_;
  std::vector<Layer> plain_refiners_;
  std::vector<ControlLayer> refiners_, layers_;
  std::int64_t refiners_seen_ = 0, layers_seen_ = 0;
};

/// Whether a file holds one.
bool is_control_patch(const weights::Checkpoint& file);
/// Channels of the latent that it wants: the control picture's, and for inpainting a mask's and those
/// of the picture that is filled in.
std::int64_t control_channels(const weights::Checkpoint& patch);
/// The family with one more patch; Error(Usage) naming both files where it is no Z-Image or one of
/// another width.
std::shared_ptr<const Family> with_control_patch(const Family& family,
                                                 const weights::Checkpoint& patch);

}  // namespace distorch::models::z_image
