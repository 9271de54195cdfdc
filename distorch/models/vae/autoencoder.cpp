#include "distorch/models/vae/autoencoder.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/latent_check.h"
#include "distorch/models/vae/blocks.h"

namespace distorch::models::vae {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr double eps = 1e-6;

void see(const Autoencoder::Probe& probe, const std::string& stage, const Tensor& output) {
  if (probe) probe(stage, output);
}

/// A half's first convolution, in one block with the 1x1 convolution of the latent where that comes
/// before it.
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
  nn::Conv2d conv;
  std::optional<nn::Conv2d> latent;
};

/// A half's norm, SiLU and last convolution, with the 1x1 convolution of the latent where that
/// comes after it.
struct Exit {
  Exit(const Scope& s, const std::string& half, std::int64_t in, std::int64_t out)
      : block(s), norm(s / half / "norm_out", in, eps), conv(s / half / "conv_out", in, out) {}
  Tensor forward(const Tensor& x) const {
    return block.run1({x}, [this](const Tensors& in) {
      auto h = conv(norm.silu(in[0]));
      if (latent) h = (*latent)(h);
      return h.to(at::kFloat).contiguous(at::MemoryFormat::Contiguous);
    });
  }
  weights::Block block;
  nn::GroupNorm norm;
  nn::Conv2d conv;
  std::optional<nn::Conv2d> latent;
};

/// One resolution: residual blocks, then a resize (none at the end of each half).
struct Level {
  std::int64_t number;
  std::vector<ResBlock> blocks;
  std::optional<Downsample> down;
  std::optional<Upsample> up;

  Tensor forward(Tensor h) const {
    for (const auto& block : blocks) h = block.forward(h);
    if (down) h = down->forward(h);
    if (up) h = up->forward(h);
    return h;
  }
};

Level make_level(const Scope& s, std::int64_t number, std::int64_t blocks, std::int64_t in,
                 std::int64_t out) {
  Level level{.number = number};
  for (std::int64_t j = 0; j < blocks; ++j)
    level.blocks.emplace_back((s / number / "block" / j).block(), j == 0 ? in : out, out);
  return level;
}

std::vector<Level> down_levels(const Scope& s, const VaeConfig& c) {
  std::vector<Level> levels;
  auto channels = c.channels.front();
  for (std::int64_t i = 0, count = c.channels.size(); i < count; ++i) {
    levels.push_back(make_level(s, i, c.res_blocks, channels, c.channels[i]));
    channels = c.channels[i];
    if (i + 1 < count) levels.back().down.emplace((s / i / "downsample").block(), channels);
  }
  return levels;
}

const std::vector<std::int64_t>& decoder_channels(const VaeConfig& c) {
  return c.decoder_channels.empty() ? c.channels : c.decoder_channels;
}

std::vector<Level> up_levels(const Scope& s, const VaeConfig& c) {
  std::vector<Level> levels;
  const auto& by_level = decoder_channels(c);
  auto channels = by_level.back();
  for (auto i = static_cast<std::int64_t>(by_level.size()) - 1; i >= 0; --i) {
    levels.push_back(make_level(s, i, c.res_blocks + 1, channels, by_level[i]));
    channels = by_level[i];
    if (i > 0) levels.back().up.emplace((s / i / "upsample").block(), channels);
  }
  return levels;
}

Entry decoder_entry(const Scope& s, const VaeConfig& c) {
  Entry entry(s, "decoder", c.z_channels, decoder_channels(c).back());
  if (c.quant)
    entry.latent.emplace(s / "post_quant_conv", c.latent_channels, c.z_channels, nn::pointwise);
  return entry;
}

Exit encoder_exit(const Scope& s, const VaeConfig& c) {
  Exit exit(s, "encoder", c.channels.back(), 2 * c.z_channels);
  if (c.quant)
    exit.latent.emplace(s / "quant_conv", 2 * c.z_channels, 2 * c.latent_channels, nn::pointwise);
  return exit;
}

}  // namespace

struct Autoencoder::Encoder {
  Encoder(const Scope& root, const VaeConfig& c)
      : entry(root.block("encoder.conv_in"), "encoder", c.image_channels, c.channels.front()),
        levels(down_levels(root / "encoder" / "down", c)),
        middle(root / "encoder" / "mid", c.channels.back()),
        exit(encoder_exit(root.block("encoder.out"), c)) {}
  Entry entry;
  std::vector<Level> levels;
  Middle middle;
  Exit exit;
};

struct Autoencoder::Decoder {
  Decoder(const Scope& root, const VaeConfig& c)
      : entry(decoder_entry(root.block("decoder.conv_in"), c)),
        middle(root / "decoder" / "mid", decoder_channels(c).back()),
        levels(up_levels(root / "decoder" / "up", c)),
        exit(root.block("decoder.out"), "decoder", decoder_channels(c).front(), c.image_channels) {}
  Entry entry;
  Middle middle;
  std::vector<Level> levels;
  Exit exit;
};

/// 2x2 cells as one, each channel by its mean and variance. One weights::Block.
/// Source: ComfyUI comfy/ldm/models/autoencoder.py, AutoencodingEngineLegacy.
struct Autoencoder::PatchNorm {
  PatchNorm(const Scope& s, std::int64_t channels)
      : block(s),
        mean(s.weight("running_mean", {channels})),
        variance(s.weight("running_var", {channels})) {}

  Tensor pack(const Tensor& z) const {
    return block.run1({z}, [this](const Tensors& in) {
      return (at::pixel_unshuffle(in[0], 2) - by_channel(mean)).div_(deviation());
    });
  }
  Tensor unpack(const Tensor& latent) const {
    return block.run1({latent}, [this](const Tensors& in) {
      auto z = (in[0].to(at::kFloat) * deviation()).add_(by_channel(mean));
      return at::pixel_shuffle(z, 2);
    });
  }

  static Tensor by_channel(const weights::Weight& weight) {
    return weight.dense().to(at::kFloat).view({1, -1, 1, 1});
  }
  Tensor deviation() const { return at::sqrt(by_channel(variance) + 1e-4); }

  weights::Block block;
  weights::Weight mean, variance;
};

Tensor Posterior::sample(const Tensor& noise) const { return mean + at::exp(logvar * 0.5) * noise; }

Autoencoder::Autoencoder(const VaeConfig& config)
    : config_(config),
      encoder_(std::make_unique<Encoder>(Scope(manifest_), config_)),
      patch_norm_(config_.normalized_patches
                      ? std::make_unique<PatchNorm>((Scope(manifest_) / "bn").block(),
                                                    shape().latent_channels)
                      : nullptr),
      decoder_(std::make_unique<Decoder>(Scope(manifest_), config_)) {}

Autoencoder::~Autoencoder() = default;

Tensor Autoencoder::encode_mean(const Tensor& pixels) const {
  auto f = shape().downscale;
  if (pixels.size(2) % f != 0 || pixels.size(3) % f != 0)
    throw Error(ErrorKind::Shape, "VAE",
                fmt::format("encodes pictures whose sides are multiples of {}, got {}x{}", f,
                            pixels.size(3), pixels.size(2)));
  auto mean = encode(pixels).mean;
  return patch_norm_ ? patch_norm_->pack(mean) : mean;
}

Tensor Autoencoder::decode_pixels(const Tensor& latent) const {
  check_latent(latent, shape().latent_channels);
  return decode(patch_norm_ ? patch_norm_->unpack(latent) : latent);
}

Posterior Autoencoder::encode(const Tensor& image, const Probe& probe) const {
  auto f = config_.downscale();
  if (image.size(1) != config_.image_channels || image.size(2) % f != 0 || image.size(3) % f != 0)
    throw Error(
        ErrorKind::Shape, "VAE",
        fmt::format("encodes pictures of {} channels whose sides are multiples of {}, got {} "
                    "channels of {}x{}",
                    config_.image_channels, f, image.size(1), image.size(3), image.size(2)));
  auto h = encoder_->entry.forward(image);
  for (const auto& level : encoder_->levels) {
    h = level.forward(std::move(h));
    see(probe, fmt::format("encoder.down.{}", level.number), h);
  }
  h = encoder_->middle.forward(h);
  see(probe, "encoder.mid", h);
  auto halves = encoder_->exit.forward(h).chunk(2, 1);
  return {halves[0].contiguous(), halves[1].clamp(-30.0, 20.0)};
}

Tensor Autoencoder::decode(const Tensor& latent, const Probe& probe) const {
  check_latent(latent, config_.latent_channels);
  auto h = decoder_->entry.forward(latent);
  see(probe, "decoder.conv_in", h);
  h = decoder_->middle.forward(h);
  see(probe, "decoder.mid", h);
  for (const auto& level : decoder_->levels) {
    h = level.forward(std::move(h));
    see(probe, fmt::format("decoder.up.{}", level.number), h);
  }
  return decoder_->exit.forward(h);
}

}  // namespace distorch::models::vae
