#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

/// FantasyTalking: speech for Wan's video models. What a wav2vec 2.0 encoder hears becomes tokens of
/// each latent frame, to which the frame's own tokens attend in every layer, beside the text and the
/// picture (block.h). A file of it holds the projection ("proj_model.proj.weight", ...) and
/// those layers' keys and values (family.h, add_speech). Source: FantasyTalking (Wang et al. 2025);
/// ComfyUI-WanVideoWrapper, fantasytalking/model.py.
namespace distorch::models::wan {

/// Error(Format) naming the file unless it holds such layers and their projection.
void check_speech_file(const weights::Checkpoint& file);

/// Shape of the projection.
struct SpeechConfig {
  std::int64_t heard_width = 768;  // of the encoder's states
  std::int64_t width = 2048;
};
/// Reads the sizes off the shapes. Errors: Error(MissingWeight), Error(Shape).
SpeechConfig speech_config(const weights::Checkpoint& file);

/// States of a wav2vec 2.0 encoder [1, N, heard_width] -> tokens [1, N, width] float32. One block.
class SpeechProjection {
 public:
  explicit SpeechProjection(const SpeechConfig& config);
  const SpeechConfig& config() const { return config_; }
  weights::Manifest& manifest() { return manifest_; }
  at::Tensor operator()(const at::Tensor& states) const;

 private:
  SpeechConfig config_;
  weights::Manifest manifest_;
  weights::Scope scope_;
  weights::Block block_;
  nn::Linear projection_;
  nn::LayerNorm norm_;
};

/// The tokens around each latent frame of a video of so many pictures: [1, N, width] -> [1, T, n,
/// width], T = (frames - 1) / 4 + 1, as if the sound were as long as the video. Where a frame's share
/// goes over the sound's start or end, zeros stand behind it. Error(Usage) for less than 5 frames,
/// whose shares are not defined.
at::Tensor tokens_of_frames(const at::Tensor& tokens, std::int64_t frames);

}  // namespace distorch::models::wan
