#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "distorch/formats/onnx.h"
#include "distorch/models/pulid_faces/geometry.h"
#include "distorch/weights/manifest.h"

/// What insightface does around its networks: SCRFD, which finds faces, and ArcFace, which describes
/// one. Source: insightface 0.7.3, python-package/insightface/model_zoo (retinaface.py, scrfd.py,
/// arcface_onnx.py), utils/face_align.py. Pictures are [H, W, 3] uint8 on the CPU, red first.
namespace distorch::models::pulid_faces {

/// What a network of insightface's folders is for, by its inputs and outputs.
enum class FaceTask { Detection, Recognition, Other };
FaceTask task_of(const formats::OnnxGraph& graph);

/// A picture as SCRFD looks at it: in the upper left corner of a square.
struct Letterboxed {
  at::Tensor pixels;  // [1, 3, size, size] float32
  double scale = 1;   // its size over the picture's
};
Letterboxed letterboxed(const at::Tensor& picture, std::int64_t size);

/// The faces in what SCRFD said about a letterboxed picture, in pixels of the picture; the best first.
/// Error(Shape) naming `where` where the outputs are no scores, boxes and landmarks.
std::vector<FoundFace> scrfd_faces(const weights::Tensors& outputs, std::int64_t size, double scale,
                                   const std::string& where);
/// The largest one; null where there is none.
const FoundFace* largest(const std::vector<FoundFace>& faces);

/// A face as ArcFace looks at it, [1, 3, size, size] float32: turned upright, landmarks where training
/// had them.
at::Tensor arcface_pixels(const at::Tensor& picture, const Landmarks& landmarks,
                          const formats::OnnxGraph& graph);

}  // namespace distorch::models::pulid_faces
