#pragma once
#include <memory>

#include "distorch/models/hunyuan_video/config.h"
#include "distorch/models/modulated.h"
#include "distorch/models/network.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::hunyuan_video {

/// The video transformer of HunyuanVideo: text to video, pictures to video, and SkyReels, which is
/// the same with other channels. Inputs:
///   x               [B, C, T, h, w], the noisy latent
///   timestep        [B], 0 .. 1000
///   context         [B, Lt, text width], the text's states
///   attention_mask  [B, Lt], 1 where a token of the text counts; without it all do
///   vector          [B, vector width], the pooled text; without it the model is not told any
///   guidance        [B]; without it the model is not told any
///   concat          [B, further channels, T, h, w], where the model has them
///   given_frame     [B]: the first frame is given, and this is its noise level (token replacement)
///   change          [B, Li, D]: what all blocks added before stands in their place
///   reference       [B, C, t, h', w'], a picture that the video shows; it lies beside the video
/// HunyuanVideo 1.5, which has tokens of one cell and no single blocks, takes two more:
///   glyphs          [B, Lg, glyph width], states of words that the video shows; without it none
///   vision          [B, Lv, vision width], what a picture encoder saw; without it nothing
/// It may be given its modulations (modulated.h). Numbers: call_options.h.
/// Blocks: "in", the text's own, "further_tokens", every double and single block, "final_layer". Skipped parts:
/// "double_blocks.3", "single_blocks.7". Source: ComfyUI comfy/ldm/hunyuan_video/model.py.
class Transformer final : public Network, public Modulated {
 public:
  explicit Transformer(const Config& config);
  ~Transformer() override;

  const Config& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  const InputSpecs& inputs() const override { return inputs_; }
  at::Tensor apply(const Inputs& inputs, const Patches& patches = {}) const override;
  std::vector<std::string> modulating_inputs() const override { return {"vector", "guidance"}; }
  std::int64_t modulation_numbers(const Inputs& call) const override;
  at::Tensor modulations(const Inputs& call,
                         const std::vector<at::Tensor>& timesteps) const override;

 private:
  struct Parts;
  class Call;

  Config config_;
  InputSpecs inputs_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::models::hunyuan_video
