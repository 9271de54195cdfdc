#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

/// MMAudio, which makes sound for videos: the network that is sampled (here), what it is told of a
/// video (synchformer.h and CLIP), and what makes sound of its latent (sound.h).
/// Source: Cheng et al. 2025, "MMAudio: Taming Multimodal Joint Training for High-Quality
/// Video-to-Audio Synthesis".
namespace distorch::models::mmaudio {

/// Shape of the network. Sizes of the published large one for 44.1 kHz, version 2, are the defaults.
struct Config {
  /// Version 2: SiLU behind each projection, noise levels by frequencies of the network's width.
  bool second = true;
  std::int64_t latent = 40;  // numbers of a latent's frame: 40 for 44.1 kHz, 20 for 16 kHz
  std::int64_t width = 896;
  std::int64_t heads = 14;  // width / 64
  std::int64_t mlp_width = 2560;
  std::int64_t joint = 7;          // blocks in which sound, pictures and text attend together
  std::int64_t fused = 14;         // blocks of the sound alone behind them
  std::int64_t clip = 1024;        // of what CLIP says of a picture
  std::int64_t sync = 768;         // of what Synchformer says of two frames
  std::int64_t text = 1024;        // of a token of the text
  std::int64_t tokens = 77;        // of a text
  std::int64_t frequencies = 896;  // that a moment of the flow is told by

  std::int64_t rate() const { return latent == 20 ? 16000 : 44100; }  // samples a second
  std::int64_t hop() const { return latent == 20 ? 256 : 512; }       // samples of a frame of sound
};

/// Numbers of frames of a sound, as the network counts them.
struct Lengths {
  std::int64_t latent = 0;  // two frames of sound each
  std::int64_t clip = 0;    // 8 pictures a second
  std::int64_t sync =
      0;  // 8 for each segment of 16 frames, which begin 8 frames apart, of 25 a second
};
Lengths lengths_of(const Config& config, double seconds);

/// The network's tensors of a file ("joint_blocks.0.latent_block.attn.qkv.weight"). Empty where it
/// has none.
weights::Checkpoint network_part(const weights::Checkpoint& file);
/// Reads the sizes off the shapes. Errors: Error(MissingWeight), Error(Shape).
Config network_config(const weights::Checkpoint& part);

/// What the network is told, as the encoders say it. The first row of a call follows all of it; the
/// others have a text alone.
struct Features {
  at::Tensor clip;  // [1, Lengths::clip, Config::clip]; undefined: no pictures
  at::Tensor sync;  // [1, Lengths::sync, Config::sync]; undefined: no video
  at::Tensor text;  // [rows, tokens, Config::text]
};

/// The same as it goes into every step.
struct Conditions {
  at::Tensor clip;    // [rows, Lengths::clip, width]
  at::Tensor sync;    // [rows, Lengths::latent, width]
  at::Tensor text;    // [rows, tokens, width]
  at::Tensor global;  // [rows, 1, width]
};

/// The flow network. Blocks: "conditions", "in", "joint_blocks.{i}", "fused_blocks.{i}",
/// "final_layer", "latent".
class Network {
 public:
  explicit Network(const Config& config);
  ~Network();

  const Config& config() const { return config_; }
  weights::Manifest& manifest() { return manifest_; }

  /// Error(Shape) where the features are not as long as the lengths say, or of other widths.
  Conditions conditions(const Features& features, const Lengths& lengths) const;
  /// The flow at a moment: latent [rows, n, Config::latent], time [rows] 0..1 -> as the latent, float32.
  at::Tensor flow(const at::Tensor& latent, const at::Tensor& time,
                  const Conditions& conditions) const;
  /// The latent in the autoencoder's own scale, float32.
  at::Tensor scaled(const at::Tensor& latent) const;

 private:
  struct Parts;

  Config config_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::models::mmaudio
