// libFuzzer target: an allocation string is read or refused with Error(Usage), and what was read is
// sane.
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "distorch/base/error.h"
#include "distorch/placement/allocation_string.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    auto allocation = distorch::placement::parse_full_allocation(text);
    for (const auto& share : allocation.shares) {
      bool sane = std::isfinite(share.amount) && share.amount >= 0 && share.amount < 9e18 &&
                  !share.device.empty() &&
                  distorch::placement::normal_device(share.device) == share.device;
      if (!sane) std::abort();
    }
    if (!std::isfinite(allocation.virtual_bytes) || allocation.virtual_bytes < 0) std::abort();
  } catch (const distorch::Error& error) {
    if (error.kind() != distorch::ErrorKind::Usage) std::abort();
  }
  return 0;
}
