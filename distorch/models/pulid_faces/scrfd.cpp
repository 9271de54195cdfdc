#include "distorch/models/pulid_faces/scrfd.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "distorch/base/error.h"

namespace distorch::models::pulid_faces {

using at::Tensor;

namespace {

constexpr float kLeastScore = 0.5f;
constexpr float kMostOverlap = 0.4f;
constexpr std::size_t kLandmarkNumbers = 10;

Tensor normalised(const Tensor& picture, double mean, double deviation) {
  auto x = (picture.to(at::kFloat) - mean) / deviation;
  return x.permute({2, 0, 1}).unsqueeze(0).contiguous();
}

/// Outputs of one level: as many rows as it has anchors.
Tensor level_of(const Tensor& output, std::int64_t rows, std::int64_t columns,
                const std::string& where) {
  if (output.numel() != rows * columns)
    throw Error(ErrorKind::Shape, where,
                fmt::format("gives {} numbers where a level of {} anchors has {}", output.numel(),
                            rows, rows * columns));
  return output.to(at::kCPU, at::kFloat).reshape({rows, columns}).contiguous();
}

}  // namespace

FaceTask task_of(const formats::OnnxGraph& graph) {
  if (graph.outputs.size() >= 5) return FaceTask::Detection;
  const auto& shape = graph.inputs.front().shape;
  constexpr std::int64_t least = 112, step = 16;
  // Of 192 pixels a side are networks for landmarks.
  if (graph.outputs.size() == 1 && shape.size() == 4 && shape[2] == shape[3] && shape[2] >= least &&
      shape[2] % step == 0 && shape[2] != 192)
    return FaceTask::Recognition;
  return FaceTask::Other;
}

Letterboxed letterboxed(const Tensor& picture, std::int64_t size) {
  const auto height = static_cast<double>(picture.size(0)),
             width = static_cast<double>(picture.size(1));
  const double ratio = height / width;
  const auto side = static_cast<double>(size);
  auto inner_height = ratio > 1 ? size : static_cast<std::int64_t>(side * ratio),
       inner_width = ratio > 1 ? static_cast<std::int64_t>(side / ratio) : size;
  inner_height = std::max<std::int64_t>(inner_height, 1);
  inner_width = std::max<std::int64_t>(inner_width, 1);
  auto square = at::zeros({size, size, 3}, at::TensorOptions(at::kByte));
  square.narrow(0, 0, inner_height)
      .narrow(1, 0, inner_width)
      .copy_(resized_bytes(picture, inner_height, inner_width));
  return {normalised(square, 127.5, 128.0), static_cast<double>(inner_height) / height};
}

std::vector<FoundFace> scrfd_faces(const weights::Tensors& outputs, std::int64_t size, double scale,
                                   const std::string& where) {
  const bool wide = outputs.size() == 15;
  if (outputs.size() != 9 && !wide)
    throw Error(ErrorKind::Shape, where,
                fmt::format("has {} outputs; one that finds faces with landmarks has 9 or 15 "
                            "(scrfd_10g_bnkps.onnx)",
                            outputs.size()));
  const std::size_t levels = wide ? 5 : 3;
  const std::int64_t anchors = wide ? 1 : 2;
  std::vector<FoundFace> faces;
  for (std::size_t level = 0; level < levels; ++level) {
    const std::int64_t stride = std::int64_t{8} << level, side = size / stride;
    const auto rows = side * side * anchors;
    const auto scores = level_of(outputs[level], rows, 1, where),
               boxes = level_of(outputs[level + levels], rows, 4, where),
               landmarks = level_of(outputs[level + 2 * levels], rows, kLandmarkNumbers, where);
    const auto* score = scores.const_data_ptr<float>();
    const auto step = static_cast<float>(stride);
    const auto factor = static_cast<float>(scale);
    for (std::int64_t row = 0; row < rows; ++row) {
      if (!(score[row] >= kLeastScore)) continue;
      const auto cell = row / anchors;
      const auto x = static_cast<float>(cell % side * stride),
                 y = static_cast<float>(cell / side * stride);
      const auto* box = boxes.const_data_ptr<float>() + row * 4;
      const auto* marks = landmarks.const_data_ptr<float>() + row * 10;
      FoundFace face{.left = (x - box[0] * step) / factor,
                     .top = (y - box[1] * step) / factor,
                     .right = (x + box[2] * step) / factor,
                     .bottom = (y + box[3] * step) / factor,
                     .score = score[row],
                     .landmarks = {}};
      for (std::size_t i = 0; i < face.landmarks.size(); ++i)
        face.landmarks[i] = {(x + marks[2 * i] * step) / factor,
                             (y + marks[2 * i + 1] * step) / factor};
      faces.push_back(face);
    }
  }
  return without_overlaps(std::move(faces), kMostOverlap, 1);
}

const FoundFace* largest(const std::vector<FoundFace>& faces) {
  auto area = [](const FoundFace& f) { return (f.right - f.left) * (f.bottom - f.top); };
  const FoundFace* best = nullptr;
  for (const auto& face : faces)
    if (!best || area(face) >= area(*best)) best = &face;
  return best;
}

Tensor arcface_pixels(const Tensor& picture, const Landmarks& landmarks,
                      const formats::OnnxGraph& graph) {
  constexpr std::array<Point, 5> usual = {{{38.2946, 51.6963},
                                           {73.5318, 51.5014},
                                           {56.0252, 71.7366},
                                           {41.5493, 92.3655},
                                           {70.7299, 92.2041}}};
  const auto size = graph.inputs.front().shape[2];
  const bool by_112 = size % 112 == 0;
  const double ratio = static_cast<double>(size) / (by_112 ? 112.0 : 128.0);
  std::vector<Point> to;
  for (const auto& point : usual)
    to.push_back({point.x * ratio + (by_112 ? 0.0 : 8.0 * ratio), point.y * ratio});
  auto face = moved(picture, similarity({landmarks.begin(), landmarks.end()}, to), size, {0, 0, 0});
  // Networks that came from MXNet subtract and multiply themselves.
  bool subtracts = false, multiplies = false;
  for (std::size_t i = 0; i < std::min<std::size_t>(8, graph.nodes.size()); ++i) {
    const auto& name = graph.nodes[i].name;
    subtracts = subtracts || name.starts_with("Sub") || name.starts_with("_minus");
    multiplies = multiplies || name.starts_with("Mul") || name.starts_with("_mul");
  }
  return subtracts && multiplies ? normalised(face, 0, 1) : normalised(face, 127.5, 127.5);
}

}  // namespace distorch::models::pulid_faces
