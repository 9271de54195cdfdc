#include "distorch/models/causal_vae/autoencoder.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/models/causal_vae/layers.h"

namespace distorch::models::causal_vae {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

/// What the layers remember between the chunks of one call: one entry a layer that remembers
/// something, in the order of the layers.
struct Memory {
  std::vector<ResidualBlock::Memory> residual;
  std::vector<Past> others;
};

/// One chunk's way through the layers.
struct Pass {
  Memory& memory;
  bool first = true;  // chunk of the call
  bool keep = false;  // more chunks follow
  std::size_t residual = 0, other = 0;

  ResidualBlock::Memory& next_residual() { return at(memory.residual, residual); }
  Past& next_past() { return at(memory.others, other); }

 private:
  template <class T>
  static T& at(std::vector<T>& list, std::size_t& next) {
    if (list.size() <= next) list.resize(next + 1);
    return list[next++];
  }
};

/// A causal convolution with norm and SiLU before it, or the bare one. One weights::Block.
struct ConvBlock {
  ConvBlock(const Scope& s, std::int64_t in, std::int64_t out) : block(s), conv(s, in, out) {}
  ConvBlock(const Scope& s, std::int64_t in, std::int64_t out, const Scope& norm_scope)
      : block(s), norm(std::in_place, norm_scope, in, ChannelNorm::Of::Frames), conv(s, in, out) {}

  Tensor forward(const Tensor& x, Pass& pass) const {
    auto& past = pass.next_past();
    auto results = block.run({x, past}, [&](const Tensors& in) {
      auto h = norm ? norm->silu(in[0]) : nn::to_layout(in[0], conv.dtype());
      Tensors all = {conv(h, in[1])};
      if (pass.keep) all.push_back(remembered(h, in[1]));
      return all;
    });
    if (pass.keep) past = results[1];
    return results[0];
  }

  weights::Block block;
  std::optional<ChannelNorm> norm;
  CausalConv conv;
};

/// The 1x1 convolution between latent and network, in float32 outside. One weights::Block.
struct LatentConv {
  LatentConv(const Scope& s, std::int64_t channels)
      : block(s), conv(s, channels, channels, CausalConv::Kernel{1, 1}) {}
  Tensor forward(const Tensor& x) const {
    return block.run1({x}, [this](const Tensors& in) {
      return conv(nn::to_layout(in[0], conv.dtype())).to(at::kFloat);
    });
  }
  weights::Block block;
  CausalConv conv;
};

struct Middle {
  Middle(const Scope& s, std::int64_t channels)
      : first((s / 0).block(), channels, channels),
        attention((s / 1).block(), channels),
        second((s / 2).block(), channels, channels) {}
  Tensor forward(const Tensor& x, Pass& pass) const {
    auto h = first.forward(x, pass.next_residual(), pass.keep);
    h = attention.forward(h);
    return second.forward(h, pass.next_residual(), pass.keep);
  }
  ResidualBlock first;
  FrameAttention attention;
  ResidualBlock second;
};

/// One entry of a half's list.
struct Step {
  std::optional<ResidualBlock> residual;
  std::optional<FrameAttention> attention;
  std::optional<Downsample> down;
  std::optional<Upsample> up;

  Tensor forward(const Tensor& x, Pass& pass) const {
    if (residual) return residual->forward(x, pass.next_residual(), pass.keep);
    if (attention) return attention->forward(x);
    auto& past = pass.next_past();
    if (down) return down->forward(x, past, pass.keep);
    return up->forward(x, past, pass.first, pass.keep);
  }
};

std::vector<Step> steps_of(const Scope& s, const std::vector<Layer>& layers, bool up) {
  std::vector<Step> steps(layers.size());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto& layer = layers[i];
    auto scope = (s / static_cast<std::int64_t>(i)).block();
    if (layer.kind == Layer::Kind::Residual)
      steps[i].residual.emplace(scope, layer.in, layer.out);
    else if (layer.kind == Layer::Kind::Attention)
      steps[i].attention.emplace(scope, layer.out);
    else if (up)
      steps[i].up.emplace(scope, layer.in, layer.out, layer.time);
    else
      steps[i].down.emplace(scope, layer.out, layer.time);
  }
  return steps;
}

/// One video's frames [T, C, h, w] of [C, T, h, w], and back.
Tensor frames_of(const Tensor& video) { return video.movedim(1, 0); }

/// Videos of a batch one after the other, through `one` ([C, T, h, w] -> [T', C', h', w']).
Tensor each(const Tensor& batch, const std::function<Tensor(const Tensor&)>& one) {
  std::vector<Tensor> results;
  for (const auto& video : batch.unbind(0)) results.push_back(one(video).movedim(0, 1));
  return results.size() == 1 ? results[0].unsqueeze(0).contiguous() : at::stack(results);
}

}  // namespace

struct CausalAutoencoder::Encoder {
  Encoder(const Scope& root, const Config& c)
      : entry((root / "encoder" / "conv1").block(), c.image_channels, c.first),
        steps(steps_of(root / "encoder" / "downsamples", c.down, false)),
        middle(root / "encoder" / "middle", c.middle),
        exit(exit_of(root, c)),
        latent((root / "conv1").block(), 2 * c.latent_channels) {}

  static ConvBlock exit_of(const Scope& root, const Config& c) {
    auto scope = (root / "encoder" / "head").block();
    return {scope / 2, c.middle, 2 * c.latent_channels, scope / 0};
  }

  /// frames [T, 3, H, W] of a chunk -> [T', 2·C, h, w].
  Tensor forward(const Tensor& frames, Pass pass) const {
    auto h = entry.forward(frames, pass);
    for (const auto& step : steps) h = step.forward(h, pass);
    return exit.forward(middle.forward(h, pass), pass);
  }

  ConvBlock entry;
  std::vector<Step> steps;
  Middle middle;
  ConvBlock exit;
  LatentConv latent;
};

struct CausalAutoencoder::Decoder {
  Decoder(const Scope& root, const Config& c)
      : latent((root / "conv2").block(), c.latent_channels),
        entry((root / "decoder" / "conv1").block(), c.latent_channels, c.middle),
        middle(root / "decoder" / "middle", c.middle),
        steps(steps_of(root / "decoder" / "upsamples", c.up, true)),
        exit(exit_of(root, c)) {}

  static ConvBlock exit_of(const Scope& root, const Config& c) {
    auto scope = (root / "decoder" / "head").block();
    auto channels = c.up.back().out;
    return {scope / 2, channels, c.image_channels, scope / 0};
  }

  Tensor forward(const Tensor& frames, Pass pass) const {
    auto h = middle.forward(entry.forward(frames, pass), pass);
    for (const auto& step : steps) h = step.forward(h, pass);
    return exit.forward(h, pass).to(at::kFloat);
  }

  LatentConv latent;
  ConvBlock entry;
  Middle middle;
  std::vector<Step> steps;
  ConvBlock exit;
};

CausalAutoencoder::CausalAutoencoder(const Config& config)
    : config_(config),
      encoder_(std::make_unique<Encoder>(Scope(manifest_), config_)),
      decoder_(std::make_unique<Decoder>(Scope(manifest_), config_)) {}

CausalAutoencoder::~CausalAutoencoder() = default;

VaeShape CausalAutoencoder::shape() const {
  return {config_.latent_channels, config_.image_channels, config_.downscale(),
          config_.time_downscale(), 3};
}

Tensor CausalAutoencoder::encode_mean(const Tensor& pixels) const {
  auto f = config_.downscale(), each_time = config_.time_downscale();
  if (pixels.dim() != 5 || pixels.size(1) != config_.image_channels || pixels.size(3) % f != 0 ||
      pixels.size(4) % f != 0)
    throw Error(ErrorKind::Shape, "VAE",
                fmt::format("encodes frames of {} channels whose sides are multiples of {}, got {}",
                            config_.image_channels, f, c10::str(pixels.sizes())));
  return each(pixels, [&](const Tensor& video) {
    auto frames = frames_of(video);
    auto chunks = 1 + (frames.size(0) - 1) / each_time;
    Memory memory;
    std::vector<Tensor> results;
    for (std::int64_t i = 0; i < chunks; ++i) {
      auto chunk =
          i == 0 ? frames.narrow(0, 0, 1) : frames.narrow(0, 1 + each_time * (i - 1), each_time);
      results.push_back(encoder_->forward(chunk, {memory, i == 0, i + 1 < chunks}));
    }
    auto moments = encoder_->latent.forward(chunks == 1 ? results[0] : at::cat(results));
    return moments.narrow(1, 0, config_.latent_channels);
  });
}

Tensor CausalAutoencoder::decode_pixels(const Tensor& latent) const {
  if (latent.dim() != 5 || latent.size(1) != config_.latent_channels)
    throw Error(ErrorKind::Shape, "VAE",
                fmt::format("decodes latents of {} channels with frames, got {}: the latent "
                            "belongs to another model",
                            config_.latent_channels, c10::str(latent.sizes())));
  return each(latent, [&](const Tensor& video) {
    auto z = decoder_->latent.forward(frames_of(video));
    auto count = z.size(0);
    Memory memory;
    std::vector<Tensor> results;
    for (std::int64_t i = 0; i < count; ++i)
      results.push_back(decoder_->forward(z.narrow(0, i, 1), {memory, i == 0, i + 1 < count}));
    return count == 1 ? results[0] : at::cat(results);
  });
}

}  // namespace distorch::models::causal_vae
