#pragma once
#include <memory>

#include "distorch/models/pulid_faces/resnet.h"

namespace distorch::models::pulid_faces {

struct BiSeNetConfig {
  ResNetConfig body;
  std::int64_t context = 128;  // channels behind it
  std::int64_t fused = 256;
  std::int64_t middle = 256;  // before the classes
  std::int64_t classes = 19;
};

/// facexlib's BiSeNet (parsing_bisenet.pth): which part of a face each pixel shows. Blocks: those of
/// ResNet below "cp.resnet", then "parts". Its outputs for training are left out. Source: Yu et al.
/// 2018; facexlib parsing/bisenet.py.
class BiSeNet {
 public:
  explicit BiSeNet(const BiSeNetConfig& config);
  ~BiSeNet();
  weights::Manifest& manifest() { return manifest_; }
  /// x [B, 3, H, W] float32, normalised -> [B, classes, H, W] float32, the largest is the answer.
  at::Tensor forward(const at::Tensor& x) const;

 private:
  class Parts;
  weights::Manifest manifest_;
  std::unique_ptr<const ResNet> body_;
  std::unique_ptr<const Parts> parts_;
};

/// The file's tensors. Error(Format) that says what would fit where it holds no such network.
weights::Checkpoint bisenet_part(const weights::Checkpoint& file);
BiSeNetConfig bisenet_config(const weights::Checkpoint& part);

/// A face [H, W, 3] uint8, red first, as it looks at it: [1, 3, H, W].
at::Tensor bisenet_pixels(const at::Tensor& face);
/// The face in gray on white, [1, 3, H, W] 0..1, by what BiSeNet said about it: white is what belongs
/// to no face (background, ears and what hangs there, neck, clothes, hat). Source: PuLID_ComfyUI
/// pulid.py.
at::Tensor face_on_white(const at::Tensor& face, const at::Tensor& parts);

}  // namespace distorch::models::pulid_faces
