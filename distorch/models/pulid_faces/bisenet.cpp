#include "distorch/models/pulid_faces/bisenet.h"

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::pulid_faces {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr nn::ConvOptions kPoint = {.kernel = 1, .padding = 0, .bias = false};

Tensor mean_of(const Tensor& x) { return x.mean({2, 3}, /*keepdim=*/true); }

/// A convolution, its norm and ReLU under the names that BiSeNet has.
class Unit {
 public:
  Unit(const Scope& s, std::int64_t in, std::int64_t out, std::int64_t kernel = 3)
      : layer_(s / "conv", s / "bn", in, out, {.kernel = kernel, .padding = kernel / 2}) {}
  Tensor operator()(const Tensor& x) const { return at::relu(layer_(x)); }

 private:
  ConvNorm layer_;
};

/// Channels weighed by what the whole picture shows.
class Refined {
 public:
  Refined(const Scope& s, std::int64_t in, std::int64_t out)
      : first_(s / "conv", in, out), weigh_(s / "conv_atten", s / "bn_atten", out, out, kPoint) {}
  Tensor operator()(const Tensor& x) const {
    auto h = first_(x);
    return h * at::sigmoid(weigh_(mean_of(h)));
  }

 private:
  Unit first_;
  ConvNorm weigh_;
};

}  // namespace

class BiSeNet::Parts {
 public:
  Parts(const Scope& s, const BiSeNetConfig& c)
      : block_(s),
        refined16_(s / "cp" / "arm16", c.body.channels(2), c.context),
        refined32_(s / "cp" / "arm32", c.body.channels(3), c.context),
        head32_(s / "cp" / "conv_head32", c.context, c.context),
        head16_(s / "cp" / "conv_head16", c.context, c.context),
        average_(s / "cp" / "conv_avg", c.body.channels(3), c.context, 1),
        fuse_(s / "ffm" / "convblk", c.body.channels(1) + c.context, c.fused, 1),
        squeeze_(s / "ffm" / "conv1", c.fused, c.fused / 4, kPoint),
        widen_(s / "ffm" / "conv2", c.fused / 4, c.fused, kPoint),
        middle_(s / "conv_out" / "conv", c.fused, c.middle),
        classes_(s / "conv_out" / "conv_out", c.middle, c.classes, kPoint) {}

  Tensor forward(const Tensors& stages) const {
    return block_.run1(stages, [this](const Tensors& in) {
      auto as = [](const Tensor& x, const Tensor& like) {
        return nn::upsample_nearest(x, like.size(2), like.size(3));
      };
      auto h = refined32_(in[2]) + average_(mean_of(in[2]));
      h = head32_(as(h, in[1]));
      h = head16_(as(refined16_(in[1]) + h, in[0]));
      h = fuse_(at::cat({in[0], h}, 1));
      h = h * at::sigmoid(widen_(at::relu(squeeze_(mean_of(h))))) + h;
      return classes_(middle_(h)).to(at::kFloat);
    });
  }

 private:
  weights::Block block_;
  Refined refined16_, refined32_;
  Unit head32_, head16_, average_, fuse_;
  nn::Conv2d squeeze_, widen_;
  Unit middle_;
  nn::Conv2d classes_;
};

BiSeNet::BiSeNet(const BiSeNetConfig& config) {
  const Scope root(manifest_);
  body_ = std::make_unique<const ResNet>(root / "cp" / "resnet", config.body);
  parts_ = std::make_unique<const Parts>(root.block("parts"), config);
}

BiSeNet::~BiSeNet() = default;

Tensor BiSeNet::forward(const Tensor& x) const {
  auto parts = parts_->forward(body_->forward(x));
  return at::upsample_bilinear2d(parts.contiguous(), {x.size(2), x.size(3)},
                                 /*align_corners=*/true);
}

Checkpoint bisenet_part(const Checkpoint& file) {
  if (file.has("cp.resnet.conv1.weight") && file.has("ffm.convblk.conv.weight")) return file;
  throw Error(ErrorKind::Format, file.path(),
              "holds no BiSeNet, with tensors such as 'cp.resnet.conv1.weight' and "
              "'ffm.convblk.conv.weight' (parsing_bisenet.pth)");
}

BiSeNetConfig bisenet_config(const Checkpoint& part) {
  return {.body = resnet_config(part, "cp.resnet."),
          .context = size_of(part, "cp.arm16.conv.conv.weight", 0),
          .fused = size_of(part, "ffm.convblk.conv.weight", 0),
          .middle = size_of(part, "conv_out.conv.conv.weight", 0),
          .classes = size_of(part, "conv_out.conv_out.weight", 0)};
}

Tensor bisenet_pixels(const Tensor& face) {
  const auto mean = at::tensor({0.485f, 0.456f, 0.406f}),
             spread = at::tensor({0.229f, 0.224f, 0.225f});
  auto x = (face.to(at::kFloat) / 255.0 - mean) / spread;
  return x.permute({2, 0, 1}).unsqueeze(0).contiguous();
}

Tensor face_on_white(const Tensor& face, const Tensor& parts) {
  const auto nothing = at::tensor({0, 7, 8, 9, 14, 15, 16, 18}, at::kLong);
  const auto white = at::isin(parts.argmax(1, /*keepdim=*/true), nothing);
  auto x = (face.to(at::kFloat) / 255.0).permute({2, 0, 1}).unsqueeze(0);
  auto gray = 0.299 * x.narrow(1, 0, 1) + 0.587 * x.narrow(1, 1, 1) + 0.114 * x.narrow(1, 2, 1);
  return at::where(white, at::ones_like(gray), gray).expand({-1, 3, -1, -1}).contiguous();
}

}  // namespace distorch::models::pulid_faces
