#include "distorch/models/taesd/autoencoder.h"

#include <fmt/format.h>

#include <array>
#include <optional>

#include "distorch/base/error.h"
#include "distorch/models/latent_check.h"
#include "distorch/models/tensor_size.h"
#include "distorch/nn/conv.h"

namespace distorch::models::taesd {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr const char* kEncoder = "taesd_encoder.";
constexpr const char* kDecoder = "taesd_decoder.";

struct Published {
  const char* name;
  double scale, shift;
};
constexpr std::array kPublished = {
    Published{"taesd", 0.18215, 0.0}, Published{"taesdxl", 0.13025, 0.0},
    Published{"taesd3", 1.5305, 0.0609}, Published{"taef1", 0.3611, 0.1159}};

const Published* published(const std::string& name) {
  for (const auto& one : kPublished)
    if (name == one.name) return &one;
  return nullptr;
}

nn::ConvOptions without_bias(std::int64_t stride) {
  return {.kernel = 3, .stride = stride, .padding = 1, .bias = false};
}

/// Three convolutions with ReLU between and behind, residual.
struct Residual {
  Residual(const Scope& s, std::int64_t width)
      : first(s / "conv" / 0, width, width),
        second(s / "conv" / 2, width, width),
        third(s / "conv" / 4, width, width) {}
  Tensor operator()(const Tensor& x) const {
    auto h = first(x).relu_();
    h = second(h).relu_();
    return third(h).add_(x).relu_();
  }
  nn::Conv2d first, second, third;
};

/// Layers are numbered as they lie behind each other, those without weights too.
std::vector<Residual> residuals(const Scope& s, std::int64_t first, int count, std::int64_t width) {
  std::vector<Residual> list;
  for (std::int64_t i = first; i < first + count; ++i) list.emplace_back(s / i, width);
  return list;
}

Tensor through(const std::vector<Residual>& blocks, Tensor h) {
  for (const auto& block : blocks) h = block(h);
  return h;
}

}  // namespace

struct Autoencoder::Encoder {
  /// One halving of the sides and the blocks behind it.
  struct Level {
    nn::Conv2d halve;
    std::vector<Residual> blocks;
  };

  Encoder(const Scope& s, const Config& c)
      : block(s),
        in(s / 0, 3, c.width),
        first(s / 1, c.width),
        out(s / 14, c.width, c.latent_channels) {
    for (std::int64_t at : {2, 6, 10})
      levels.push_back({nn::Conv2d(s / at, c.width, c.width, without_bias(2)),
                        residuals(s, at + 1, 3, c.width)});
  }
  Tensor forward(const Tensor& pixels) const {
    return block.run1({pixels}, [this](const Tensors& x) {
      auto h = first(in(nn::to_layout(x[0] * 0.5 + 0.5, in.dtype())));
      for (const auto& level : levels) h = through(level.blocks, level.halve(h));
      return out(h).to(at::kFloat).contiguous(at::MemoryFormat::Contiguous);
    });
  }
  weights::Block block;
  nn::Conv2d in;
  Residual first;
  std::vector<Level> levels;
  nn::Conv2d out;
};

struct Autoencoder::Decoder {
  /// Blocks, a doubling of the sides, and the convolution behind it.
  struct Level {
    std::vector<Residual> blocks;
    nn::Conv2d after;
  };

  Decoder(const Scope& s, const Config& c)
      : block(s),
        in(s / 1, c.latent_channels, c.width),
        last(s / 18, c.width),
        out(s / 19, c.width, 3) {
    for (std::int64_t at : {3, 8, 13})
      levels.push_back({residuals(s, at, 3, c.width),
                        nn::Conv2d(s / (at + 4), c.width, c.width, without_bias(1))});
  }
  Tensor forward(const Tensor& latent) const {
    return block.run1({latent}, [this](const Tensors& x) {
      auto soft = at::tanh(nn::to_layout(x[0], in.dtype()) / 3.0).mul_(3.0);
      auto h = in(soft).relu_();
      for (const auto& level : levels) {
        h = through(level.blocks, h);
        h = level.after(nn::upsample_nearest(h, 2 * h.size(2), 2 * h.size(3)));
      }
      return out(last(h)).to(at::kFloat).contiguous(at::MemoryFormat::Contiguous);
    });
  }
  weights::Block block;
  nn::Conv2d in;
  std::vector<Level> levels;
  Residual last;
  nn::Conv2d out;
};

const std::vector<std::string>& names() {
  static const std::vector<std::string> list = [] {
    std::vector<std::string> all;
    for (const auto& one : kPublished) all.emplace_back(one.name);
    return all;
  }();
  return list;
}

std::string name_for(const LatentFormat& format) {
  if (format.dimensions != 2 || !format.mean.empty()) return "";
  for (const auto& one : kPublished)
    if (one.scale == format.scale_factor && one.shift == format.shift) return one.name;
  return "";
}

Checkpoint joined(const Checkpoint& encoder, const Checkpoint& decoder) {
  auto part = decoder.part("", kDecoder);
  for (const auto& [name, stored] : encoder.tensors()) part.add(kEncoder + name, stored);
  return part;
}

Checkpoint part_of(const Checkpoint& file) {
  return file.has(std::string(kDecoder) + "1.weight") ? file : Checkpoint();
}

Config config_of(const Checkpoint& part) {
  Config c;
  c.width = size_of(part, std::string(kDecoder) + "1.weight", 0);
  c.latent_channels = size_of(part, std::string(kDecoder) + "1.weight", 1);
  c.encoder = part.has_prefix(kEncoder);
  c.scale = number_in(part, "vae_scale", c.scale);
  c.shift = number_in(part, "vae_shift", c.shift);
  return c;
}

Config config_of(const Checkpoint& part, const std::string& name) {
  const auto* known = published(name);
  if (!known) throw Error(ErrorKind::Usage, part.path(), "is no file of a TAESD that is known");
  auto c = config_of(part);
  c.scale = known->scale;
  c.shift = known->shift;
  return c;
}

Autoencoder::Autoencoder(const Config& config) : config_(config) {
  Scope root(manifest_);
  if (config_.encoder)
    encoder_ = std::make_unique<Encoder>((root / "taesd_encoder").block(), config_);
  decoder_ = std::make_unique<Decoder>((root / "taesd_decoder").block(), config_);
}

Autoencoder::~Autoencoder() = default;

Tensor Autoencoder::encode_mean(const Tensor& pixels) const {
  if (!encoder_) throw Error(ErrorKind::Usage, "VAE", "has no encoder, it only decodes");
  return encoder_->forward(pixels) / config_.scale + config_.shift;
}

Tensor Autoencoder::decode_pixels(const Tensor& latent) const {
  return decode_scaled((latent - config_.shift) * config_.scale).sub_(0.5).mul_(2.0);
}

Tensor Autoencoder::decode_scaled(const Tensor& latent) const {
  check_latent(latent, config_.latent_channels);
  return decoder_->forward(latent);
}

}  // namespace distorch::models::taesd
