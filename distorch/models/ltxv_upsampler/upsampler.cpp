#include "distorch/models/ltxv_upsampler/upsampler.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <optional>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/models/latent_check.h"
#include "distorch/models/tensor_size.h"
#include "distorch/nn/conv.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/patch.h"

namespace distorch::models::ltxv_upsampler {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr std::int64_t kGroups = 32;

/// A 3x3x3 convolution of clips [B, C, T, h, w]; beyond their edges are zeros.
class Conv {
 public:
  Conv(const Scope& s, std::int64_t in, std::int64_t out)
      : weight_(s.weight("weight", {out, in, 3, 3, 3})), bias_(s.weight("bias", {out})) {}
  Tensor operator()(const Tensor& x) const {
    return at::conv3d(x, nn::patched(weight_), nn::patched(bias_), at::IntArrayRef{1, 1, 1},
                      at::IntArrayRef{1, 1, 1});
  }
  at::ScalarType dtype() const { return weight_.dtype(); }

 private:
  weights::Weight weight_, bias_;
};

/// Group norm over all of a clip.
class Norm {
 public:
  Norm(const Scope& s, std::int64_t width) : norm_(s, width) {}
  Tensor operator()(const Tensor& x) const { return norm_(x.flatten(2, 3)).reshape(x.sizes()); }

 private:
  nn::GroupNorm norm_;
};

struct ResBlock {
  ResBlock(const Scope& s, std::int64_t width)
      : block(s),
        conv1(s / "conv1", width, width),
        norm1(s / "norm1", width),
        conv2(s / "conv2", width, width),
        norm2(s / "norm2", width) {}
  Tensor forward(const Tensor& x) const {
    throw_if_interrupted();
    return block.run1({x}, [this](const Tensors& in) {
      auto h = norm2(conv2(at::silu(norm1(conv1(in[0])))));
      return at::silu(h + in[0]);
    });
  }
  weights::Block block;
  Conv conv1;
  Norm norm1;
  Conv conv2;
  Norm norm2;
};

/// The step up: cells, frames or both are channels of a convolution first.
struct StepUp {
  StepUp(const Scope& s, const Config& c) : block(s), config(c) {
    const auto out = c.width * c.time * c.space * c.space;
    if (c.time == 1)
      flat.emplace(s / 0, c.width, out);
    else
      deep.emplace(s / 0, c.width, out);
  }
  Tensor forward(const Tensor& x) const {
    return block.run1({x}, [this](const Tensors& in) {
      const auto t = config.time, s = config.space;
      auto made = deep ? (*deep)(in[0]) : by_frame(in[0]);
      auto b = made.size(0), frames = made.size(2), h = made.size(3), w = made.size(4);
      auto all = made.reshape({b, -1, t, s, s, frames, h, w})
                     .permute({0, 1, 5, 2, 6, 3, 7, 4})
                     .reshape({b, -1, frames * t, h * s, w * s});
      return all.narrow(2, t - 1, frames * t - (t - 1)).contiguous();
    });
  }
  Tensor by_frame(const Tensor& x) const {
    auto frames = x.transpose(1, 2).flatten(0, 1).contiguous();
    return (*flat)(frames).unflatten(0, {x.size(0), x.size(2)}).transpose(1, 2);
  }

  weights::Block block;
  const Config& config;
  std::optional<nn::Conv2d> flat;
  std::optional<Conv> deep;
};

}  // namespace

struct Upsampler::Layers {
  struct Entry {
    Entry(const Scope& s, const Config& c)
        : block(s),
          conv(s / "initial_conv", c.channels, c.width),
          norm(s / "initial_norm", c.width) {}
    Tensor forward(const Tensor& latent) const {
      return block.run1({latent}, [this](const Tensors& in) {
        return at::silu(norm(conv(in[0].to(conv.dtype()))));
      });
    }
    weights::Block block;
    Conv conv;
    Norm norm;
  };
  struct Exit {
    Exit(const Scope& s, const Config& c) : block(s), conv(s / "final_conv", c.width, c.channels) {}
    Tensor forward(const Tensor& x) const {
      return block.run1({x}, [this](const Tensors& in) { return conv(in[0]).to(at::kFloat); });
    }
    weights::Block block;
    Conv conv;
  };

  Layers(const Scope& root, const Config& c)
      : in(root.block("in"), c),
        before(blocks_of(root / "res_blocks", c)),
        up((root / "upsampler").block(), c),
        behind(blocks_of(root / "post_upsample_res_blocks", c)),
        out(root.block("out"), c) {}
  static std::vector<ResBlock> blocks_of(const Scope& s, const Config& c) {
    std::vector<ResBlock> blocks;
    for (std::int64_t i = 0; i < c.blocks; ++i) blocks.emplace_back((s / i).block(), c.width);
    return blocks;
  }

  Entry in;
  std::vector<ResBlock> before;
  StepUp up;
  std::vector<ResBlock> behind;
  Exit out;
};

Checkpoint part_of(const Checkpoint& file) {
  return file.has("post_upsample_res_blocks.0.conv2.bias") ? file : Checkpoint{};
}

Config config_of(const Checkpoint& part) {
  auto refuse = [&](const std::string& why) {
    throw Error(ErrorKind::Format, part.path(), "holds a latent upscaler " + why);
  };
  if (part.has_prefix("upsampler.blur_down."))
    refuse("by a fraction, as LTX-2 has them; those of LTX-Video 0.9.7 and 0.9.8 are supported");
  constexpr std::size_t clip_kernel = 5;
  if (part.shape("initial_conv.weight").size() != clip_kernel)
    refuse("that looks at single frames; those of LTX-Video 0.9.7 and 0.9.8 look at clips");
  Config c;
  c.width = size_of(part, "initial_conv.weight", 0);
  c.channels = size_of(part, "initial_conv.weight", 1);
  c.blocks = part.count("res_blocks.");
  const auto times = size_of(part, "upsampler.0.weight", 0) / c.width;
  c.time = part.shape("upsampler.0.weight").size() == clip_kernel ? 2 : 1;
  c.space = times / c.time == 1 ? 1 : 2;
  if (c.width % kGroups != 0 || c.time * c.space * c.space != times)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("holds a latent upscaler of width {} whose step up makes {} cells of "
                            "one: known are 2, 4 and 8, and widths that {} divides",
                            c.width, times, kGroups));
  return c;
}

Upsampler::Upsampler(const Config& config)
    : config_(config), layers_(std::make_unique<const Layers>(Scope(manifest_), config_)) {}

Upsampler::~Upsampler() = default;

Tensor Upsampler::forward(const Tensor& latent) const {
  check_clip_latent(latent, config_.channels);
  auto x = layers_->in.forward(latent);
  for (const auto& block : layers_->before) x = block.forward(x);
  x = layers_->up.forward(x);
  for (const auto& block : layers_->behind) x = block.forward(x);
  return layers_->out.forward(x);
}

}  // namespace distorch::models::ltxv_upsampler
