#pragma once
#include <memory>

#include "distorch/models/network.h"
#include "distorch/models/wan/config.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::wan {

/// The video transformer of Wan 2.1 and 2.2: text to video, pictures to video, "Fun" control,
/// inpainting and camera, VACE, Phantom, Animate, S2V. Inputs: the latent [B, C, T, h, w], the timestep (1000 sigma), the text's
/// states; where the model has channels or layers for them, what is given beside the latent, the
/// states of a picture encoder and a reference latent before the first frame; frames of subjects
/// behind the last one; a mask (1 = made anew) by which each frame has a noise level of its own;
/// control frames with their strengths (vace.h); a camera's rays (camera.h); a pose and a face
/// (face.h); sound with a reference picture, earlier frames and a control video (sound.h); speech (speech.h). What else
/// a call may ask for: call_options.h.
/// Skipped parts: "double_blocks.7". Blocks: "in" (embeddings), "camera", every
/// layer, "vace in" and the layers of VACE, "out".
/// Source: Wan (Wan Team 2025); ComfyUI comfy/ldm/wan/model.py, WanModel.
class Transformer final : public Network {
 public:
  explicit Transformer(const Config& config);
  ~Transformer() override;

  const Config& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  const InputSpecs& inputs() const override { return inputs_; }
  at::Tensor apply(const Inputs& inputs, const Patches& patches = {}) const override;

 private:
  struct Parts;
  class Call;

  Config config_;
  InputSpecs inputs_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::models::wan
