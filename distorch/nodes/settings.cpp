#include "distorch/nodes/settings.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/base/log.h"

namespace distorch::nodes {

namespace {

using formats::DType;

// The host's own skills decide for a simulated device: its kernels are the CPU's.
device::DeviceInfo kernels_of(const device::DeviceInfo& device) {
  return device.kind == "sim" ? device::find_device("cpu") : device;
}

at::ScalarType fast_type(const device::DeviceInfo& device) {
  auto kernels = kernels_of(device);
  return kernels.accelerator || kernels.fast_bf16 ? at::kBFloat16 : at::kFloat;
}

std::optional<at::ScalarType> asked(const Settings& settings, std::optional<at::ScalarType> part) {
  if (part) return part;
  if (settings.force_fp32) return at::kFloat;
  if (settings.force_fp16) return at::kHalf;
  return {};
}

// float16 on a CPU is slow and overflows.
at::ScalarType possible(at::ScalarType dtype, const device::DeviceInfo& device, const char* part) {
  if (dtype != at::kHalf || device.kind == "cuda") return dtype;
  auto instead = fast_type(device);
  log::warn_once(fmt::format("{}: {} does not compute in float16, {} is used", part, device.name,
                             instead == at::kFloat ? "float32" : "bfloat16"));
  return instead;
}

}  // namespace

PreviewMethod preview_method(const std::string& name) {
  if (name == "none") return PreviewMethod::None;
  if (name == "auto" || name == "latent2rgb") return PreviewMethod::Latent2Rgb;
  if (name == "taesd") return PreviewMethod::Taesd;
  throw Error(ErrorKind::Usage, "--preview-method",
              fmt::format("'{}' is not known: none, auto, latent2rgb or taesd", name));
}

at::ScalarType unet_dtype(const Settings& settings, const device::DeviceInfo& device,
                          DType stored) {
  if (auto dtype = asked(settings, settings.unet_dtype)) return possible(*dtype, device, "UNet");
  if (device.kind == "cuda" && (stored == DType::F16 || stored == DType::BF16))
    return stored == DType::F16 ? at::kHalf : at::kBFloat16;
  if (device.kind == "sim" && stored == DType::F32) return at::kFloat;
  return fast_type(device);
}

at::ScalarType vae_dtype(const Settings& settings, const device::DeviceInfo& device) {
  if (settings.vae_dtype) return possible(*settings.vae_dtype, device, "VAE");
  return settings.force_fp32 ? at::kFloat : fast_type(device);
}

at::ScalarType text_dtype(const Settings& settings, const device::DeviceInfo& device) {
  if (settings.text_dtype) return possible(*settings.text_dtype, device, "text encoder");
  return at::kFloat;
}

}  // namespace distorch::nodes
