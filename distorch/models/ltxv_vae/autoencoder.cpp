#include "distorch/models/ltxv_vae/autoencoder.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/models/latent_check.h"
#include "distorch/models/ltxv_vae/layers.h"
#include "distorch/nn/conv.h"
#include "distorch/nn/patch.h"

namespace distorch::models::ltxv_vae {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr std::uint64_t kSeed = 42;
constexpr double kNoiseLevel = 0.05, kNoiseShare = 0.025;

/// The noise of one clip, the same numbers in the same order whatever the device.
class Noise {
 public:
  explicit Noise(at::Device device) : device_(device) {}
  Tensor next(at::IntArrayRef sizes) {
    return at::randn(sizes, generator_, at::TensorOptions(at::kFloat)).to(device_);
  }

 private:
  at::Generator generator_ = at::detail::createCPUGenerator(kSeed);
  at::Device device_;
};

/// Mean and deviation of the latent by channel, which both halves need. One weights::Block.
struct Statistics {
  Statistics(const Scope& s, const Config& c)
      : block(s),
        mean(s.weight("mean-of-means", {c.latent_channels})),
        deviation(s.weight("std-of-means", {c.latent_channels})) {}
  /// latents [T, C, h, w] float32
  Tensor taken_out(const Tensor& latent) const {
    return block.run1({latent}, [this](const Tensors& in) {
      return (in[0] - by_channel(mean)) / by_channel(deviation);
    });
  }
  Tensor put_back(const Tensor& latent) const {
    return block.run1({latent}, [this](const Tensors& in) {
      return in[0] * by_channel(deviation) + by_channel(mean);
    });
  }

  weights::Block block;
  weights::Weight mean, deviation;

 private:
  static Tensor by_channel(const weights::Weight& weight) {
    return nn::patched(weight).to(at::kFloat).view({1, -1, 1, 1});
  }
};

/// The stages of either half.
class Way {
 public:
  Way(const Scope& s, const std::vector<Stage>& stages, Sight sight, bool up, bool timed) {
    for (std::size_t i = 0; i < stages.size(); ++i)
      add(s / static_cast<std::int64_t>(i), stages[i], sight, up, timed);
  }

  /// `level` where the way is timed, `noise` where some of it takes noise.
  Tensor forward(Tensor h, const Tensor& level, Noise* noise) const {
    Tensor time;
    for (const auto& layer : layers_) {
      throw_if_interrupted();
      if (const auto* embedder = std::get_if<TimeEmbedder>(&layer)) {
        time = embedder->forward(level);
      } else if (const auto* resample = std::get_if<Resample>(&layer)) {
        h = resample->forward(h);
      } else {
        const auto& block = std::get<Residual>(layer);
        auto drawn = block.noise ? noise_for(h, *noise) : Tensor();
        h = block.layers.forward(h, block.timed ? time : Tensor(), drawn);
      }
    }
    return h;
  }

 private:
  struct Residual {
    ResBlock layers;
    bool noise, timed;
  };

  static Tensor noise_for(const Tensor& h, Noise& noise) {
    auto first = noise.next({h.size(2), h.size(3)});
    return at::stack({first, noise.next({h.size(2), h.size(3)})});
  }

  void add(const Scope& s, const Stage& stage, Sight sight, bool up, bool timed) {
    auto residual = [&](const Scope& place, bool told) {
      layers_.emplace_back(Residual{
          ResBlock(place, stage.in, stage.out, sight, {stage.noise, told}), stage.noise, told});
    };
    switch (stage.kind) {
      case Stage::Kind::Residuals:
        if (timed) layers_.emplace_back(TimeEmbedder((s / "time_embedder").block(), 4 * stage.in));
        for (std::int64_t i = 0; i < stage.blocks; ++i)
          residual((s / "res_blocks" / i).block(), timed);
        break;
      case Stage::Kind::Widen: residual(s.block(), false); break;
      default: layers_.emplace_back(Resample(s.block(), stage, sight, up));
    }
  }

  std::vector<std::variant<TimeEmbedder, Residual, Resample>> layers_;
};

/// The frames [T, C, h, w] of one clip [1, C, T, h, w], and back.
Tensor frames_of(const Tensor& clip) { return clip[0].movedim(1, 0); }
Tensor clip_of(const Tensor& frames) { return frames.movedim(0, 1).unsqueeze(0).contiguous(); }

template <class One>
Tensor clip_by_clip(const Tensor& batch, One one) {
  std::vector<Tensor> results;
  for (const auto& clip : batch.split(1)) results.push_back(clip_of(one(frames_of(clip))));
  return results.size() == 1 ? results[0] : at::cat(results);
}

/// Pixels of a patch as channels, columns before rows, and back.
Tensor as_channels(const Tensor& frames, std::int64_t patch) {
  return frames
      .reshape({frames.size(0), frames.size(1), frames.size(2) / patch, patch,
                frames.size(3) / patch, patch})
      .permute({0, 1, 5, 3, 2, 4})
      .flatten(1, 3);
}
Tensor as_pixels(const Tensor& frames, std::int64_t patch) {
  return frames.reshape({frames.size(0), -1, patch, patch, frames.size(2), frames.size(3)})
      .permute({0, 1, 4, 3, 5, 2})
      .reshape({frames.size(0), -1, frames.size(2) * patch, frames.size(3) * patch});
}

}  // namespace

struct Autoencoder::Encoder {
  Encoder(const Scope& root, const Config& c)
      : in(root.block("encoder.conv_in"), c),
        way(root / "encoder" / "down_blocks", c.down, {c.down_edges, true}, false, false),
        out(root.block("encoder.conv_out"), c) {}

  /// frames [T, 3, H, W] -> [1 + (T - 1) / 8, C, h, w] float32.
  Tensor forward(const Tensor& frames) const {
    return out.forward(way.forward(in.forward(frames), {}, nullptr));
  }

  struct Entry {
    Entry(const Scope& s, const Config& c)
        : block(s),
          conv(s / "encoder" / "conv_in", c.image_channels * c.patch * c.patch, c.down.front().in,
               {c.down_edges, true}),
          patch(c.patch) {}
    Tensor forward(const Tensor& frames) const {
      return block.run1({frames}, [this](const Tensors& in) {
        return conv(nn::to_layout(as_channels(in[0], patch), conv.dtype()));
      });
    }
    weights::Block block;
    Conv conv;
    std::int64_t patch;
  };
  struct Exit {
    Exit(const Scope& s, const Config& c)
        : block(s),
          conv(s / "encoder" / "conv_out", c.down.back().out, c.encoded_channels,
               {c.down_edges, true}),
          channels(c.latent_channels) {}
    Tensor forward(const Tensor& h) const {
      return block.run1({h}, [this](const Tensors& in) {
        const Prepared plain;
        return conv(in[0], &plain).narrow(1, 0, channels).to(at::kFloat);
      });
    }
    weights::Block block;
    Conv conv;
    std::int64_t channels;
  };

  Entry in;
  Way way;
  Exit out;
};

struct Autoencoder::Decoder {
  Decoder(const Scope& root, const Config& c)
      : config(c),
        in(root.block("decoder.conv_in"), c),
        way(root / "decoder" / "up_blocks", c.up, sight_of(c), true, c.timed) {
    if (c.timed)
      time.emplace((root / "decoder" / "last_time_embedder").block(), 2 * c.up.back().out);
    out.emplace(root.block("decoder.conv_out"), c);
  }
  static Sight sight_of(const Config& c) { return {c.up_edges, c.causal_decoder}; }

  /// latent [T, C, h, w] -> frames [1 + (T - 1) · 8, 3, H, W] float32.
  Tensor forward(const Tensor& latent, const Statistics& statistics) const {
    Noise noise(latent.device());
    auto x = latent.to(at::kFloat);
    Tensor level;
    if (config.timed) {
      // Drawn in the order of a clip, channels before frames.
      auto drawn = noise.next({x.size(1), x.size(0), x.size(2), x.size(3)}).movedim(1, 0);
      x = drawn * kNoiseShare + x * (1.0 - kNoiseShare);
      level = at::full({1}, kNoiseLevel * config.time_scale, x.options());
    }
    auto h = way.forward(in.forward(statistics.put_back(x)), level, &noise);
    return out->forward(h, time ? time->forward(level) : Tensor());
  }

  struct Entry {
    Entry(const Scope& s, const Config& c)
        : block(s),
          conv(s / "decoder" / "conv_in", c.latent_channels, c.up.front().in, sight_of(c)) {}
    Tensor forward(const Tensor& latent) const {
      return block.run1(
          {latent}, [this](const Tensors& in) { return conv(nn::to_layout(in[0], conv.dtype())); });
    }
    weights::Block block;
    Conv conv;
  };
  struct Exit {
    Exit(const Scope& s, const Config& c)
        : block(s),
          conv(s / "decoder" / "conv_out", c.up.back().out, c.image_channels * c.patch * c.patch,
               sight_of(c)),
          patch(c.patch) {
      if (c.timed)
        modulation = (s / "decoder").weight("last_scale_shift_table", {2, c.up.back().out});
    }
    Tensor forward(const Tensor& h, const Tensor& time) const {
      return block.run1({h, time}, [this](const Tensors& in) {
        Prepared before;
        if (modulation.declared()) {
          auto dtype = in[0].scalar_type();
          auto both = nn::patched(modulation).to(dtype) + in[1].to(dtype).view({2, -1});
          before = {both[0], both[1]};
        }
        return as_pixels(conv(in[0], &before).to(at::kFloat), patch);
      });
    }
    weights::Block block;
    Conv conv;
    std::int64_t patch;
    weights::Weight modulation;
  };

  const Config& config;
  Entry in;
  Way way;
  std::optional<TimeEmbedder> time;
  std::optional<Exit> out;
};

struct Autoencoder::Parts {
  Parts(const Scope& root, const Config& c)
      : encoder(root, c),
        statistics((root / "per_channel_statistics").block(), c),
        decoder(root, c) {}
  Encoder encoder;
  Statistics statistics;
  Decoder decoder;
};

Autoencoder::Autoencoder(const Config& config)
    : config_(config), parts_(std::make_unique<const Parts>(Scope(manifest_), config_)) {}

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
  const auto t = config_.time_downscale();
  check_clip_pixels(pixels, config_.image_channels, config_.downscale());
  if ((pixels.size(2) - 1) % t != 0)
    throw Error(ErrorKind::Shape, "VAE",
                fmt::format("of LTX-Video encodes clips of 1 + {} · n frames (1, {}, {}, ...), got "
                            "{}: leave some out or take more",
                            t, 1 + t, 1 + 2 * t, pixels.size(2)));
  return clip_by_clip(pixels, [&](const Tensor& frames) {
    return parts_->statistics.taken_out(parts_->encoder.forward(frames));
  });
}

Tensor Autoencoder::decode_pixels(const Tensor& latent) const {
  check_clip_latent(latent, config_.latent_channels);
  return clip_by_clip(latent, [&](const Tensor& frames) {
    return parts_->decoder.forward(frames, parts_->statistics);
  });
}

}  // namespace distorch::models::ltxv_vae
