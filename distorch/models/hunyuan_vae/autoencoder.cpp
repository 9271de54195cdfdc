#include "distorch/models/hunyuan_vae/autoencoder.h"

#include <ATen/ATen.h>

#include <optional>
#include <utility>
#include <vector>

#include "distorch/base/run_token.h"
#include "distorch/models/hunyuan_vae/layers.h"
#include "distorch/models/latent_check.h"
#include "distorch/nn/conv.h"

namespace distorch::models::hunyuan_vae {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

using Resize = CausalConv::Resize;

/// A half's first convolution, in one block with the 1x1x1 convolution of the latent where that
/// comes before it.
struct Entry {
  Entry(const Scope& s, const std::string& half, std::int64_t in, std::int64_t out)
      : block(s), conv(s / half / "conv_in", in, out) {}
  Tensor forward(const Tensor& x) const {
    return block.run1({x}, [this](const Tensors& in) {
      auto h = nn::to_layout(in[0], conv.dtype());
      return conv(latent ? (*latent)(h) : h);
    });
  }
  weights::Block block;
  CausalConv conv;
  std::optional<PointConv> latent;
};

/// A half's norm, SiLU and last convolution, with the 1x1x1 convolution of the latent where that
/// comes after it.
struct Exit {
  Exit(const Scope& s, const std::string& half, std::int64_t in, std::int64_t out)
      : block(s), norm(s / half / "norm_out", in), conv(s / half / "conv_out", in, out) {}
  Tensor forward(const Tensor& x) const {
    return block.run1({x}, [this](const Tensors& in) {
      auto before = norm.of(in[0]);
      auto h = conv(in[0], &before);
      return (latent ? (*latent)(h) : h).to(at::kFloat);
    });
  }
  weights::Block block;
  ClipNorm norm;
  CausalConv conv;
  std::optional<PointConv> latent;
};

/// The lowest level of either half.
struct Middle {
  Middle(const Scope& s, std::int64_t channels)
      : first((s / "block_1").block(), channels, channels),
        attention((s / "attn_1").block(), channels),
        second((s / "block_2").block(), channels, channels) {}
  Tensor forward(const Tensor& x) const {
    return second.forward(attention.forward(first.forward(x)));
  }
  ResBlock first;
  ClipAttention attention;
  ResBlock second;
};

/// One resolution: residual blocks, then a resize (none at the end of each half).
struct Level {
  std::vector<ResBlock> blocks;
  std::optional<Resample> resize;

  Tensor forward(Tensor h) const {
    for (const auto& block : blocks) {
      throw_if_interrupted();
      h = block.forward(h);
    }
    return resize ? resize->forward(h) : h;
  }
};

Level make_level(const Scope& s, std::int64_t blocks, std::int64_t in, std::int64_t out) {
  Level level;
  for (std::int64_t i = 0; i < blocks; ++i)
    level.blocks.emplace_back((s / "block" / i).block(), i == 0 ? in : out, out);
  return level;
}

std::vector<Level> down_levels(const Scope& s, const Config& c) {
  std::vector<Level> levels;
  auto channels = c.channels.front();
  for (std::int64_t i = 0; i < c.levels(); ++i) {
    auto out = c.channels[static_cast<std::size_t>(i)];
    levels.push_back(make_level(s / i, c.res_blocks, channels, out));
    channels = out;
    if (i + 1 < c.levels())
      levels.back().resize.emplace((s / i / "downsample").block(), channels,
                                   c.halves_time(i) ? Resize::HalveTime : Resize::Halve);
  }
  return levels;
}

std::vector<Level> up_levels(const Scope& s, const Config& c) {
  std::vector<Level> levels;
  auto channels = c.channels.back();
  for (auto i = c.levels() - 1; i >= 0; --i) {
    auto out = c.channels[static_cast<std::size_t>(i)];
    levels.push_back(make_level(s / i, c.res_blocks + 1, channels, out));
    channels = out;
    // The step from this level up is the one down to it.
    if (i > 0)
      levels.back().resize.emplace((s / i / "upsample").block(), channels,
                                   i <= Config::kTimeSteps ? Resize::DoubleTime : Resize::Double);
  }
  return levels;
}

/// The frames [T, C, h, w] of one clip [1, C, T, h, w], and back.
Tensor frames_of(const Tensor& clip) { return clip[0].movedim(1, 0); }
Tensor clip_of(const Tensor& frames) { return frames.movedim(0, 1).unsqueeze(0).contiguous(); }

template <class One>
Tensor clip_by_clip(const Tensor& batch, One one) {
  std::vector<Tensor> results;
  for (const auto& clip : batch.split(1)) results.push_back(clip_of(one(frames_of(clip))));
  return results.size() == 1 ? results[0] : at::cat(results);
}

}  // namespace

struct Autoencoder::Encoder {
  Encoder(const Scope& root, const Config& c)
      : entry(root.block("encoder.conv_in"), "encoder", c.image_channels, c.channels.front()),
        levels(down_levels(root / "encoder" / "down", c)),
        middle(root / "encoder" / "mid", c.channels.back()),
        exit(exit_of(root.block("encoder.out"), c)) {}
  static Exit exit_of(const Scope& s, const Config& c) {
    Exit exit(s, "encoder", c.channels.back(), 2 * c.z_channels);
    exit.latent.emplace(s / "quant_conv", 2 * c.z_channels, 2 * c.latent_channels);
    return exit;
  }
  Tensor forward(const Tensor& frames) const {
    auto h = entry.forward(frames);
    for (const auto& level : levels) h = level.forward(std::move(h));
    return exit.forward(middle.forward(h));
  }
  Entry entry;
  std::vector<Level> levels;
  Middle middle;
  Exit exit;
};

struct Autoencoder::Decoder {
  Decoder(const Scope& root, const Config& c)
      : entry(entry_of(root.block("decoder.conv_in"), c)),
        middle(root / "decoder" / "mid", c.channels.back()),
        levels(up_levels(root / "decoder" / "up", c)),
        exit(root.block("decoder.out"), "decoder", c.channels.front(), c.image_channels) {}
  static Entry entry_of(const Scope& s, const Config& c) {
    Entry entry(s, "decoder", c.z_channels, c.channels.back());
    entry.latent.emplace(s / "post_quant_conv", c.latent_channels, c.z_channels);
    return entry;
  }
  Tensor forward(const Tensor& frames) const {
    auto h = middle.forward(entry.forward(frames));
    for (const auto& level : levels) h = level.forward(std::move(h));
    return exit.forward(h);
  }
  Entry entry;
  Middle middle;
  std::vector<Level> levels;
  Exit exit;
};

Autoencoder::Autoencoder(const Config& config)
    : config_(config),
      encoder_(std::make_unique<const Encoder>(Scope(manifest_), config_)),
      decoder_(std::make_unique<const Decoder>(Scope(manifest_), config_)) {}

Autoencoder::~Autoencoder() = default;

VaeShape Autoencoder::shape() const {
  return {config_.latent_channels,
          config_.image_channels,
          config_.downscale(),
          config_.time_downscale(),
          3,
          /*whole_clips=*/true};
}

Tensor Autoencoder::encode_mean(const Tensor& pixels) const {
  check_clip_pixels(pixels, config_.image_channels, config_.downscale());
  return clip_by_clip(pixels, [&](const Tensor& frames) {
    return encoder_->forward(frames).narrow(1, 0, config_.latent_channels);
  });
}

Tensor Autoencoder::decode_pixels(const Tensor& latent) const {
  check_clip_latent(latent, config_.latent_channels);
  return clip_by_clip(latent, [&](const Tensor& frames) { return decoder_->forward(frames); });
}

}  // namespace distorch::models::hunyuan_vae
