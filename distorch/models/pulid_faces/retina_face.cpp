#include "distorch/models/pulid_faces/retina_face.h"

#include <fmt/format.h>

#include <cmath>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::pulid_faces {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr std::int64_t kLevels = 3, kAnchors = 2;
constexpr float kLeastScore = 0.97f, kMostOverlap = 0.4f;
constexpr std::int64_t kFaceSize = 512;

nn::ConvOptions square(std::int64_t kernel) { return {.kernel = kernel, .padding = kernel / 2}; }

/// Three fields of view, 3, 5 and 7 pixels wide.
class Context {
 public:
  Context(const Scope& s, std::int64_t channels, double slope)
      : slope_(slope),
        three_(part(s / "conv3X3", channels, channels / 2)),
        five_first_(part(s / "conv5X5_1", channels, channels / 4)),
        five_(part(s / "conv5X5_2", channels / 4, channels / 4)),
        seven_first_(part(s / "conv7X7_2", channels / 4, channels / 4)),
        seven_(part(s / "conv7x7_3", channels / 4, channels / 4)) {}
  Tensor operator()(const Tensor& x) const {
    auto five = at::leaky_relu(five_first_(x), slope_);
    return at::relu(
        at::cat({three_(x), five_(five), seven_(at::leaky_relu(seven_first_(five), slope_))}, 1));
  }

 private:
  static ConvNorm part(const Scope& s, std::int64_t in, std::int64_t out) {
    return {s / 0, s / 1, in, out};
  }
  double slope_;
  ConvNorm three_, five_first_, five_, seven_first_, seven_;
};

}  // namespace

/// From the three stages of the body to what each anchor says.
class RetinaFace::Levels {
 public:
  Levels(const Scope& s, const RetinaFaceConfig& c)
      : block_(s), slope_(c.channels <= 64 ? 0.1 : 0) {
    const auto fpn = s / "fpn";
    for (std::int64_t i = 0; i < kLevels; ++i) {
      const auto out = fpn / fmt::format("output{}", i + 1);
      outputs_.emplace_back(out / 0, out / 1, c.body.channels(static_cast<std::size_t>(i + 1)),
                            c.channels, square(1));
      if (i + 1 < kLevels) {
        const auto merge = fpn / fmt::format("merge{}", i + 1);
        merges_.emplace_back(merge / 0, merge / 1, c.channels, c.channels);
      }
      contexts_.emplace_back(s / fmt::format("ssh{}", i + 1), c.channels, slope_);
      auto head = [&](const char* name, std::int64_t numbers) {
        return nn::Conv2d(s / name / i / "conv1x1", c.channels, kAnchors * numbers, nn::pointwise);
      };
      heads_.push_back({head("BboxHead", 4), head("ClassHead", 2), head("LandmarkHead", 10)});
    }
  }

  Tensors forward(const Tensors& stages) const {
    return block_.run(stages, [this](const Tensors& in) {
      std::vector<Tensor> levels;
      for (std::size_t i = 0; i < in.size(); ++i)
        levels.push_back(at::leaky_relu(outputs_[i](in[i]), slope_));
      for (std::size_t i = levels.size() - 1; i-- > 0;) {
        auto up = nn::upsample_nearest(levels[i + 1], levels[i].size(2), levels[i].size(3));
        levels[i] = at::leaky_relu(merges_[i](levels[i] + up), slope_);
      }
      std::array<Tensors, 3> said;
      for (std::size_t i = 0; i < levels.size(); ++i) {
        auto seen = contexts_[i](levels[i]);
        for (std::size_t k = 0; k < said.size(); ++k) {
          const auto numbers = heads_[i][k](seen).permute({0, 2, 3, 1}).to(at::kFloat);
          constexpr std::array<std::int64_t, 3> widths = {4, 2, 10};
          said[k].push_back(numbers.reshape({-1, widths[k]}));
        }
      }
      return Tensors{at::cat(said[0]), at::softmax(at::cat(said[1]), -1).select(1, 1),
                     at::cat(said[2])};
    });
  }

 private:
  weights::Block block_;
  double slope_;
  std::vector<ConvNorm> outputs_, merges_;
  std::vector<Context> contexts_;
  std::vector<std::array<nn::Conv2d, 3>> heads_;
};

RetinaFace::RetinaFace(const RetinaFaceConfig& config) {
  const Scope root(manifest_);
  body_ = std::make_unique<const ResNet>(root / "body", config.body);
  levels_ = std::make_unique<const Levels>(root.block("levels"), config);
}

RetinaFace::~RetinaFace() = default;

Tensors RetinaFace::forward(const Tensor& x) const { return levels_->forward(body_->forward(x)); }

Checkpoint retina_face_part(const Checkpoint& file) {
  for (const std::string prefix : {"module.", ""}) {
    auto part = file.part(prefix);
    if (part.has("body.conv1.weight") && part.has("ssh1.conv3X3.0.weight")) return part;
  }
  throw Error(ErrorKind::Format, file.path(),
              "holds no RetinaFace with a ResNet, with tensors such as 'body.conv1.weight' and "
              "'ssh1.conv3X3.0.weight' (detection_Resnet50_Final.pth)");
}

RetinaFaceConfig retina_face_config(const Checkpoint& part) {
  return {resnet_config(part, "body."), size_of(part, "fpn.output1.0.weight", 0)};
}

Tensor retina_pixels(const Tensor& picture) {
  auto x = picture.flip({2}).to(at::kFloat) - at::tensor({104.f, 117.f, 123.f});
  return x.permute({2, 0, 1}).unsqueeze(0).contiguous();
}

std::vector<FoundFace> retina_faces(const Tensors& outputs, std::int64_t height,
                                    std::int64_t width) {
  const auto boxes = outputs[0].to(at::kCPU).contiguous(),
             scores = outputs[1].to(at::kCPU).contiguous(),
             landmarks = outputs[2].to(at::kCPU).contiguous();
  const auto* score = scores.const_data_ptr<float>();
  constexpr float near = 0.1f, far = 0.2f;  // what offsets and sizes were divided by
  const auto wide = static_cast<float>(width), high = static_cast<float>(height);
  std::vector<FoundFace> faces;
  std::int64_t row = 0;
  for (std::int64_t level = 0; level < kLevels; ++level) {
    const std::int64_t step = std::int64_t{8} << level;
    const std::int64_t rows = (height + step - 1) / step, columns = (width + step - 1) / step;
    for (std::int64_t cell = 0; cell < rows * columns; ++cell)
      for (std::int64_t anchor = 0; anchor < kAnchors; ++anchor, ++row) {
        if (!(score[row] > kLeastScore)) continue;
        const auto size = static_cast<float>(std::int64_t{16} << (2 * level + anchor));
        const float x = (static_cast<float>(cell % columns) + 0.5f) * static_cast<float>(step) /
                        wide,
                    y = (static_cast<float>(cell / columns) + 0.5f) * static_cast<float>(step) /
                        high,
                    w = size / wide, h = size / high;
        const auto* box = boxes.const_data_ptr<float>() + row * 4;
        const auto* marks = landmarks.const_data_ptr<float>() + row * 10;
        const float bw = w * std::exp(box[2] * far), bh = h * std::exp(box[3] * far);
        const float left = x + box[0] * near * w - bw / 2, top = y + box[1] * near * h - bh / 2;
        FoundFace face{.left = left * wide,
                       .top = top * high,
                       .right = (left + bw) * wide,
                       .bottom = (top + bh) * high,
                       .score = score[row],
                       .landmarks = {}};
        for (std::size_t i = 0; i < face.landmarks.size(); ++i)
          face.landmarks[i] = {(x + marks[2 * i] * near * w) * wide,
                               (y + marks[2 * i + 1] * near * h) * high};
        faces.push_back(face);
      }
  }
  return without_overlaps(std::move(faces), kMostOverlap, 0);
}

const FoundFace* central(const std::vector<FoundFace>& faces, std::int64_t height,
                         std::int64_t width) {
  const FoundFace* best = nullptr;
  double least = 0;
  for (const auto& face : faces) {
    const double distance =
        std::hypot((face.left + face.right) / 2 - static_cast<double>(width) / 2,
                   (face.top + face.bottom) / 2 - static_cast<double>(height) / 2);
    if (best && distance >= least) continue;
    best = &face;
    least = distance;
  }
  return best;
}

Tensor aligned_face(const Tensor& picture, const Landmarks& landmarks) {
  constexpr Landmarks usual = {{{192.98138, 239.94708},
                                {318.90277, 240.1936},
                                {256.63416, 314.01935},
                                {201.26117, 371.41043},
                                {313.08905, 371.15118}}};
  // The gray is given blue first there.
  return moved(picture, robust_similarity(landmarks, usual), kFaceSize, {132, 133, 135});
}

}  // namespace distorch::models::pulid_faces
