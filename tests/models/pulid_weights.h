#pragma once
#include "distorch/models/pulid/adapter.h"
#include "distorch/models/pulid/eva_vision.h"
#include "distorch/models/pulid_faces/bisenet.h"
#include "distorch/models/pulid_faces/retina_face.h"
#include "tests/models/tiny.h"

/// The narrow networks of tests/parity/make_pulid.py and their seeded weights.
namespace distorch::test {

inline models::pulid::EvaConfig tiny_eva() {
  return {.width = 128,
          .heads = 2,
          .layers = 21,
          .mlp_width = 341,
          .patch = 14,
          .grid = 3,
          .projection = 24};
}

inline models::pulid::AdapterConfig tiny_pulid() {
  models::pulid::AdapterConfig c{.identity = 40,
                                 .first = 40,
                                 .second = 80,
                                 .tokens = 5,
                                 .width = 128,
                                 .looks = 5,
                                 .context = 32,
                                 .layers = {}};
  // SDXL's 70 layers, of which the tiny one has the first in each place.
  for (std::int64_t i = 0; i < 70; ++i)
    c.layers.push_back({2 * i + 1, i < 4 || (i >= 54 && i < 60) ? 128 : 256});
  return c;
}

inline models::pulid_faces::RetinaFaceConfig tiny_retina() {
  return {{64, {1, 1, 1, 1}, true}, 256};
}
inline models::pulid_faces::BiSeNetConfig tiny_bisenet() {
  return {.body = {16, {2, 2, 2, 2}, false}, .context = 32, .fused = 64, .middle = 64};
}

/// The value of a tensor by the script's rules.
inline at::Tensor pulid_weight(const std::string& name, const std::vector<std::int64_t>& shape) {
  auto value = tiny_weight(name, shape);
  const bool bias = name.ends_with("bias");
  if (name.ends_with("running_var")) return value.abs() + 1;
  if (name.starts_with("LandmarkHead")) {
    if (!bias) return value * 0.05;
    const auto half =
        at::tensor({-0.25, -0.06, 0.25, -0.06, 0.0, 0.23, -0.21, 0.45, 0.22, 0.45}, at::kFloat) * 5;
    return half.repeat({2});
  }
  if (name.starts_with("BboxHead")) return value * 0.1;
  if (name.starts_with("ClassHead")) {
    if (!bias) return value * 0.08;
    const double high = name.find("Head.1.") != std::string::npos ? 1.5 : -3.0;
    return at::tensor({-high, high, -high, high}, at::kFloat);
  }
  return value;
}

/// All weights that a network declares, under `prefix` where files have them there. Seeded by the
/// names with `seeded` before them.
inline std::map<std::string, at::Tensor> pulid_tensors(const weights::Manifest& manifest,
                                                       const std::string& prefix = "",
                                                       const std::string& seeded = "") {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& weight : manifest.weights())
    tensors[prefix + weight.name] = pulid_weight(seeded + weight.name, weight.shape);
  return tensors;
}

/// A picture [B, H, W, 3] of 8 bits, smooth.
inline at::Tensor face_picture(const std::string& name, std::int64_t height, std::int64_t width,
                               std::int64_t batch = 1) {
  auto low = tiny_weight(name, {batch * 3 * 6 * 7}).view({batch, 3, 6, 7}) * 4 + 0.5;
  auto large = at::upsample_bicubic2d(low, {height, width}, /*align_corners=*/true);
  return ((large.clamp(0, 1) * 255).round() / 255).permute({0, 2, 3, 1}).contiguous();
}

}  // namespace distorch::test
