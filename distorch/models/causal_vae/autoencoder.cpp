#include "distorch/models/causal_vae/autoencoder.h"

#include <optional>
#include <utility>

#include "distorch/models/causal_vae/layers.h"
#include "distorch/models/causal_vae/shortcuts.h"
#include "distorch/models/latent_check.h"

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

Step step_of(const Scope& scope, const Layer& layer, bool up) {
  Step step;
  if (layer.kind == Layer::Kind::Residual)
    step.residual.emplace(scope, layer.in, layer.out);
  else if (layer.kind == Layer::Kind::Attention)
    step.attention.emplace(scope, layer.out);
  else if (up)
    step.up.emplace(scope, layer.in, layer.out, layer.time);
  else
    step.down.emplace(scope, layer.out, layer.time);
  return step;
}

/// The layers between the first convolution and the middle, or between the middle and the last:
/// one after the other, or in groups with ways past them.
class Half {
 public:
  enum class Way { Down, Up };

  Half(const Scope& s, const Config& c, Way way)
      : way_(way), groups_(way == Way::Up ? c.up_groups : c.down_groups) {
    const auto& layers = way == Way::Up ? c.up : c.down;
    const auto* list = way == Way::Up ? "upsamples" : "downsamples";
    std::size_t next = 0;
    auto add = [&](const Scope& scope, std::int64_t count) {
      for (std::int64_t i = 0; i < count; ++i)
        steps_.push_back(step_of((scope / i).block(), layers[next++], way == Way::Up));
    };
    for (std::size_t g = 0; g < groups_.size(); ++g)
      add(s / list / static_cast<std::int64_t>(g) / list, groups_[g].layers);
    if (groups_.empty()) add(s / list, static_cast<std::int64_t>(layers.size()));
  }

  Tensor forward(Tensor x, Pass& pass) const {
    if (groups_.empty()) return through(std::move(x), 0, steps_.size(), pass);
    std::size_t first = 0;
    for (const auto& group : groups_) {
      auto end = first + static_cast<std::size_t>(group.layers);
      auto y = through(x, first, end, pass);
      if (group.shortcut)
        y.add_(way_ == Way::Up ? repeated(x, group, pass.first) : averaged(x, group));
      x = y;
      first = end;
    }
    return x;
  }

 private:
  Tensor through(Tensor x, std::size_t first, std::size_t end, Pass& pass) const {
    for (auto i = first; i < end; ++i) x = steps_[i].forward(x, pass);
    return x;
  }

  Way way_;
  std::vector<Group> groups_;
  std::vector<Step> steps_;
};

/// One video's frames [T, C, h, w] of [1, C, T, h, w], and back.
Tensor frames_of(const Tensor& video) { return video[0].movedim(1, 0); }
Tensor video_of(const Tensor& frames) { return frames.movedim(0, 1).unsqueeze(0); }

}  // namespace

struct CausalAutoencoder::Encoder {
  Encoder(const Scope& root, const Config& c)
      : entry((root / "encoder" / "conv1").block(), c.patch_channels(), c.first),
        half(root / "encoder", c, Half::Way::Down),
        middle(root / "encoder" / "middle", c.down.back().out),
        exit(exit_of(root, c)),
        latent((root / "conv1").block(), 2 * c.latent_channels) {}

  static ConvBlock exit_of(const Scope& root, const Config& c) {
    auto scope = (root / "encoder" / "head").block();
    return {scope / 2, c.down.back().out, 2 * c.latent_channels, scope / 0};
  }

  /// frames [T, 3 · patch², H, W] of a chunk -> mean and spread [T', 2·C, h, w].
  Tensor forward(const Tensor& frames, Pass pass) const {
    auto h = half.forward(entry.forward(frames, pass), pass);
    return latent.forward(exit.forward(middle.forward(h, pass), pass));
  }

  ConvBlock entry;
  Half half;
  Middle middle;
  ConvBlock exit;
  LatentConv latent;
};

struct CausalAutoencoder::Decoder {
  Decoder(const Scope& root, const Config& c)
      : latent((root / "conv2").block(), c.latent_channels),
        entry((root / "decoder" / "conv1").block(), c.latent_channels, c.middle),
        middle(root / "decoder" / "middle", c.middle),
        half(root / "decoder", c, Half::Way::Up),
        exit(exit_of(root, c)) {}

  static ConvBlock exit_of(const Scope& root, const Config& c) {
    auto scope = (root / "decoder" / "head").block();
    auto channels = c.up.back().out;
    return {scope / 2, channels, c.patch_channels(), scope / 0};
  }

  Tensor forward(const Tensor& frames, Pass pass) const {
    auto h = middle.forward(entry.forward(latent.forward(frames), pass), pass);
    return exit.forward(half.forward(h, pass), pass).to(at::kFloat);
  }

  LatentConv latent;
  ConvBlock entry;
  Middle middle;
  Half half;
  ConvBlock exit;
};

class CausalAutoencoder::Encoding final : public ClipCoding {
 public:
  explicit Encoding(const CausalAutoencoder& vae) : vae_(vae) {}

  Tensor next(const Tensor& group, bool more) override {
    const auto& c = vae_.config_;
    check_clip_pixels(group, c.image_channels, c.downscale());
    auto moments = vae_.encoder_->forward(to_patches(frames_of(group), c.patch),
                                          {memory_, std::exchange(first_, false), more});
    return video_of(moments.narrow(1, 0, c.latent_channels));
  }

 private:
  const CausalAutoencoder& vae_;
  Memory memory_;
  bool first_ = true;
};

class CausalAutoencoder::Decoding final : public ClipCoding {
 public:
  explicit Decoding(const CausalAutoencoder& vae) : vae_(vae) {}

  Tensor next(const Tensor& group, bool more) override {
    const auto& c = vae_.config_;
    check_clip_latent(group, c.latent_channels);
    auto patches =
        vae_.decoder_->forward(frames_of(group), {memory_, std::exchange(first_, false), more});
    return video_of(from_patches(patches, c.patch));
  }

 private:
  const CausalAutoencoder& vae_;
  Memory memory_;
  bool first_ = true;
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

std::unique_ptr<ClipCoding> CausalAutoencoder::encode_clip() const {
  return std::make_unique<Encoding>(*this);
}
std::unique_ptr<ClipCoding> CausalAutoencoder::decode_clip() const {
  return std::make_unique<Decoding>(*this);
}

}  // namespace distorch::models::causal_vae
