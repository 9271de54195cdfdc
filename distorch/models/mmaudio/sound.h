#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

/// What makes sound of MMAudio's latent: a decoder to a mel spectrogram, and a vocoder.
namespace distorch::models::mmaudio {

/// Shape of the decoder half of MMAudio's autoencoder of spectrograms.
struct MelConfig {
  struct Level {
    std::int64_t width = 512;
    std::int64_t blocks = 3;
    bool doubles = false;  // the frames, behind its blocks
  };
  std::int64_t latent = 40;   // numbers of a latent's frame
  std::int64_t bands = 128;   // of the spectrogram
  std::int64_t width = 2048;  // in the middle
  std::vector<Level> levels;  // from the spectrogram inwards, as the file counts them
  std::vector<std::int64_t> band_shape = {1, 128, 1};  // of what is known of the bands, as stored
};

/// The decoder's tensors of a file ("decoder.mid.block_1.conv1.weight"). Empty where it has none.
weights::Checkpoint mel_part(const weights::Checkpoint& file);
/// Reads the sizes off the shapes. Errors: Error(MissingWeight), Error(Shape).
MelConfig mel_config(const weights::Checkpoint& part);

/// Latents to logarithmic mel spectrograms. Weights rest as they were trained; a convolution brings
/// them to length 1 where it is used. Blocks: "decoder.mid", "decoder.up.{i}" from the last to the
/// first, "decoder.out". Source: Karras et al. 2024 (EDM2) for the layers; MMAudio.
class MelDecoder {
 public:
  explicit MelDecoder(const MelConfig& config);
  ~MelDecoder();

  const MelConfig& config() const { return config_; }
  weights::Manifest& manifest() { return manifest_; }
  /// latent [B, n, latent], as Network::scaled() gives it -> [B, bands, frames] float32.
  at::Tensor decode(const at::Tensor& latent) const;

 private:
  struct Parts;
  MelConfig config_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

/// Shape of a BigVGAN vocoder.
struct VocoderConfig {
  struct Step {
    std::int64_t rate = 2, kernel = 4;  // samples of a sample, samples that one of them reaches
  };
  struct Kernel {
    std::int64_t size = 3;
    std::vector<std::int64_t> dilations = {1, 3, 5};
  };
  std::int64_t bands = 128;
  std::int64_t width = 1536;  // halves with every step
  std::vector<Step> steps;
  std::vector<Kernel> kernels;
  bool beta = true;         // Snake's strength apart from its frequency
  bool logarithms = true;   // both are stored as logarithms
  bool tanh_at_end = true;  // else samples beyond -1..1 are cut
  bool bias_at_end = true;
  bool split_weights = true;  // a weight is stored as direction and length

  /// Samples of a frame.
  std::int64_t hop() const;
};

/// The vocoder's tensors of a file: with lengths and directions of weights under older or newer
/// names, or weights as they are; with or without "generator." before them. Empty where there is
/// none.
weights::Checkpoint vocoder_part(const weights::Checkpoint& file);
/// Reads the sizes off the shapes, and what they do not tell from the text of a config.json; where
/// that is "" it is the 16 kHz vocoder of MMAudio. `path`: of that text, for messages. Errors:
/// Error(MissingWeight), Error(Shape), Error(Format).
VocoderConfig vocoder_config(const weights::Checkpoint& part, const std::string& json,
                             const std::string& path);

/// Logarithmic mel spectrograms to sound. Blocks: "conv_pre", "ups.{i}", "conv_post". Source: Lee et
/// al. 2023 (BigVGAN), version 2 of NVIDIA.
class Vocoder {
 public:
  explicit Vocoder(const VocoderConfig& config);
  ~Vocoder();

  const VocoderConfig& config() const { return config_; }
  weights::Manifest& manifest() { return manifest_; }
  /// mel [B, bands, frames] -> [B, 1, samples] float32, -1..1.
  at::Tensor sound(const at::Tensor& mel) const;

 private:
  struct Parts;
  VocoderConfig config_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::models::mmaudio
