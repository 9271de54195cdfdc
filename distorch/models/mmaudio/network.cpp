#include "distorch/models/mmaudio/network.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <optional>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/modulation.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/patch.h"
#include "distorch/nn/rope.h"

namespace distorch::models::mmaudio {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr std::int64_t kHeadWidth = 64;
constexpr double kTheta = 10000;
constexpr double kNormEps = 1e-5;
constexpr double kHeadEps =
    1.1920929e-07;                    // of float32, which is what the network was trained with
constexpr std::int64_t kSegment = 8;  // what Synchformer says of a segment
constexpr std::int64_t kAround = 3, kFarAround = 7;  // frames that convolutions see

/// Every token alone, or with those next to it: x [B, L, in] -> [B, L, out].
class Layer {
 public:
  Layer(const Scope& s, std::int64_t in, std::int64_t out, std::int64_t kernel, bool bias = true)
      : kernel_(kernel) {
    weight_ = kernel == 1 ? s.weight("weight", {out, in}) : s.weight("weight", {out, in, kernel});
    if (bias) bias_ = s.weight("bias", {out});
  }
  Tensor operator()(const Tensor& x) const {
    if (kernel_ == 1) return nn::linear(x, weight_, bias_);
    std::optional<Tensor> bias;
    if (bias_.declared()) bias = nn::patched(bias_);
    return at::conv1d(x.transpose(1, 2), nn::patched(weight_), bias, at::IntArrayRef{1},
                      at::IntArrayRef{kernel_ / 2})
        .transpose(1, 2)
        .contiguous();
  }
  at::ScalarType dtype() const { return weight_.dtype(); }

 private:
  std::int64_t kernel_;
  weights::Weight weight_, bias_;
};

struct Mlp {
  Mlp(const Scope& s, const Config& c, std::int64_t kernel)
      : gate(s / "w1", c.width, c.mlp_width, kernel, false),
        value(s / "w3", c.width, c.mlp_width, kernel, false),
        out(s / "w2", c.mlp_width, c.width, kernel, false) {}
  Tensor operator()(const Tensor& x) const { return out(nn::swiglu_over(gate(x), value(x))); }

  Layer gate, value, out;
};

/// What comes in to the width of the network. The first version has SELU behind convolutions and
/// nothing behind linear layers, the second one SiLU everywhere.
struct Projection {
  Projection(const Scope& s, const Config& c, std::int64_t in, std::int64_t kernel,
             std::int64_t mlp_kernel)
      : first(s / 0, in, c.width, kernel),
        mlp(s / (c.second || kernel > 1 ? 2 : 1), c, mlp_kernel),
        second(c.second),
        selu(!c.second && kernel > 1) {}
  Tensor operator()(const Tensor& x) const {
    auto y = first(x.to(first.dtype()));
    if (second) return mlp(nn::silu(y));
    return mlp(selu ? at::selu(y) : y);
  }

  Layer first;
  Mlp mlp;
  bool second, selu;
};

/// The angles of places as tensors, which go into blocks with the rest.
struct Places {
  Places(const Tensor& like, std::int64_t count, double apart) {
    auto ids = at::arange(count, like.options().dtype(at::kDouble)) * apart;
    auto table = nn::rope_table(ids.view({1, count, 1}), {kHeadWidth}, kTheta);
    cos = table.cos;
    sin = table.sin;
  }
  Tensor cos, sin;
};

struct Heads {
  Tensor q, k, v;  // [B, L, H, D]
};

/// Tokens of one kind in a block: how they are changed before and behind attention. The last joint
/// block gives nothing of pictures and text, which then only prepare ("ends").
struct Stream {
  struct Modulation {
    Tensor gate, mlp_shift, mlp_scale, mlp_gate;
  };

  Stream(const Scope& s, const Config& c, std::int64_t kernel, bool ends = false)
      : heads(c.heads),
        levels(s / "adaLN_modulation" / 1, c.width, (ends ? 2 : 6) * c.width),
        qkv(s / "attn" / "qkv", c.width, 3 * c.width),
        q_norm(s / "attn" / "q_norm", kHeadWidth, kHeadEps),
        k_norm(s / "attn" / "k_norm", kHeadWidth, kHeadEps) {
    if (ends) return;
    out.emplace(s / "linear1", c.width, c.width, kernel);
    mlp.emplace(s / "ffn", c, kernel);
  }

  /// `level`: what the tokens follow, SiLU of it. `rope`: null for texts, which have no places.
  Heads before(const Tensor& x, const Tensor& level, const nn::RopeTable* rope,
               Modulation& modulation) const {
    auto parts = levels(level).chunk(out ? 6 : 2, -1);
    if (out) modulation = {parts[2], parts[3], parts[4], parts[5]};
    auto y = nn::modulated_norm(x, parts[0], parts[1], kNormEps);
    // A head's queries, keys and values lie number by number beside each other.
    auto all = qkv(y).unflatten(-1, {heads, kHeadWidth, 3}).permute({4, 0, 1, 2, 3}).contiguous();
    if (!rope) return {q_norm(all[0]), k_norm(all[1]), all[2]};
    return {q_norm.heads(all[0], *rope), k_norm.heads(all[1], *rope), all[2]};
  }

  Tensor behind(const Tensor& x, const Tensor& attended, const Modulation& m) const {
    auto y = nn::gated_add(x, m.gate, (*out)(attended));
    return nn::gated_add(y, m.mlp_gate,
                         (*mlp)(nn::modulated_norm(y, m.mlp_shift, m.mlp_scale, kNormEps)));
  }

  std::int64_t heads;
  nn::Linear levels, qkv;
  nn::RmsNorm q_norm, k_norm;
  std::optional<Layer> out;
  std::optional<Mlp> mlp;
};

/// One weights::Block. All kinds of tokens attend together.
struct JointBlock {
  JointBlock(const Scope& s, const Config& c, bool last)
      : block(s),
        sound(s / "latent_block", c, kAround),
        pictures(s / "clip_block", c, kAround, last),
        text(s / "text_block", c, 1, last),
        last(last) {}

  /// {sound, pictures, text}; the last one gives the sound alone. `local`: what the sound follows.
  Tensors forward(const Tensors& x, const Tensor& global, const Tensor& local, const Places& frames,
                  const Places& shown) const {
    return block.run(
        {x[0], x[1], x[2], global, local, frames.cos, frames.sin, shown.cos, shown.sin},
        [this](const Tensors& in) -> Tensors {
          const nn::RopeTable places{in[5], in[6]}, picture_places{in[7], in[8]};
          std::array<Stream::Modulation, 3> m;
          const std::array<Heads, 3> parts = {sound.before(in[0], in[4], &places, m[0]),
                                              pictures.before(in[1], in[3], &picture_places, m[1]),
                                              text.before(in[2], in[3], nullptr, m[2])};
          auto all = [&](Tensor Heads::*which) {
            return at::cat({parts[0].*which, parts[1].*which, parts[2].*which}, 1);
          };
          auto attended = nn::attend(all(&Heads::q), all(&Heads::k), all(&Heads::v))
                              .split_with_sizes({in[0].size(1), in[1].size(1), in[2].size(1)}, 1);
          auto made = sound.behind(in[0], attended[0].contiguous(), m[0]);
          if (last) return {made};
          return {made, pictures.behind(in[1], attended[1].contiguous(), m[1]),
                  text.behind(in[2], attended[2].contiguous(), m[2])};
        });
  }

  weights::Block block;
  Stream sound, pictures, text;
  bool last;
};

/// One weights::Block, of the sound alone.
struct FusedBlock {
  FusedBlock(const Scope& s, const Config& c) : block(s), sound(s, c, kAround) {}
  Tensor forward(const Tensor& x, const Tensor& local, const Places& frames) const {
    return block.run1({x, local, frames.cos, frames.sin}, [this](const Tensors& in) {
      const nn::RopeTable places{in[2], in[3]};
      Stream::Modulation m;
      auto heads = sound.before(in[0], in[1], &places, m);
      return sound.behind(in[0], nn::attend(heads.q, heads.k, heads.v), m);
    });
  }
  weights::Block block;
  Stream sound;
};

/// What the encoders say, in the width of the network: once for all steps.
struct ConditionBlock {
  ConditionBlock(const Scope& s, const Config& c)
      : block(s),
        clip(s / "clip_input_proj", c, c.clip, 1, kAround),
        sync(s / "sync_input_proj", c, c.sync, kFarAround, kAround),
        text(s / "text_input_proj", c, c.text, 1, 1),
        clip_mean(s / "clip_cond_proj", c.width, c.width),
        text_mean(s / "text_cond_proj", c.width, c.width),
        global(s / "global_cond_mlp", c, 1),
        sync_places(s.weight("sync_pos_emb", {1, 1, kSegment, c.sync})),
        no_clip(s.weight("empty_clip_feat", {1, c.clip})),
        no_sync(s.weight("empty_sync_feat", {1, c.sync})) {}

  /// What is there in the first row, and what stands for nothing in the others.
  static Tensor rows_of(const Tensor& given, const Tensor& none, std::int64_t rows,
                        std::int64_t length) {
    auto empty = none.expand({rows, length, -1});
    if (!given.defined()) return empty;
    return at::cat({given.to(none.scalar_type()), empty.narrow(0, 0, rows - 1)});
  }

  Conditions forward(const Features& features, const Lengths& lengths) const {
    auto made = block.run(
        {features.clip, features.sync, features.text},
        [this, lengths](const Tensors& in) -> Tensors {
          const auto rows = in[2].size(0);
          auto seen = clip(rows_of(in[0], nn::patched(no_clip), rows, lengths.clip));
          auto moves = rows_of(in[1], nn::patched(no_sync), rows, lengths.sync);
          moves =
              (moves.unflatten(1, {lengths.sync / kSegment, kSegment}) + nn::patched(sync_places))
                  .flatten(1, 2);
          moves = at::_upsample_nearest_exact1d(sync(moves).transpose(1, 2), {lengths.latent})
                      .transpose(1, 2)
                      .contiguous();
          auto words = text(in[2]);
          auto all = global(clip_mean(seen.mean(1)) + text_mean(words.mean(1)));
          return {seen, moves, words, all.unsqueeze(1)};
        });
    return {made[0], made[1], made[2], made[3]};
  }

  weights::Block block;
  Projection clip, sync, text;
  nn::Linear clip_mean, text_mean;
  Mlp global;
  weights::Weight sync_places, no_clip, no_sync;
};

/// What changes with every step.
struct Entry {
  Entry(const Scope& s, const Config& c)
      : block(s),
        sound(s / "audio_input_proj", c, c.latent, kFarAround, kFarAround),
        time1(s / "t_embed" / "mlp" / 0, c.frequencies, c.width),
        time2(s / "t_embed" / "mlp" / 2, c.width, c.width),
        frequencies(c.frequencies),
        // A moment 0..1 is told in ten thousandths by the second version.
        scale(c.second ? kTheta : 1.0) {}

  /// Cosines in front of sines. The frequencies carry the scale and are rounded with it: at ten
  /// thousand radians a different rounding shows.
  Tensor angles(const Tensor& time) const {
    auto numbers = time.options().dtype(at::kFloat);
    auto exponents = at::arange(0, frequencies, 2, numbers) / static_cast<double>(frequencies);
    auto turns = scale * (1.0 / at::pow(kTheta, exponents));
    auto turned = time.to(at::kFloat).unsqueeze(1) * turns;
    return at::cat({turned.cos(), turned.sin()}, 1);
  }

  /// {the sound's tokens, SiLU of what all tokens follow, SiLU of what the sound follows}
  Tensors forward(const Tensor& latent, const Tensor& time, const Conditions& conditions) const {
    return block.run({latent, time, conditions.global, conditions.sync},
                     [this](const Tensors& in) -> Tensors {
                       auto told = time2(nn::silu(time1(angles(in[1]).to(time1.dtype()))));
                       auto global = told.unsqueeze(1) + in[2];
                       return {sound(in[0]), nn::silu(global), nn::silu(global + in[3])};
                     });
  }

  weights::Block block;
  Projection sound;
  nn::Linear time1, time2;
  std::int64_t frequencies;
  double scale;
};

struct Exit {
  Exit(const Scope& s, const Config& c)
      : block(s),
        levels(s / "adaLN_modulation" / 1, c.width, 2 * c.width),
        out(s / "conv", c.width, c.latent, kFarAround) {}
  Tensor forward(const Tensor& x, const Tensor& global) const {
    return block.run1({x, global}, [this](const Tensors& in) {
      auto parts = levels(in[1]).chunk(2, -1);
      return out(nn::modulated_norm(in[0], parts[0], parts[1], kNormEps)).to(at::kFloat);
    });
  }
  weights::Block block;
  nn::Linear levels;
  Layer out;
};

void check_feature(const Tensor& given, std::int64_t length, std::int64_t width, const char* what) {
  if (!given.defined() || (given.size(1) == length && given.size(2) == width)) return;
  throw Error(ErrorKind::Shape, "MMAudio",
              fmt::format("takes {} {} of {} numbers each, and got {} of {}", length, what, width,
                          given.size(1), given.size(2)));
}

}  // namespace

Lengths lengths_of(const Config& config, double seconds) {
  constexpr double pictures = 8, frames = 25, segment = 16, step = 8;
  Lengths lengths;
  lengths.latent = static_cast<std::int64_t>(std::ceil(
      seconds * static_cast<double>(config.rate()) / static_cast<double>(config.hop()) / 2));
  lengths.clip = static_cast<std::int64_t>(seconds * pictures);
  lengths.sync =
      kSegment * static_cast<std::int64_t>(std::floor((seconds * frames - segment) / step) + 1);
  return lengths;
}

Checkpoint network_part(const Checkpoint& file) {
  return file.has("audio_input_proj.0.bias") && file.has_prefix("joint_blocks.0.latent_block.")
             ? file
             : Checkpoint{};
}

Config network_config(const Checkpoint& part) {
  Config c;
  c.width = size_of(part, "audio_input_proj.0.weight", 0);
  c.latent = size_of(part, "audio_input_proj.0.weight", 1);
  c.mlp_width = size_of(part, "audio_input_proj.2.w1.weight", 0);
  c.joint = part.count("joint_blocks.");
  c.fused = part.count("fused_blocks.");
  c.clip = size_of(part, "clip_input_proj.0.weight", 1);
  c.sync = size_of(part, "sync_input_proj.0.weight", 1);
  c.text = size_of(part, "text_input_proj.0.weight", 1);
  if (part.has("empty_string_feat")) c.tokens = size_of(part, "empty_string_feat", 0);
  c.frequencies = size_of(part, "t_embed.mlp.0.weight", 1);
  c.second = part.has_prefix("clip_input_proj.2.");
  c.heads = c.width / kHeadWidth;
  if (c.width % kHeadWidth != 0 || c.frequencies % 2 != 0)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("holds an MMAudio network of width {} and {} frequencies: known are "
                            "multiples of {} and of 2",
                            c.width, c.frequencies, kHeadWidth));
  if (c.latent != 20 && c.latent != 40)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("holds an MMAudio network for latents of {} numbers ("
                            "'audio_input_proj.0.weight'): known are 20 (16 kHz) and 40 (44.1 kHz)",
                            c.latent));
  return c;
}

struct Network::Parts {
  Parts(const Scope& root, const Config& c)
      : conditions(root.block("conditions"), c), in(root.block("in"), c) {
    for (std::int64_t i = 0; i < c.joint; ++i)
      joint.emplace_back((root / "joint_blocks" / i).block(), c, i + 1 == c.joint);
    for (std::int64_t i = 0; i < c.fused; ++i)
      fused.emplace_back((root / "fused_blocks" / i).block(), c);
    out = std::make_unique<Exit>((root / "final_layer").block(), c);
    auto place = root.block("latent");
    latent = weights::Block(place);
    mean = place.weight("latent_mean", {1, 1, c.latent});
    deviation = place.weight("latent_std", {1, 1, c.latent});
  }

  ConditionBlock conditions;
  Entry in;
  std::vector<JointBlock> joint;
  std::vector<FusedBlock> fused;
  std::unique_ptr<const Exit> out;
  weights::Block latent;
  weights::Weight mean, deviation;
};

Network::Network(const Config& config)
    : config_(config), parts_(std::make_unique<Parts>(Scope(manifest_), config_)) {}

Network::~Network() = default;

Conditions Network::conditions(const Features& features, const Lengths& lengths) const {
  check_feature(features.clip, lengths.clip, config_.clip, "pictures");
  check_feature(features.sync, lengths.sync, config_.sync, "moments of a video");
  check_feature(features.text, config_.tokens, config_.text, "tokens of a text");
  return parts_->conditions.forward(features, lengths);
}

Tensor Network::flow(const Tensor& latent, const Tensor& time, const Conditions& conditions) const {
  const auto frames = latent.size(1), shown = conditions.clip.size(1);
  const Places places(latent, frames, 1);
  // Pictures and sound are told their place in the same time.
  const Places pictures(latent, shown, static_cast<double>(frames) / static_cast<double>(shown));
  auto begun = parts_->in.forward(latent, time, conditions);
  Tensors x = {begun[0], conditions.clip, conditions.text};
  for (const auto& block : parts_->joint)
    x = block.forward(x, begun[1], begun[2], places, pictures);
  for (const auto& block : parts_->fused) x[0] = block.forward(x[0], begun[2], places);
  return parts_->out->forward(x[0], begun[1]);
}

Tensor Network::scaled(const Tensor& latent) const {
  return parts_->latent.run1({latent}, [this](const Tensors& in) {
    return in[0].to(at::kFloat) * nn::patched(parts_->deviation).to(at::kFloat) +
           nn::patched(parts_->mean).to(at::kFloat);
  });
}

}  // namespace distorch::models::mmaudio
