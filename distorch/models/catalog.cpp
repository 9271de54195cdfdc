#include "distorch/models/catalog.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/error.h"
#include "distorch/models/causal_vae/autoencoder.h"
#include "distorch/models/flux/family.h"
#include "distorch/models/hunyuan_vae/autoencoder.h"
#include "distorch/models/hunyuan_vae15/autoencoder.h"
#include "distorch/models/hunyuan_video/family.h"
#include "distorch/models/ltxv/family.h"
#include "distorch/models/ltxv_vae/autoencoder.h"
#include "distorch/models/qwen_image/family.h"
#include "distorch/models/sd1/family.h"
#include "distorch/models/sd2/family.h"
#include "distorch/models/sd2/unclip.h"
#include "distorch/models/sd3/family.h"
#include "distorch/models/sdxl/family.h"
#include "distorch/models/taehv/autoencoder.h"
#include "distorch/models/taesd/autoencoder.h"
#include "distorch/models/vae/autoencoder.h"
#include "distorch/models/wan/family.h"
#include "distorch/models/z_image/family.h"

namespace distorch::models {

using weights::Checkpoint;

const std::vector<FamilyKind>& families() {
  static const std::vector<FamilyKind> list = {
      {"SD1.x", sd1::detect},
      {"SD2.x", sd2::detect},
      {"SD2.1 unCLIP", sd2::detect_unclip},
      {"SDXL", sdxl::detect},
      {"SDXL refiner", sdxl::detect_refiner},
      {"SD3", sd3::detect},
      {"Z-Image", z_image::detect},
      {"Lumina 2", z_image::detect_lumina},
      {"Qwen-Image", qwen_image::detect},
      {"Wan", wan::detect},
      {"HunyuanVideo", hunyuan_video::detect},
      {"LTX-Video", ltxv::detect},
      {"FLUX.1", flux::detect},
      {"FLUX.2", flux::detect_second},
  };
  return list;
}

std::shared_ptr<const Family> find_family(const Checkpoint& file) {
  for (const std::string prefix :
       {"model.diffusion_model.", "diffusion_model.", "model.model.", "unet.", ""}) {
    auto below = prefix.empty() ? file : file.part(prefix);
    if (below.empty()) continue;
    for (const auto& kind : families())
      if (auto family = kind.detect(below, file)) return family;
  }
  return nullptr;
}

std::shared_ptr<const Family> detect_family(const Checkpoint& file) {
  if (auto family = find_family(file)) return family;
  std::vector<std::string> names;
  for (const auto& kind : families()) names.push_back(kind.name);
  auto encoder = encoder_title(file);
  throw Error(
      ErrorKind::Format, file.path(),
      fmt::format("holds no diffusion model of a known family ({}){}", fmt::join(names, ", "),
                  encoder.empty() ? "" : "; it holds the text encoder " + encoder));
}

VaePart find_vae(const Checkpoint& file) {
  if (auto part = causal_vae::part_of(file); !part.empty())
    return {part, [config = causal_vae::config_of(part)]() -> std::unique_ptr<VaeNetwork> {
              return std::make_unique<causal_vae::CausalAutoencoder>(config);
            }};
  if (auto part = hunyuan_vae::part_of(file); !part.empty())
    return {part, [config = hunyuan_vae::config_of(part)]() -> std::unique_ptr<VaeNetwork> {
              return std::make_unique<hunyuan_vae::Autoencoder>(config);
            }};
  if (auto part = ltxv_vae::part_of(file); !part.empty())
    return {part, [config = ltxv_vae::config_of(part)]() -> std::unique_ptr<VaeNetwork> {
              return std::make_unique<ltxv_vae::Autoencoder>(config);
            }};
  if (auto part = hunyuan_vae15::part_of(file); !part.empty())
    return {part, [config = hunyuan_vae15::config_of(part)]() -> std::unique_ptr<VaeNetwork> {
              return std::make_unique<hunyuan_vae15::Autoencoder>(config);
            }};
  if (auto part = taehv::part_of(file); !part.empty())
    return {part, [config = taehv::config_of(part)]() -> std::unique_ptr<VaeNetwork> {
              return std::make_unique<taehv::Autoencoder>(config);
            }};
  if (auto part = taesd::part_of(file); !part.empty())
    return {part, [config = taesd::config_of(part)]() -> std::unique_ptr<VaeNetwork> {
              return std::make_unique<taesd::Autoencoder>(config);
            }};
  auto part = vae::vae_part(file);
  if (part.empty()) return {};
  return {part, [config = vae::vae_config(part)]() -> std::unique_ptr<VaeNetwork> {
            return std::make_unique<vae::Autoencoder>(config);
          }};
}

}  // namespace distorch::models
