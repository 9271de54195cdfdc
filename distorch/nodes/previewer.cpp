#include "distorch/nodes/previewer.h"

#include <fmt/format.h>

#include "distorch/base/log.h"
#include "distorch/device/memory.h"
#include "distorch/models/taesd/autoencoder.h"
#include "distorch/nodes/sampled_model.h"
#include "distorch/nodes/vae_coding.h"

namespace distorch::nodes {

using at::Tensor;

namespace {

/// The TAESD for latents of this format; null, with a warning, where there is none.
std::shared_ptr<LoadedVae> small_vae_for(ModelCache& models, const models::LatentFormat& format) {
  auto name = models::taesd::name_for(format);
  if (name.empty()) return nullptr;
  auto loaded = models.small_vae(name, {});
  if (!loaded)
    log::warn_once(
        fmt::format("previews by TAESD want vae_approx/{}_decoder, which is not there: they are "
                    "made by linear factors; {}",
                    name, models.folders().searched("vae_approx")));
  return loaded;
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
      auto first = x0.narrow(0, 0, 1).to(at::kCPU, at::kFloat);
      auto image = VaeCoding({small_}, engine_).decode(format_.out_of_network(first));
      return image[0].mul(255.0).to(at::kByte).contiguous();
    } catch (const std::exception& problem) {
      if (!device::is_out_of_memory(problem)) throw;
      log::warn("TAESD does not fit beside the model, previews are made by linear factors");
      small_ = nullptr;
    }
  return preview_pixels(format_, x0);
}

}  // namespace distorch::nodes
