#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::audio {

/// Shape of a wav2vec 2.0 encoder. Sizes of the large one are the defaults.
struct Wav2Vec2Config {
  std::int64_t width = 1024;
  std::int64_t mlp_width = 4096;
  std::int64_t layers = 24;
  std::int64_t conv_width = 512;
  std::int64_t position_kernel = 128;  // states that the positions' convolution sees
  std::int64_t position_groups = 16;
  /// The large form: norms in every convolution and before attention, sound of spread 1. The base
  /// form has one norm behind the first convolution and norms behind attention.
  bool large = true;
  bool conv_bias = true;
  std::int64_t heads() const { return width / 64; }
};

/// The encoder's tensors of a file under the names of transformers ("encoder.layers.0..."), with or
/// without "wav2vec2." before them. Empty where there is none.
weights::Checkpoint wav2vec2_part(const weights::Checkpoint& file);
/// Reads the sizes off the shapes. Errors: Error(MissingWeight), Error(Shape).
Wav2Vec2Config wav2vec2_config(const weights::Checkpoint& part);

/// Hears speech: 50 states a second. Blocks: "features", every layer, "end". Source: Baevski et al.
/// 2020; ComfyUI comfy/audio_encoders/wav2vec2.py.
class Wav2Vec2 {
 public:
  static constexpr std::int64_t kRate = 16000;  // samples a second

  explicit Wav2Vec2(const Wav2Vec2Config& config);
  ~Wav2Vec2();

  /// States of a sound of so many samples; 0 where it is too short.
  static std::int64_t states(std::int64_t samples);
  const Wav2Vec2Config& config() const { return config_; }
  weights::Manifest& manifest() { return manifest_; }
  /// samples [1, channels, N] at kRate -> what every layer was given, and the result: layers + 1
  /// tensors [1, T, width] float32. Error(Shape) for a sound too short for one state.
  std::vector<at::Tensor> hear(const at::Tensor& samples) const;

 private:
  struct Parts;

  Wav2Vec2Config config_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::models::audio
