#include "distorch/models/upscale/upscale.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/error.h"
#include "distorch/models/upscale/compact.h"
#include "distorch/models/upscale/dat.h"
#include "distorch/models/upscale/hat.h"
#include "distorch/models/upscale/rrdb.h"
#include "distorch/models/upscale/swin_ir.h"

namespace distorch::models::upscale {

using at::Tensor;
using weights::Checkpoint;

namespace {

/// A kind of network: recognised by its names, or nothing.
struct Kind {
  const char* name;
  UpscalePart (*find)(const Checkpoint& file);
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> list = {
      {"ESRGAN", find_rrdb},
      {"SwinIR", find_swin_ir},
      {"HAT", find_hat},
      {"DAT", find_dat},
      {"RealESRGAN compact", find_compact},
  };
  return list;
}

std::int64_t padded(std::int64_t side, const UpscaleShape& shape) {
  side = std::max(side, shape.smallest);
  return (side + shape.multiple_of - 1) / shape.multiple_of * shape.multiple_of;
}

}  // namespace

Tensor upscale(const UpscaleNetwork& network, const Tensor& image) {
  auto shape = network.shape();
  if (image.size(1) != shape.in_channels)
    throw Error(
        ErrorKind::Shape, "upscale model",
        fmt::format("works on pictures of {} channels, got {}", shape.in_channels, image.size(1)));
  auto height = image.size(2), width = image.size(3);
  auto right = padded(width, shape) - width, down = padded(height, shape) - height;
  auto x = image;
  // A mirror shows at most the picture itself; beyond it the last row goes on.
  auto mirrored_right = std::min(right, width - 1), mirrored_down = std::min(down, height - 1);
  if (mirrored_right > 0 || mirrored_down > 0)
    x = at::reflection_pad2d(x, {0, mirrored_right, 0, mirrored_down});
  if (right > mirrored_right || down > mirrored_down)
    x = at::replication_pad2d(x, {0, right - mirrored_right, 0, down - mirrored_down});
  return network.forward(x)
      .clamp(0, 1)
      .narrow(2, 0, height * shape.scale)
      .narrow(3, 0, width * shape.scale);
}

UpscalePart find_upscale(const Checkpoint& file) {
  // Training keeps several states in one file: the averaged one counts.
  for (const std::string prefix :
       {"", "model_state_dict.", "state_dict.", "params_ema.", "params-ema.", "params.", "model.",
        "net.", "module.", "netG."}) {
    auto part = prefix.empty() ? file : file.part(prefix);
    if (part.empty()) continue;
    for (const auto& kind : kinds())
      if (auto found = kind.find(part); found.make) return found;
  }
  std::vector<std::string> names;
  for (const auto& kind : kinds()) names.emplace_back(kind.name);
  throw Error(ErrorKind::Format, file.path(),
              fmt::format("holds no upscale model of a known kind ({})", fmt::join(names, ", ")));
}

}  // namespace distorch::models::upscale
