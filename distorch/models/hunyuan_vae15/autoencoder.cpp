#include "distorch/models/hunyuan_vae15/autoencoder.h"

#include <ATen/ATen.h>

#include <optional>
#include <utility>
#include <vector>

#include "distorch/base/run_token.h"
#include "distorch/models/hunyuan_vae15/layers.h"
#include "distorch/models/latent_check.h"
#include "distorch/nn/conv.h"

namespace distorch::models::hunyuan_vae15 {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

/// A clip's way through the layers that work group by group: what they remember, in their order.
class Way {
 public:
  explicit Way(std::int64_t groups) : groups_(groups) {}

  /// Begins the next group.
  void begin() {
    throw_if_interrupted();
    pass = {group_ == 0, ++group_ < groups_};
    layer_ = 0;
  }
  Memory& next() {
    if (memories_.size() <= layer_) memories_.resize(layer_ + 1);
    return memories_[layer_++];
  }
  Pass pass;

 private:
  std::int64_t groups_, group_ = 0;
  std::vector<Memory> memories_;
  std::size_t layer_ = 0;
};

/// A half's first or last convolution, behind norm and SiLU where it is the last. One
/// weights::Block.
struct EndConv {
  EndConv(const Scope& s, const std::string& half, std::int64_t in, std::int64_t out, bool first)
      : block(s), conv(s / half / (first ? "conv_in" : "conv_out"), in, out) {
    if (!first) norm.emplace(s / half / "norm_out", in, ChannelNorm::Of::Frames);
  }

  /// `past_it` of x and what the convolution gives, where there is a way past it.
  template <class PastIt>
  Tensor forward(const Tensor& x, Way& way, PastIt past_it) const {
    auto& memory = way.next();
    auto keep = way.pass.keep;
    auto results = block.run({x, memory.first}, [&](const Tensors& in) -> Tensors {
      auto h = norm ? norm->silu(in[0]) : nn::to_layout(in[0], conv.dtype());
      auto y = conv(h, nullptr, in[1]);
      past_it(y, norm ? in[0] : h);
      if (norm) y = y.to(at::kFloat);
      return keep ? Tensors{y, remembered(h, in[1])} : Tensors{y};
    });
    if (keep) memory.first = results[1];
    return results[0];
  }
  Tensor forward(const Tensor& x, Way& way) const {
    return forward(x, way, [](const Tensor&, const Tensor&) {});
  }

  weights::Block block;
  std::optional<ChannelNorm> norm;
  CausalConv conv;
};

/// The lowest level of either half, which sees the whole clip at once.
struct Middle {
  Middle(const Scope& s, std::int64_t channels)
      : first((s / "block_1").block(), channels),
        attention((s / "attn_1").block(), channels),
        second((s / "block_2").block(), channels) {}
  Tensor forward(const Tensor& x, Way& whole) const {
    auto h = first.forward(x, whole.pass, whole.next());
    return second.forward(attention.forward(h), whole.pass, whole.next());
  }
  ResBlock first;
  Attention attention;
  ResBlock second;
};

/// One resolution: residual blocks, then a change of size (none at the end of each half).
template <class Resize>
struct Level {
  std::vector<ResBlock> blocks;
  std::optional<Resize> resize;

  Tensor forward(Tensor h, Way& way) const {
    for (const auto& block : blocks) h = block.forward(h, way.pass, way.next());
    return resize ? resize->forward(h, way.pass, way.next()) : h;
  }
};

template <class Resize>
Level<Resize> make_level(const Scope& s, std::int64_t blocks, std::int64_t channels) {
  Level<Resize> level;
  for (std::int64_t i = 0; i < blocks; ++i)
    level.blocks.emplace_back((s / "block" / i).block(), channels);
  return level;
}

/// The steps between levels change the width, so that the blocks of a level do not.
std::vector<Level<Shrink>> down_levels(const Scope& s, const Config& c) {
  std::vector<Level<Shrink>> levels;
  for (std::int64_t i = 0; i < c.levels(); ++i) {
    levels.push_back(make_level<Shrink>(s / i, c.res_blocks, c.width(i)));
    if (i + 1 < c.levels())
      levels.back().resize.emplace((s / i / "downsample").block(),
                                   Step{c.width(i), c.width(i + 1), c.halves_time(i)});
  }
  return levels;
}

/// Counted from the lowest level up.
std::vector<Level<Grow>> up_levels(const Scope& s, const Config& c) {
  std::vector<Level<Grow>> levels;
  for (std::int64_t i = 0; i < c.levels(); ++i) {
    auto level = c.levels() - 1 - i;
    levels.push_back(make_level<Grow>(s / i, c.res_blocks + 1, c.width(level)));
    if (level > 0)
      levels.back().resize.emplace(
          (s / i / "upsample").block(),
          Step{c.width(level), c.width(level - 1), c.halves_time(level - 1)});
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

/// A clip as one group, of which nobody remembers anything.
Way whole_clip() {
  Way way(1);
  way.begin();
  return way;
}

}  // namespace

struct Autoencoder::Encoder {
  Encoder(const Scope& root, const Config& c)
      : each(c.time_downscale()),
        means(c.channels.back() / (2 * c.latent_channels)),
        entry(root.block("encoder.conv_in"), "encoder", c.image_channels, c.channels.front(), true),
        levels(down_levels(root / "encoder" / "down", c)),
        middle(root / "encoder" / "mid", c.channels.back()),
        exit(root.block("encoder.out"), "encoder", c.channels.back(), 2 * c.latent_channels,
             false) {}

  /// frames [T, 3, H, W] -> mean and spread [T', 2 · C, h, w].
  Tensor forward(const Tensor& frames) const {
    const auto groups = 1 + (frames.size(0) - 1) / each;
    Way way(groups);
    Tensors parts;
    for (std::int64_t i = 0; i < groups; ++i) {
      way.begin();
      auto h = entry.forward(
          i == 0 ? frames.narrow(0, 0, 1) : frames.narrow(0, 1 + each * (i - 1), each), way);
      for (const auto& level : levels) h = level.forward(std::move(h), way);
      parts.push_back(std::move(h));
    }
    auto whole = whole_clip();
    auto h = middle.forward(at::cat(parts).contiguous(at::MemoryFormat::ChannelsLast), whole);
    return exit.forward(
        h, whole, [this](const Tensor& y, const Tensor& x) { y.add_(mean_of_channels(x, means)); });
  }

  std::int64_t each, means;
  EndConv entry;
  std::vector<Level<Shrink>> levels;
  Middle middle;
  EndConv exit;
};

struct Autoencoder::Decoder {
  Decoder(const Scope& root, const Config& c)
      : time(c.time_downscale()),
        repeats(c.channels.back() / c.latent_channels),
        entry(root.block("decoder.conv_in"), "decoder", c.latent_channels, c.channels.back(), true),
        middle(root / "decoder" / "mid", c.channels.back()),
        levels(up_levels(root / "decoder" / "up", c)),
        exit(root.block("decoder.out"), "decoder", c.channels.front(), c.image_channels, false) {}

  /// latent frames [T, C, h, w] -> frames [1 + (T - 1) · 4, 3, H, W].
  Tensor forward(const Tensor& latent) const {
    auto whole = whole_clip();
    auto low = entry.forward(latent, whole, [this](const Tensor& y, const Tensor& z) {
      y.add_(z.repeat_interleave(repeats, 1));
    });
    low = middle.forward(low, whole);
    Way way(low.size(0));
    Tensor all;
    std::int64_t done = 0;
    for (std::int64_t i = 0; i < low.size(0); ++i) {
      way.begin();
      auto h = low.narrow(0, i, 1);
      for (const auto& level : levels) h = level.forward(std::move(h), way);
      h = exit.forward(h, way);
      if (!all.defined())
        all =
            at::empty({1 + (low.size(0) - 1) * time, h.size(1), h.size(2), h.size(3)}, h.options());
      all.narrow(0, done, h.size(0)).copy_(h);
      done += h.size(0);
    }
    return all;
  }

  std::int64_t time, repeats;
  EndConv entry;
  Middle middle;
  std::vector<Level<Grow>> levels;
  EndConv exit;
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

}  // namespace distorch::models::hunyuan_vae15
