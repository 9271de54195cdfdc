#pragma once
#include <memory>
#include <vector>

#include "distorch/models/pulid_faces/geometry.h"
#include "distorch/models/pulid_faces/resnet.h"

namespace distorch::models::pulid_faces {

struct RetinaFaceConfig {
  ResNetConfig body;
  std::int64_t channels = 256;  // of the three levels behind it
};

/// facexlib's RetinaFace (detection_Resnet50_Final.pth), which finds the face that a picture is about.
/// Blocks: those of ResNet below "body", then "levels". Source: Deng et al. 2019; facexlib
/// detection/retinaface.py and retinaface_net.py.
class RetinaFace {
 public:
  explicit RetinaFace(const RetinaFaceConfig& config);
  ~RetinaFace();
  weights::Manifest& manifest() { return manifest_; }
  /// x [1, 3, H, W] float32, blue first, as retina_pixels() makes it -> of each anchor (two a cell, the
  /// levels at 1/8, 1/16, 1/32 one after the other) its box [N, 4], how likely it is a face [N] and
  /// its landmarks [N, 10], all float32.
  weights::Tensors forward(const at::Tensor& x) const;

 private:
  class Levels;
  weights::Manifest manifest_;
  std::unique_ptr<const ResNet> body_;
  std::unique_ptr<const Levels> levels_;
};

/// The file's tensors under this model's names. Error(Format) that says what would fit where it holds
/// none.
weights::Checkpoint retina_face_part(const weights::Checkpoint& file);
RetinaFaceConfig retina_face_config(const weights::Checkpoint& part);

/// A picture [H, W, 3] uint8, red first, as it looks at it: [1, 3, H, W].
at::Tensor retina_pixels(const at::Tensor& picture);
/// The faces in what it said about a picture of that size, scores above 0.97, the best first.
std::vector<FoundFace> retina_faces(const weights::Tensors& outputs, std::int64_t height,
                                    std::int64_t width);
/// The one nearest to the middle; null where there is none.
const FoundFace* central(const std::vector<FoundFace>& faces, std::int64_t height,
                         std::int64_t width);

/// The picture around a face as facexlib's FaceRestoreHelper crops it: [512, 512, 3] uint8, gray where
/// there is no picture.
at::Tensor aligned_face(const at::Tensor& picture, const Landmarks& landmarks);

}  // namespace distorch::models::pulid_faces
