#include "distorch/models/model_patch.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/qwen_image/block_patch.h"
#include "distorch/models/z_image/control_patch.h"

namespace distorch::models {

namespace {

void check_known(const weights::Checkpoint& patch) {
  if (!qwen_image::is_block_patch(patch) && !z_image::is_control_patch(patch))
    throw Error(ErrorKind::Format, patch.path(),
                "holds no model patch that is known (DiffSynth's ControlNets for Qwen-Image, union "
                "ControlNets of "
                "Z-Image)");
}

}  // namespace

PatchPicture patch_picture(const weights::Checkpoint& patch) {
  check_known(patch);
  if (z_image::is_control_patch(patch)) {
    auto channels = z_image::control_channels(patch);
    return {.channels = channels, .inpaints = channels > 16};
  }
  auto channels = qwen_image::patch_channels(patch);
  return {channels, channels > 16};
}

std::shared_ptr<const Family> with_patch(const Family& family, const weights::Checkpoint& patch) {
  check_known(patch);
  if (z_image::is_control_patch(patch)) return z_image::with_control_patch(family, patch);
  return qwen_image::with_block_patch(family, patch);
}

std::string patch_input(int index) { return fmt::format("model_patch.{}", index); }
std::string patch_strength_input(int index) {
  return fmt::format("model_patch_strength.{}", index);
}

}  // namespace distorch::models
