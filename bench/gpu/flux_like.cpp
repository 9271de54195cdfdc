#include "bench/gpu/flux_like.h"

#include <ATen/ATen.h>

#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/linear.h"

namespace distorch::bench {
namespace {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

constexpr std::int64_t kHeadWidth = 128;

/// layer_norm(x) · (1 + scale) + shift
Tensor modulate(const Tensor& x, const Tensor& shift, const Tensor& scale) {
  return at::addcmul(shift, at::layer_norm(x, {x.size(-1)}, {}, {}, 1e-6), scale + 1);
}

/// x + gate · y
Tensor gated(const Tensor& x, const Tensor& gate, const Tensor& y) {
  return at::addcmul(x, gate, y);
}

/// [1, width] -> `parts` tensors [1, 1, width].
Tensors modulation(const nn::Linear& layer, const Tensor& vector, std::int64_t parts) {
  return layer(nn::silu(vector)).unsqueeze(1).chunk(parts, -1);
}

/// One of the two streams of a double block.
struct Stream {
  Stream(const Scope& s, const std::string& name, std::int64_t width)
      : mod(s / (name + "_mod") / "lin", width, 6 * width),
        qkv(s / (name + "_attn") / "qkv", width, 3 * width),
        proj(s / (name + "_attn") / "proj", width, width),
        mlp_in(s / (name + "_mlp") / 0, width, 4 * width),
        mlp_out(s / (name + "_mlp") / 2, 4 * width, width) {}

  Tensor finish(const Tensor& x, const Tensor& attended, const Tensors& m) const {
    auto y = gated(x, m[2], proj(attended));
    return gated(y, m[5], mlp_out(nn::gelu(mlp_in(modulate(y, m[3], m[4])))));
  }

  nn::Linear mod, qkv, proj, mlp_in, mlp_out;
};

struct DoubleBlock {
  DoubleBlock(const Scope& s, std::int64_t width)
      : block(s), heads(width / kHeadWidth), image(s, "img", width), text(s, "txt", width) {}

  Tensors forward(const Tensors& inputs) const {
    return block.run(inputs, [this](const Tensors& in) -> Tensors {
      auto image_mod = modulation(image.mod, in[2], 6), text_mod = modulation(text.mod, in[2], 6);
      auto qkv = at::cat({text.qkv(modulate(in[1], text_mod[0], text_mod[1])),
                          image.qkv(modulate(in[0], image_mod[0], image_mod[1]))},
                         1)
                     .chunk(3, -1);
      auto attended = nn::attention(qkv[0], qkv[1], qkv[2], {.heads = heads});
      auto length = in[1].size(1);
      return {image.finish(in[0], attended.narrow(1, length, in[0].size(1)), image_mod),
              text.finish(in[1], attended.narrow(1, 0, length), text_mod)};
    });
  }

  weights::Block block;
  std::int64_t heads;
  Stream image, text;
};

struct SingleBlock {
  SingleBlock(const Scope& s, std::int64_t width)
      : block(s),
        heads(width / kHeadWidth),
        width(width),
        mod(s / "modulation" / "lin", width, 3 * width),
        in(s / "linear1", width, 7 * width),
        out(s / "linear2", 5 * width, width) {}

  Tensor forward(const Tensor& x, const Tensor& vector) const {
    return block.run1({x, vector}, [this](const Tensors& given) {
      auto m = modulation(mod, given[1], 3);
      auto h = in(modulate(given[0], m[0], m[1]));
      auto qkv = h.narrow(-1, 0, 3 * width).chunk(3, -1);
      auto attended = nn::attention(qkv[0], qkv[1], qkv[2], {.heads = heads});
      auto both = at::cat({attended, nn::gelu(h.narrow(-1, 3 * width, 4 * width))}, -1);
      return gated(given[0], m[2], out(both));
    });
  }

  weights::Block block;
  std::int64_t heads, width;
  nn::Linear mod, in, out;
};

}  // namespace

struct FluxLike::Parts {
  std::vector<DoubleBlock> doubles;
  std::vector<SingleBlock> singles;
};

FluxLike::FluxLike(const weights::Checkpoint& checkpoint)
    : width_(checkpoint.shape("single_blocks.0.linear2.weight")[0]) {
  auto parts = std::make_unique<Parts>();
  Scope root(manifest_);
  for (int i = 0; i < checkpoint.count("double_blocks."); ++i)
    parts->doubles.emplace_back((root / "double_blocks" / i).block(), width_);
  for (int i = 0; i < checkpoint.count("single_blocks."); ++i)
    parts->singles.emplace_back((root / "single_blocks" / i).block(), width_);
  parts_ = std::move(parts);
}

FluxLike::~FluxLike() = default;

at::Tensor FluxLike::forward(const FluxInputs& inputs) const {
  auto image = inputs.image, text = inputs.text;
  for (const auto& block : parts_->doubles) {
    auto both = block.forward({image, text, inputs.vector});
    image = both[0];
    text = both[1];
  }
  auto length = text.size(1);
  auto x = at::cat({text, image}, 1);
  text = image = at::Tensor();
  for (const auto& block : parts_->singles) x = block.forward(x, inputs.vector);
  return x.narrow(1, length, x.size(1) - length);
}

}  // namespace distorch::bench
