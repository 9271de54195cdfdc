#pragma once
#include <cstdint>
#include <vector>

#include "distorch/weights/checkpoint.h"

namespace distorch::models::wan {

/// Shape of a Wan video transformer. Sizes of the 14B text-to-video model are the defaults.
struct Config {
  std::int64_t width = 5120;
  std::int64_t mlp_width = 13824;
  std::int64_t layers = 40;
  std::int64_t text_width = 4096;
  std::int64_t sinusoids = 256;
  std::int64_t in_channels = 16;   // the noisy latent and what is given beside it
  std::int64_t out_channels = 16;  // of the latent
  /// Width of the picture encoder's states that the model attends to beside the text; 0: none.
  std::int64_t vision_width = 0;
  /// Places of those states that have a position of their own (first and last frame); 0: none.
  std::int64_t vision_places = 0;
  /// Channels of a reference latent that goes before the first frame; 0: none.
  std::int64_t reference_channels = 0;
  /// Layers that look at control frames beside the video (VACE), and the channels of those; 0: none.
  std::int64_t vace_layers = 0;
  std::int64_t vace_channels = 0;
  /// Channels of the rays of a camera's way, at the pixels' size, and residual layers that read
  /// them; 0: none.
  std::int64_t camera_channels = 0;
  std::int64_t camera_layers = 0;

  /// Layers that look at a face behind those of the video (Animate); 0: none.
  std::int64_t face_layers = 0;
  /// Layers and width of the audio encoder whose states the model hears (S2V); 0: none.
  std::int64_t audio_layers = 0;
  std::int64_t audio_width = 0;
  /// Width of the speech's tokens that every layer hears beside the text (speech.h); 0: none.
  std::int64_t speech_width = 0;

  /// Whether the video's tokens are normalised before they attend to the text.
  bool norm_before_text = true;

  std::int64_t heads() const { return width / kHeadWidth; }
  /// Whether the model begins with a picture whose mask it sees; models that follow a control video
  /// or a camera take what is beside the latent as it is given.
  bool image_to_video() const;
  /// Numbers of a head that turn with the token's frame, row and column.
  static std::vector<std::int64_t> axes();

  static constexpr std::int64_t kHeadWidth = 128;
};

/// Cells of a latent that one token stands for, in height and in width.
inline constexpr std::int64_t kPatch = 2;

/// Pixels, each way, of which the rays of a camera become one cell's channels.
inline constexpr std::int64_t kRayPixels = 8;

/// The transformer's tensors under original names ("blocks.0.self_attn.q.weight"), from original or
/// diffusers names (WanTransformer3DModel, WanVACETransformer3DModel). Empty where there is none, or
/// one with parts that are not known here (HuMo).
weights::Checkpoint with_original_names(const weights::Checkpoint& below);

/// Names of diffusers as original ones; other names stay. For networks that have such layers among
/// others.
weights::Checkpoint renamed_layers(const weights::Checkpoint& theirs);

/// Reads the sizes off the shapes. Errors: Error(MissingWeight), Error(Shape).
Config config_of(const weights::Checkpoint& part);

}  // namespace distorch::models::wan
