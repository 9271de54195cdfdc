#include "distorch/models/clip_vision/style_model.h"

#include "distorch/base/error.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/patch.h"

namespace distorch::models::clip_vision {

using at::Tensor;
using weights::Checkpoint;
using weights::Manifest;
using weights::Scope;
using weights::Tensors;

namespace {

struct ReduxSizes {
  std::int64_t width, middle, out;
};

class Redux : public StyleNetwork {
 public:
  explicit Redux(const ReduxSizes& s)
      : scope_(Scope(manifest_).block("redux")),
        width_(s.width),
        out_(s.out),
        block_(scope_),
        up_(scope_ / "redux_up", s.width, s.middle),
        down_(scope_ / "redux_down", s.middle, s.out) {}

  Manifest& manifest() override { return manifest_; }
  std::int64_t width() const override { return width_; }

  Tensor forward(const Tensor& states) const override {
    return block_.run1({states}, [this](const Tensors& in) {
      return down_(nn::silu_over(up_(in[0].to(up_.dtype())))).to(at::kFloat);
    });
  }
  Tensor blank(const Tensor& states) const override {
    return at::zeros({states.size(0), states.size(1), out_});
  }

 private:
  Manifest manifest_;
  Scope scope_;
  std::int64_t width_, out_;
  weights::Block block_;
  nn::Linear up_, down_;
};

struct AdapterSizes {
  std::int64_t width = 1024, tokens = 8, out = 768, layers = 3;
};

/// x [B, L, width] -> the same shape, attention and layers around it in OpenCLIP's names.
class AdapterLayer {
 public:
  AdapterLayer(const Scope& s, std::int64_t width)
      : norm1_(s / "ln_1", width),
        norm2_(s / "ln_2", width),
        qkv_((s / "attn").weight("in_proj_weight", {3 * width, width})),
        qkv_bias_((s / "attn").weight("in_proj_bias", {3 * width})),
        out_(s / "attn" / "out_proj", width, width),
        up_(s / "mlp" / "c_fc", width, 4 * width),
        down_(s / "mlp" / "c_proj", 4 * width, width) {}

  Tensor forward(const Tensor& x) const {
    constexpr std::int64_t heads = 8;
    auto qkv = nn::linear(norm1_(x), qkv_, qkv_bias_).chunk(3, -1);
    auto y = out_(nn::attention(qkv[0], qkv[1], qkv[2], {.heads = heads})).add_(x);
    return down_(nn::quick_gelu(up_(norm2_(y)))).add_(y);
  }

 private:
  nn::LayerNorm norm1_, norm2_;
  weights::Weight qkv_, qkv_bias_;
  nn::Linear out_, up_, down_;
};

class Adapter : public StyleNetwork {
 public:
  explicit Adapter(const AdapterSizes& s)
      : scope_(Scope(manifest_).block("style")),
        sizes_(s),
        block_(scope_),
        tokens_(scope_.weight("style_embedding", {1, s.tokens, s.width})),
        before_(scope_ / "ln_pre", s.width),
        after_(scope_ / "ln_post", s.width),
        projection_(scope_.weight("proj", {s.width, s.out})) {
    for (std::int64_t i = 0; i < s.layers; ++i)
      layers_.emplace_back(scope_ / "transformer_layes" / i, s.width);
  }

  Manifest& manifest() override { return manifest_; }
  std::int64_t width() const override { return sizes_.width; }

  Tensor forward(const Tensor& states) const override {
    return block_.run1({states}, [this](const Tensors& in) {
      auto tokens = nn::patched(tokens_);
      auto x = at::cat({in[0].to(tokens.scalar_type()), tokens.expand({in[0].size(0), -1, -1})}, 1);
      x = before_(x);
      for (const auto& layer : layers_) x = layer.forward(x);
      x = after_(x.narrow(1, x.size(1) - sizes_.tokens, sizes_.tokens));
      return at::matmul(x, nn::patched(projection_)).to(at::kFloat);
    });
  }
  Tensor blank(const Tensor& states) const override {
    return at::zeros({states.size(0), sizes_.tokens, sizes_.out});
  }

 private:
  Manifest manifest_;
  Scope scope_;  // of the one block: the whole is small
  AdapterSizes sizes_;
  weights::Block block_;
  weights::Weight tokens_;
  nn::LayerNorm before_, after_;
  weights::Weight projection_;
  std::vector<AdapterLayer> layers_;
};

/// The shape of a matrix. Error(Format) for anything else.
std::vector<std::int64_t> matrix(const Checkpoint& file, const std::string& name) {
  const auto& shape = file.shape(name);
  if (shape.size() != 2)
    throw Error(ErrorKind::Format, file.path(), "has no matrix '" + name + "', as style models do");
  return shape;
}

}  // namespace

StylePart find_style(const Checkpoint& file) {
  if (file.has("redux_down.weight")) {
    auto up = matrix(file, "redux_up.weight"), down = matrix(file, "redux_down.weight");
    ReduxSizes sizes{up[1], up[0], down[0]};
    return {file, [sizes] { return std::make_unique<Redux>(sizes); }};
  }
  const auto* tokens = file.find("style_embedding");
  if (tokens && tokens->shape.size() == 3) {
    AdapterSizes sizes{tokens->shape[2], tokens->shape[1], matrix(file, "proj")[1],
                       file.count("transformer_layes.")};
    return {file, [sizes] { return std::make_unique<Adapter>(sizes); }};
  }
  throw Error(ErrorKind::Format, file.path(),
              "is no style model: FLUX.1 Redux (redux_up, redux_down) or a T2I style adapter "
              "(style_embedding) would fit");
}

}  // namespace distorch::models::clip_vision
