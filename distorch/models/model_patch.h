#pragma once
#include <memory>

#include "distorch/models/family.h"
#include "distorch/weights/checkpoint.h"

/// Files with further layers of a diffusion model ("model patches"), which run behind its blocks and
/// say what a picture says. The model and its patches are one network with one list of blocks, so
/// that they are placed, streamed and recorded together.
namespace distorch::models {

/// What a patch wants of its picture: a latent of the model's VAE, [1, channels, (T,) h, w].
struct PatchPicture {
  std::int64_t channels = 16;
  bool masked = false;  // the last channel is a mask, 1 = keep
  /// Behind the picture's channels a mask and the channels of a picture that is filled in where the
  /// mask is 0.
  bool inpaints = false;
};

/// Error(Format) naming the file where it holds no patch that is known.
PatchPicture patch_picture(const weights::Checkpoint& patch);
/// The family with one more patch, behind those it has. Its network takes, by the patch's place k in
/// the list, "model_patch.k" (a latent as patch_picture() says, in the network's scale) and
/// the number "model_patch_strength.k". Error(Usage) naming both files where they do not go together.
std::shared_ptr<const Family> with_patch(const Family& family, const weights::Checkpoint& patch);

/// Names of those inputs.
std::string patch_input(int index);
std::string patch_strength_input(int index);

}  // namespace distorch::models
