#pragma once
#include <memory>

#include "distorch/models/control/control.h"

namespace distorch::models::control {

/// Shape of a T2I-adapter. Sizes of its features are 1/unshuffle of the hint's, halved where a stage
/// halves them.
struct AdapterConfig {
  std::int64_t unshuffle = 8;          // pixels of a side that become channels; 16 for SDXL
  std::int64_t in_channels = 192;      // hint channels times unshuffle²
  std::vector<std::int64_t> channels;  // of each stage's features
  std::int64_t blocks = 2;             // residual blocks of a stage
  // Light adapters compute at this width within a stage; empty: not a light one.
  std::vector<std::int64_t> inner;
  std::int64_t kernel = 3;  // of the second convolution of a block, and of a change of width
  bool strided = false;     // halved by a 3x3 convolution, else by averaging
  bool for_xl = false;      // features for the places of SDXL
};

/// Reads the configuration off names and shapes ("body.0.block1.weight").
AdapterConfig adapter_config(const weights::Checkpoint& part);

/// An adapter with diffusers names under original ones; any other checkpoint comes back as it is.
weights::Checkpoint with_original_adapter_names(const weights::Checkpoint& part);

/// A small convolutional network that makes residuals of the hint alone, one for each level of a
/// UNet; they do not change from step to step. Source: Mou et al. 2023; ComfyUI
/// comfy/t2i_adapter/adapter.py.
class Adapter final : public ControlNetwork {
 public:
  explicit Adapter(const AdapterConfig& config);
  ~Adapter() override;

  const AdapterConfig& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  HintFormat hint() const override {
    return {.channels = config_.in_channels / (config_.unshuffle * config_.unshuffle),
            .multiple = config_.unshuffle};
  }
  const std::vector<Place>& places() const override { return places_; }
  Inputs encode(const at::Tensor& hint, std::optional<int> type) const override;
  const InputSpecs& inputs() const override { return nothing_; }
  at::Tensor apply(const Inputs& inputs) const override;
  Inputs residuals(const at::Tensor& packed, at::IntArrayRef x) const override;

 private:
  class Stage;

  AdapterConfig config_;
  weights::Manifest manifest_;
  std::vector<std::unique_ptr<const Stage>> stages_;
  std::vector<Place> places_;
  InputSpecs nothing_;
};

}  // namespace distorch::models::control
