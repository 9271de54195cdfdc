#include "distorch/models/wan/sound.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "distorch/base/error.h"
#include "distorch/models/wan/tokens.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/patch.h"

namespace distorch::models::wan {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr double kEpsilon = 1e-6, kNormEpsilon = 1e-5;
constexpr std::int64_t kAudioTokens = 4;
// The video's layers behind which the sound is heard.
constexpr std::array<std::int64_t, 12> kHeard = {0, 4, 8, 12, 16, 20, 24, 27, 30, 33, 36, 39};
// Earlier frames and how many of them, and of their cells each way, are one token; from the nearest
// to the farthest.
struct Bucket {
  const char* name;
  std::int64_t frames, together, side;
};
constexpr std::array<Bucket, 3> kBuckets = {
    {{"proj", 1, 1, 2}, {"proj_2x", 2, 2, 4}, {"proj_4x", 16, 4, 8}}};
constexpr std::int64_t kEarlier = 19;

}  // namespace

AudioEncoder::AudioEncoder(const Scope& s, const Config& c)
    : shares_(s.weight("weights", {1, c.audio_layers, 1, 1})),
      padding_((s / "encoder").weight("padding_tokens", {1, 1, 1, c.width})),
      parts_(s / "encoder" / "conv1_local", {c.audio_width, c.width / 4 * kAudioTokens}),
      whole_(s / "encoder" / "conv1_global", {c.audio_width, c.width / 4}),
      second_(s / "encoder" / "conv2", {c.width / 4, c.width / 2, 2}),
      third_(s / "encoder" / "conv3", {c.width / 2, c.width, 2}),
      out_(s / "encoder" / "final_linear", c.width, c.width) {}

/// x [N, width / 4, T] -> [N, T / 4, width].
Tensor AudioEncoder::tail(const Tensor& x) const {
  auto normed = [](const Tensor& y) {
    return nn::silu(nn::layer_norm(y.transpose(1, 2).contiguous(), kEpsilon));
  };
  auto y = second_(normed(x).transpose(1, 2));
  return normed(third_(normed(y).transpose(1, 2)));
}

AudioEncoder::Tokens AudioEncoder::operator()(const Tensor& audio) const {
  auto shares = nn::silu(nn::patched(shares_));
  auto mixed = (audio.to(shares.scalar_type()) * shares / shares.sum(1, true)).sum(1);
  auto batch = mixed.size(0);
  auto parts = tail(parts_(mixed).unflatten(1, {kAudioTokens, -1}).flatten(0, 1));
  parts = parts.unflatten(0, {batch, kAudioTokens}).transpose(1, 2);
  auto padding = nn::patched(padding_).to(parts.scalar_type());
  parts = at::cat({parts, padding.expand({batch, parts.size(1), 1, parts.size(3)})}, 2);
  return {out_(tail(whole_(mixed))).unsqueeze(2), parts};
}

AudioBlock::AudioBlock(const Scope& s, const Scope& norm, const Config& c)
    : heads_(c.heads()),
      block_(s),
      shift_scale_(norm / "linear", c.width, 2 * c.width),
      q_(s / "q", c.width, c.width),
      k_(s / "k", c.width, c.width),
      v_(s / "v", c.width, c.width),
      out_(s / "o", c.width, c.width),
      norm_q_(s / "norm_q", c.width, kEpsilon),
      norm_k_(s / "norm_k", c.width, kEpsilon) {}

Tensor AudioBlock::forward(const Tensor& x, const AudioEncoder::Tokens& audio,
                           std::int64_t video) const {
  return block_.run1({x, audio.whole, audio.parts}, [&](const Tensors& in) {
    auto batch = in[2].size(0), frames = in[2].size(1);
    auto seen = in[0].narrow(1, 0, video);
    auto by_frame = seen.reshape({batch * frames, -1, seen.size(2)});
    auto both = shift_scale_(nn::silu(in[1].flatten(0, 1))).chunk(2, -1);  // [B · T, 1, width]
    auto feature = nn::layer_norm(by_frame, kNormEpsilon) * (1.0 + both[1]) + both[0];
    auto heard = in[2].flatten(0, 1);
    auto y =
        out_(nn::attention(norm_q_(q_(feature)), norm_k_(k_(heard)), v_(heard), {.heads = heads_}));
    auto rest = in[0].narrow(1, video, in[0].size(1) - video);
    return at::cat({seen + y.reshape(seen.sizes()), rest}, 1);
  });
}

Sound::Sound(const Scope& root, const Config& c) {
  auto sound = root.block("sound in");
  sound_block_ = weights::Block(sound);
  encoder_.emplace(sound / "casual_audio_encoder", c);
  auto control = root.block("pose in");
  control_block_ = weights::Block(control);
  control_ =
      (control / "cond_encoder").weight("weight", {c.width, c.out_channels, 1, kPatch, kPatch});
  control_bias_ = (control / "cond_encoder").weight("bias", {c.width});
  auto motion = root.block("motion in");
  motion_block_ = weights::Block(motion);
  for (const auto& bucket : kBuckets) {
    auto place = motion / "frame_packer" / bucket.name;
    motion_.push_back({place.weight("weight", {c.width, c.out_channels, bucket.together,
                                               bucket.side, bucket.side}),
                       place.weight("bias", {c.width}), bucket.together, bucket.side});
  }
  auto marks = root.block("marks");
  marks_block_ = weights::Block(marks);
  marks_ = (marks / "trainable_cond_mask").weight("weight", {3, c.width});
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(kHeard.size()); ++i) {
    auto place = (root / "audio_injector").block(fmt::format("sound {}", i));
    layers_.emplace_back(place / "injector" / i, place / "injector_adain_layers" / i, c);
  }
}

AudioEncoder::Tokens Sound::hear(const Tensor& audio, std::int64_t frames) const {
  if (!audio.defined()) return {};
  auto wanted = kAudioTokens * frames;
  if (audio.size(3) < wanted)
    throw Error(ErrorKind::Shape, "audio_embed",
                fmt::format("is of {} steps, and a video of {} latent frames needs {}",
                            audio.size(3), frames, wanted));
  auto made = sound_block_.run({audio.narrow(3, 0, wanted)}, [&](const Tensors& in) {
    auto tokens = (*encoder_)(in[0]);
    return Tensors{tokens.whole, tokens.parts};
  });
  return {made[0], made[1]};
}

Tensor Sound::controlled(const Tensor& tokens, const Tensor& control) const {
  if (!control.defined()) return tokens;
  return tokens + control_block_.run1({to_tokens(control)}, [&](const Tensors& in) {
    return nn::linear(in[0].to(control_.dtype()), control_, control_bias_);
  });
}

Tensor Sound::marked(const Tensor& tokens, const std::array<std::int64_t, 3>& counts) const {
  return marks_block_.run1({tokens}, [&](const Tensors& in) {
    auto marks = nn::patched(marks_).to(in[0].scalar_type());
    Tensors parts;
    std::int64_t first = 0;
    for (std::int64_t kind = 0; kind < 3; ++kind) {
      auto count = counts[static_cast<std::size_t>(kind)];
      if (count > 0) parts.push_back(in[0].narrow(1, first, count) + marks[kind]);
      first += count;
    }
    return at::cat(parts, 1);
  });
}

Tensor Sound::patched_latent(const Tensor& latent, const Patch& patch) const {
  std::vector<std::int64_t> size = {patch.frames, patch.side, patch.side};
  return at::conv3d(latent.to(patch.weight.dtype()), nn::patched(patch.weight),
                    nn::patched(patch.bias), size);
}

Sound::More Sound::motion(const Tensor& latent) const {
  auto have = std::min(kEarlier, latent.size(2));
  auto all = at::constant_pad_nd(latent.narrow(2, latent.size(2) - have, have),
                                 {0, 0, 0, 0, kEarlier - have, 0});
  auto tokens = motion_block_.run1({all}, [&](const Tensors& in) {
    Tensors parts;
    auto end = kEarlier;
    for (std::size_t i = 0; i < kBuckets.size(); ++i) {
      end -= kBuckets[i].frames;
      auto part = patched_latent(in[0].narrow(2, end, kBuckets[i].frames), motion_[i]);
      parts.push_back(part.flatten(2).transpose(1, 2));
    }
    return at::cat(parts, 1);
  });
  Tensors places;
  std::int64_t first = 0;
  for (const auto& bucket : kBuckets) {
    first -= bucket.frames;
    auto height = latent.size(3) / bucket.side, width = latent.size(4) / bucket.side;
    places.push_back(spread_positions({bucket.frames / bucket.together, height, width},
                                      {latent.size(3), latent.size(4)}, first, latent.device()));
  }
  return {tokens, at::cat(places, 1)};
}

Tensor Sound::after(std::int64_t layer, const Tensor& x, const AudioEncoder::Tokens& audio,
                    std::int64_t video) const {
  const auto* at = std::find(kHeard.begin(), kHeard.end(), layer);
  if (!audio.parts.defined() || at == kHeard.end()) return x;
  return layers_[static_cast<std::size_t>(at - kHeard.begin())].forward(x, audio, video);
}

}  // namespace distorch::models::wan
