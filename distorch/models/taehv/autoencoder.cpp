#include "distorch/models/taehv/autoencoder.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <functional>
#include <utility>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/models/latent_check.h"
#include "distorch/models/tensor_size.h"
#include "distorch/nn/conv.h"

namespace distorch::models::taehv {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr std::int64_t kLevels = 3, kMemories = 3;
constexpr nn::ConvOptions kPlain{.kernel = 3, .stride = 1, .padding = 1, .bias = false};
constexpr nn::ConvOptions kHalving{.kernel = 3, .stride = 2, .padding = 1, .bias = false};
constexpr nn::ConvOptions kMixing{.kernel = 1, .stride = 1, .padding = 0, .bias = false};

/// Sees each frame beside the one before it. x [T, C, h, w].
struct MemoryBlock {
  MemoryBlock(const Scope& s, std::int64_t width)
      : first(s / "conv" / 0, 2 * width, width),
        second(s / "conv" / 2, width, width),
        third(s / "conv" / 4, width, width) {}

  /// `last`: the frame before the first; undefined: none.
  Tensor operator()(const Tensor& x, const Tensor& last) const {
    auto before = last.defined() ? last : at::zeros_like(x.narrow(0, 0, 1));
    auto past = at::cat({before, x.narrow(0, 0, x.size(0) - 1)});
    auto y = first(at::cat({x, past}, 1)).relu_();
    return third(second(y).relu_()).add_(x).relu_();
  }

  nn::Conv2d first, second, third;
};

/// What a half's blocks saw last: in, one entry each (undefined before the first frame), and out.
struct Memory {
  Tensors before, after;

  Tensor through(const MemoryBlock& block, const Tensor& x) {
    const auto& last = before[after.size()];
    after.push_back(x.narrow(0, x.size(0) - 1, 1).clone());
    return block(x, last);
  }
};

std::vector<MemoryBlock> memory_blocks(const Scope& s, std::int64_t first, std::int64_t width) {
  std::vector<MemoryBlock> blocks;
  for (std::int64_t i = 0; i < kMemories; ++i) blocks.emplace_back(s / (first + i), width);
  return blocks;
}

/// Runs `body` on frames and the memory [block by block] that `state` keeps from call to call.
Tensor remembering(const weights::Block& block, const Tensor& frames, Tensors& state,
                   const std::function<Tensor(const Tensor&, Memory&)>& body) {
  state.resize(kLevels * kMemories);
  Tensors inputs = {frames};
  inputs.insert(inputs.end(), state.begin(), state.end());
  auto made = block.run(inputs, [&](const Tensors& in) {
    Memory memory{{in.begin() + 1, in.end()}, {}};
    Tensors all = {body(in[0], memory)};
    all.insert(all.end(), memory.after.begin(), memory.after.end());
    return all;
  });
  state.assign(made.begin() + 1, made.end());
  return made[0];
}

std::int64_t product(const std::array<std::int64_t, 3>& factors) {
  return factors[0] * factors[1] * factors[2];
}

}  // namespace

std::int64_t Config::time_downscale() const { return product(encoder_frames); }

Checkpoint part_of(const Checkpoint& file) {
  if (!file.has("decoder.22.bias") || !file.has("decoder.7.conv.weight") ||
      !file.has("encoder.2.conv.weight"))
    return {};
  const auto& entry = file.shape("decoder.1.weight");
  return entry.size() == 4 && (entry[1] == 16 || entry[1] == 48) ? file : Checkpoint{};
}

Config config_of(const Checkpoint& part) {
  constexpr double hunyuan_scale = 0.476986;
  Config c;
  c.latent_channels = size_of(part, "decoder.1.weight", 1);
  c.patch = c.latent_channels == 48 ? 2 : 1;
  if (c.latent_channels == 16 && part.find("decoder.1.weight")->dtype == formats::DType::F16)
    c.scale = hunyuan_scale;
  c.encoder_width = size_of(part, "encoder.0.weight", 0);
  c.decoder_widths[0] = size_of(part, "decoder.1.weight", 0);
  for (std::int64_t i = 0; i < kLevels; ++i) {
    auto level = static_cast<std::size_t>(i);
    auto grow = fmt::format("decoder.{}.conv.weight", 7 + 6 * i);
    auto pool = fmt::format("encoder.{}.conv.weight", 2 + 5 * i);
    c.decoder_widths[level + 1] = size_of(part, fmt::format("decoder.{}.weight", 8 + 6 * i), 0);
    c.decoder_frames[level] = size_of(part, grow, 0) / size_of(part, grow, 1);
    c.encoder_frames[level] = size_of(part, pool, 1) / size_of(part, pool, 0);
  }
  if (product(c.decoder_frames) != product(c.encoder_frames) || product(c.decoder_frames) < 1)
    throw Error(ErrorKind::Shape, part.path(),
                "holds an autoencoder whose halves do not resize by the same factors");
  return c;
}

struct Autoencoder::Encoder {
  struct Level {
    nn::Conv2d pool, down;
    std::vector<MemoryBlock> blocks;
    std::int64_t frames;
  };

  Encoder(const Scope& root, const Config& c)
      : scope((root / "encoder").block()),
        block(scope),
        entry(scope / 0, 3 * c.patch * c.patch, c.encoder_width),
        exit(scope / 17, c.encoder_width, c.latent_channels) {
    auto width = c.encoder_width;
    for (std::int64_t i = 0; i < kLevels; ++i) {
      auto first = 2 + 5 * i, frames = c.encoder_frames[static_cast<std::size_t>(i)];
      levels.push_back({nn::Conv2d(scope / first / "conv", width * frames, width, kMixing),
                        nn::Conv2d(scope / (first + 1), width, width, kHalving),
                        memory_blocks(scope, first + 2, width), frames});
    }
  }

  /// frames [T, 3 · patch², H, W], 0..1 -> [T', C, h, w] float32.
  Tensor forward(const Tensor& frames, Tensors& state) const {
    return remembering(block, frames, state, [this](const Tensor& in, Memory& memory) {
      auto x = entry(nn::to_layout(in, entry.dtype())).relu_();
      for (const auto& level : levels) {
        x = x.reshape({x.size(0) / level.frames, level.frames * x.size(1), x.size(2), x.size(3)});
        x = level.down(level.pool(x));
        for (const auto& one : level.blocks) x = memory.through(one, x);
      }
      return exit(x).to(at::kFloat);
    });
  }

  Scope scope;
  weights::Block block;
  nn::Conv2d entry, exit;
  std::vector<Level> levels;
};

struct Autoencoder::Decoder {
  struct Level {
    std::vector<MemoryBlock> blocks;
    nn::Conv2d grow, out;
    std::int64_t width;
  };

  Decoder(const Scope& root, const Config& c)
      : scope((root / "decoder").block()),
        block(scope),
        entry(scope / 1, c.latent_channels, c.decoder_widths[0]),
        exit(scope / 22, c.decoder_widths[3], 3 * c.patch * c.patch) {
    for (std::int64_t i = 0; i < kLevels; ++i) {
      auto level = static_cast<std::size_t>(i);
      auto width = c.decoder_widths[level], first = 3 + 6 * i;
      levels.push_back({memory_blocks(scope, first, width),
                        nn::Conv2d(scope / (first + 4) / "conv", width,
                                   width * c.decoder_frames[level], kMixing),
                        nn::Conv2d(scope / (first + 5), width, c.decoder_widths[level + 1], kPlain),
                        width});
    }
  }

  /// latents [T, C, h, w] -> [T', 3 · patch², H, W] float32, 0..1.
  Tensor forward(const Tensor& latents, Tensors& state) const {
    return remembering(block, latents, state, [this](const Tensor& in, Memory& memory) {
      constexpr double limit = 3;
      auto x = entry(nn::to_layout(at::tanh(in / limit) * limit, entry.dtype())).relu_();
      for (const auto& level : levels) {
        for (const auto& one : level.blocks) x = memory.through(one, x);
        x = level.grow(nn::upsample_nearest(x, 2 * x.size(2), 2 * x.size(3)));
        x = level.out(x.reshape({-1, level.width, x.size(2), x.size(3)}));
      }
      return exit(x.relu_()).to(at::kFloat);
    });
  }

  Scope scope;
  weights::Block block;
  nn::Conv2d entry, exit;
  std::vector<Level> levels;
};

/// Frames go four at a time, counted from the first; the last ones are filled up with the last.
class Autoencoder::Encoding final : public ClipCoding {
 public:
  explicit Encoding(const Autoencoder& vae) : vae_(vae) {}

  Tensor next(const Tensor& group, bool more) override {
    const auto& c = vae_.config_;
    const auto factor = vae_.shape().downscale, time = c.time_downscale();
    check_clip_pixels(group, 3, factor);
    auto frames = (group[0].movedim(1, 0) + 1.0) / 2.0;
    if (c.patch > 1) frames = at::pixel_unshuffle(frames, c.patch);
    waiting_ = waiting_.defined() ? at::cat({waiting_, frames}) : frames;
    if (auto missing = (time - waiting_.size(0) % time) % time; !more && missing > 0)
      waiting_ = at::cat(
          {waiting_, waiting_.narrow(0, waiting_.size(0) - 1, 1).expand({missing, -1, -1, -1})});
    auto ready = waiting_.size(0) / time * time;
    auto rest = waiting_.narrow(0, ready, waiting_.size(0) - ready).clone();
    auto now = std::exchange(waiting_, rest).narrow(0, 0, ready);
    auto latent =
        ready > 0
            ? vae_.encoder_->forward(now, state_)
            : at::empty({0, c.latent_channels, group.size(3) / factor, group.size(4) / factor},
                        group.options().dtype(at::kFloat));
    return (latent / c.scale).movedim(0, 1).unsqueeze(0);
  }

 private:
  const Autoencoder& vae_;
  Tensor waiting_;
  Tensors state_;
};

class Autoencoder::Decoding final : public ClipCoding {
 public:
  explicit Decoding(const Autoencoder& vae) : vae_(vae) {}

  Tensor next(const Tensor& group, bool) override {
    const auto& c = vae_.config_;
    check_clip_latent(group, c.latent_channels);
    auto frames = vae_.decoder_->forward(group[0].movedim(1, 0) * c.scale, state_);
    if (c.patch > 1) frames = at::pixel_shuffle(frames, c.patch);
    // The first latent frame is one frame's.
    auto skipped = std::exchange(first_, false) ? c.time_downscale() - 1 : 0;
    frames = frames.narrow(0, skipped, frames.size(0) - skipped);
    return (frames * 2.0 - 1.0).movedim(0, 1).unsqueeze(0);
  }

 private:
  const Autoencoder& vae_;
  Tensors state_;
  bool first_ = true;
};

Autoencoder::Autoencoder(const Config& config)
    : config_(config),
      encoder_(std::make_unique<Encoder>(Scope(manifest_), config_)),
      decoder_(std::make_unique<Decoder>(Scope(manifest_), config_)) {}

Autoencoder::~Autoencoder() = default;

VaeShape Autoencoder::shape() const {
  return {config_.latent_channels, 3, 8 * config_.patch, config_.time_downscale(), 3};
}

std::unique_ptr<ClipCoding> Autoencoder::encode_clip() const {
  return std::make_unique<Encoding>(*this);
}
std::unique_ptr<ClipCoding> Autoencoder::decode_clip() const {
  return std::make_unique<Decoding>(*this);
}

}  // namespace distorch::models::taehv
