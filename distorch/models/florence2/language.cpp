#include "distorch/models/florence2/language.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/embedding.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/patch.h"

namespace distorch::models::florence2 {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

// The tables of positions have two rows in front that stand for nothing.
constexpr std::int64_t kFirstPosition = 2;

struct Attention {
  Attention(const Scope& s, std::int64_t width, std::int64_t head_count)
      : q(s / "q_proj", width, width),
        k(s / "k_proj", width, width),
        v(s / "v_proj", width, width),
        out(s / "out_proj", width, width),
        heads(head_count) {}

  nn::Linear q, k, v, out;
  std::int64_t heads;
};

struct Mlp {
  Mlp(const Scope& s, std::int64_t width, std::int64_t inner)
      : fc1(s / "fc1", width, inner),
        fc2(s / "fc2", inner, width),
        norm(s / "final_layer_norm", width) {}

  Tensor operator()(const Tensor& x) const { return norm(x + fc2(nn::gelu(fc1(x)))); }

  nn::Linear fc1, fc2;
  nn::LayerNorm norm;
};

}  // namespace

DecoderState DecoderState::rows(const Tensor& which) const {
  auto result = *this;
  auto take = [&](std::vector<Tensor>& all) {
    for (auto& one : all) one = one.index_select(0, which.to(one.device()));
  };
  take(result.keys);
  take(result.values);
  return result;
}

/// The one table that both halves read tokens from and that scores are made with.
class Language::Table {
 public:
  Table(const Scope& s, const TextConfig& c)
      : block_(s),
        table_(s / "model" / "shared", c.vocabulary, c.width),
        bias_(s.optional_weight("final_logits_bias", {1, c.vocabulary})) {}

  /// ids [B, L] -> [B, L, width].
  Tensor rows(const Tensor& ids) const {
    return block_.run1({ids}, [this](const Tensors& in) { return table_(in[0]); });
  }
  /// x [N, 1, width] -> [N, vocabulary] float32.
  Tensor scores(const Tensor& x) const {
    return block_.run1({x}, [this](const Tensors& in) {
      auto y = table_.products(in[0].squeeze(1));
      if (auto bias = nn::optional_value(bias_)) y = y + *bias;
      return y.to(at::kFloat);
    });
  }

 private:
  weights::Block block_;
  nn::Embedding table_;
  weights::Weight bias_;
};

/// What a half starts with: tokens with their places. One weights::Block.
class Language::Start {
 public:
  Start(const Scope& s, const TextConfig& c)
      : block_(s),
        positions_(
            (s / "embed_positions").weight("weight", {c.positions + kFirstPosition, c.width})),
        norm_(s / "layernorm_embedding", c.width) {}

  /// x [B, L, width], the first of them at place `first`.
  Tensor forward(const Tensor& x, std::int64_t first) const {
    const auto limit = positions_.shape()[0] - kFirstPosition;
    if (first + x.size(1) > limit)
      throw Error(ErrorKind::Shape, "Florence-2",
                  fmt::format("cannot hold {} tokens at once, it has places for {}",
                              first + x.size(1), limit));
    return block_.run1({x}, [this, first](const Tensors& in) {
      auto places = positions_.rows(first + kFirstPosition, in[0].size(1));
      return norm_(in[0].to(places.scalar_type()) + places);
    });
  }

 private:
  weights::Block block_;
  weights::Weight positions_;
  nn::LayerNorm norm_;
};

/// One weights::Block.
class Language::EncoderLayer {
 public:
  EncoderLayer(const Scope& s, const TextConfig& c)
      : block_(s),
        own_(s / "self_attn", c.width, c.encoder_heads),
        own_norm_(s / "self_attn_layer_norm", c.width),
        mlp_(s, c.width, c.encoder_mlp) {}

  Tensor forward(const Tensor& x) const {
    return block_.run1({x}, [this](const Tensors& in) {
      const auto& at = in[0];
      auto seen = nn::attention(own_.q(at), own_.k(at), own_.v(at), {.heads = own_.heads});
      return mlp_(own_norm_(at + own_.out(seen)));
    });
  }

 private:
  weights::Block block_;
  Attention own_;
  nn::LayerNorm own_norm_;
  Mlp mlp_;
};

/// One weights::Block.
class Language::DecoderLayer {
 public:
  DecoderLayer(const Scope& s, const TextConfig& c)
      : block_(s),
        own_(s / "self_attn", c.width, c.decoder_heads),
        own_norm_(s / "self_attn_layer_norm", c.width),
        other_(s / "encoder_attn", c.width, c.decoder_heads),
        other_norm_(s / "encoder_attn_layer_norm", c.width),
        mlp_(s, c.width, c.decoder_mlp) {}

  /// What it sees of the encoder's result: keys and values [1, L, width].
  Tensors seen(const Tensor& encoded) const {
    return block_.run({encoded}, [this](const Tensors& in) -> Tensors {
      return {other_.k(in[0]), other_.v(in[0])};
    });
  }

  /// in: x [N, 1, width], keys and values so far (or undefined), those of seen() -> x, keys and values
  /// with the new ones.
  Tensors next(const Tensors& inputs) const {
    return block_.run(inputs, [this](const Tensors& in) -> Tensors {
      const auto& x = in[0];
      auto behind = [](const Tensor& before, const Tensor& one) {
        return before.defined() ? at::cat({before, one}, 1) : one;
      };
      auto keys = behind(in[1], own_.k(x)), values = behind(in[2], own_.v(x));
      auto y = nn::attention(own_.q(x), keys, values, {.heads = own_.heads});
      auto h = own_norm_(x + own_.out(y));
      // All rows answer to the same: they are the queries of one sequence.
      y = nn::attention(other_.q(h).transpose(0, 1), in[3], in[4], {.heads = other_.heads});
      h = other_norm_(h + other_.out(y.transpose(0, 1)));
      return {mlp_(h), keys, values};
    });
  }

 private:
  weights::Block block_;
  Attention own_;
  nn::LayerNorm own_norm_;
  Attention other_;
  nn::LayerNorm other_norm_;
  Mlp mlp_;
};

Language::Language(weights::Manifest& manifest, const TextConfig& config) {
  const auto root = Scope(manifest) / "language_model";
  const auto encoder = root / "model" / "encoder", decoder = root / "model" / "decoder";
  table_ = std::make_unique<const Table>(root.block("table"), config);
  encoder_start_ = std::make_unique<const Start>(encoder.block("encoder start"), config);
  for (std::int64_t i = 0; i < config.encoder_layers; ++i)
    encoder_.push_back(
        std::make_unique<const EncoderLayer>((encoder / "layers" / i).block(), config));
  decoder_start_ = std::make_unique<const Start>(decoder.block("decoder start"), config);
  for (std::int64_t i = 0; i < config.decoder_layers; ++i)
    decoder_.push_back(
        std::make_unique<const DecoderLayer>((decoder / "layers" / i).block(), config));
}

Language::~Language() = default;

Tensor Language::encode(const Tensor& features, const Tensor& ids) const {
  auto text = table_->rows(ids);
  auto x = encoder_start_->forward(at::cat({features.to(text.scalar_type()), text}, 1), 0);
  for (const auto& layer : encoder_) x = layer->forward(x);
  return x;
}

DecoderState Language::begin(const Tensor& encoded) const {
  DecoderState state;
  for (const auto& layer : decoder_) {
    auto seen = layer->seen(encoded);
    state.seen_keys.push_back(seen[0]);
    state.seen_values.push_back(seen[1]);
  }
  state.keys.resize(decoder_.size());
  state.values.resize(decoder_.size());
  return state;
}

Tensor Language::next(const Tensor& ids, DecoderState& state) const {
  auto x = decoder_start_->forward(table_->rows(ids), state.length);
  for (std::size_t i = 0; i < decoder_.size(); ++i) {
    auto made = decoder_[i]->next(
        {x, state.keys[i], state.values[i], state.seen_keys[i], state.seen_values[i]});
    x = made[0];
    state.keys[i] = made[1];
    state.values[i] = made[2];
  }
  ++state.length;
  return table_->scores(x);
}

}  // namespace distorch::models::florence2
