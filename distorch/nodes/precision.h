#pragma once
#include <string>

#include "distorch/nodes/settings.h"

namespace distorch::nodes {

/// What the weights of a pack's model compute in: what its node asks for ("fp16", "bf16", else
/// float32), as far as the device can and the settings allow.
inline at::ScalarType precision_named(const std::string& precision, const Settings& settings,
                                      const device::DeviceInfo& device) {
  auto asked = settings;
  asked.text_dtype = settings.force_fp32   ? at::kFloat
                     : precision == "fp16" ? at::kHalf
                     : precision == "bf16" ? at::kBFloat16
                                           : at::kFloat;
  return text_dtype(asked, device);
}

}  // namespace distorch::nodes
