#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

/// Boxes, landmarks and aligned pictures, as insightface and facexlib have them with OpenCV and
/// scikit-image. Pictures here are [H, W, 3] uint8 on the CPU.
namespace distorch::models::pulid_faces {

struct Point {
  double x = 0, y = 0;
};
/// Eyes, nose, corners of the mouth; the eye and the corner that lie left in the picture come first.
using Landmarks = std::array<Point, 5>;

struct FoundFace {
  float left = 0, top = 0, right = 0, bottom = 0;  // pixels
  float score = 0;
  Landmarks landmarks;
};

/// Of faces that overlap by more than `most` of what they cover together the one with the highest
/// score, best first. `edge`: 1 where a box of pixels i to j is j - i + 1 wide (insightface), 0 where
/// it is j - i (torchvision).
std::vector<FoundFace> without_overlaps(std::vector<FoundFace> faces, float most, float edge);

/// x' = a·x - b·y + c, y' = b·x + a·y + d.
struct Similarity {
  double a = 1, b = 0, c = 0, d = 0;
  Point operator()(const Point& p) const { return {a * p.x - b * p.y + c, b * p.x + a * p.y + d}; }
};
/// The one with the least squares of distances, which scikit-image's SimilarityTransform is too.
Similarity similarity(const std::vector<Point>& from, const std::vector<Point>& to);
/// The one with the least median of squares over pairs of points, then fitted to those near it:
/// OpenCV's estimateAffinePartial2D with LMEDS, which draws pairs at random where this takes all ten.
Similarity robust_similarity(const Landmarks& from, const Landmarks& to);

/// The picture moved so, [size, size, 3]; bilinear, with `border` around it. Source: OpenCV 5,
/// warpAffine with INTER_LINEAR and BORDER_CONSTANT.
at::Tensor moved(const at::Tensor& picture, const Similarity& by, std::int64_t size,
                 std::array<float, 3> border);

/// The picture in another size, bilinear between the centres of pixels, as OpenCV's resize.
at::Tensor resized_bytes(const at::Tensor& picture, std::int64_t height, std::int64_t width);

}  // namespace distorch::models::pulid_faces
