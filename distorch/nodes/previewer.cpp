#include "distorch/nodes/previewer.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/device/memory.h"
#include "distorch/models/taesd/autoencoder.h"
#include "distorch/nodes/sampled_model.h"
#include "distorch/nodes/vae_coding.h"

namespace distorch::nodes {

using at::Tensor;

namespace {

/// What the files of small decoders for Wan's latents are called, without their endings; empty for
/// other latents. The first is the one that ComfyUI looks for.
std::vector<std::string> video_names(const models::LatentFormat& format) {
  if (format.dimensions != 3 || format.mean.empty()) return {};
  if (format.channels == 16) return {"lighttaew2_1", "taew2_1"};
  if (format.channels == 48) return {"lighttaew2_2", "taew2_2"};
  return {};
}

/// The first file of vae_approx that begins with one of the names; null where there is none.
std::shared_ptr<LoadedVae> small_video_vae(ModelCache& models, const models::LatentFormat& format,
                                           const std::vector<std::string>& names) {
  const auto& folders = models.folders();
  for (const auto& name : names)
    for (const auto& file : folders.list("vae_approx")) {
      if (!file.starts_with(name)) continue;
      const auto path = folders.get("vae_approx", file);
      auto loaded = models.vae(path, {});
      if (loaded && loaded->network->shape().dimensions == 3 &&
          loaded->network->shape().latent_channels == format.channels)
        return loaded;
      throw Error(ErrorKind::Format, path.string(),
                  fmt::format("holds no decoder of video latents of {} channels", format.channels));
    }
  return nullptr;
}

/// The small autoencoder for latents of this format; null, with a warning, where there is none.
std::shared_ptr<LoadedVae> small_vae_for(ModelCache& models, const models::LatentFormat& format) {
  const auto video = video_names(format);
  const auto name = video.empty() ? models::taesd::name_for(format) : video.front();
  if (name.empty()) return nullptr;
  try {
    auto loaded =
        video.empty() ? models.small_vae(name, {}) : small_video_vae(models, format, video);
    if (loaded) return loaded;
  } catch (const Error& error) {
    log::warn_once(fmt::format("previews are made by linear factors: {}", error.what()));
    return nullptr;
  }
  log::warn_once(
      fmt::format("previews by TAESD want vae_approx/{}{}, which is not there: they are "
                  "made by linear factors; {}",
                  name, video.empty() ? "_decoder" : "", models.folders().searched("vae_approx")));
  return nullptr;
}

}  // namespace

Previewer::Previewer(ModelCache& models, const models::LatentFormat& format)
    : format_(format), engine_(models.engine()) {
  auto method = models.settings().previews;
  if (method == PreviewMethod::None) return;
  if (method == PreviewMethod::Taesd) small_ = small_vae_for(models, format);
  linear_ = !format.rgb_factors.empty();
}

Tensor Previewer::operator()(const Tensor& x0) {
  if (small_) try {
      auto first = x0.narrow(0, 0, 1);
      const bool video = small_->network->shape().dimensions == 3;
      // Those of video decode the network's latents as they are.
      if (video) first = first.narrow(2, 0, 1);
      first = first.to(at::kCPU, at::kFloat);
      auto image =
          VaeCoding({small_}, engine_).decode(video ? first : format_.out_of_network(first));
      return image[0].mul(255.0).to(at::kByte).contiguous();
    } catch (const std::exception& problem) {
      if (!device::is_out_of_memory(problem)) throw;
      log::warn("TAESD does not fit beside the model, previews are made by linear factors");
      small_ = nullptr;
    }
  return preview_pixels(format_, x0);
}

}  // namespace distorch::nodes
