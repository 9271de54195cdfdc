#include "distorch/models/clip/text_model.h"

#include <algorithm>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/patch.h"

namespace distorch::models::clip {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

/// One transformer layer: x [B, L, width] -> [B, L, width].
class TextModel::Layer {
 public:
  Layer(const Scope& s, const TextConfig& c)
      : block_(s),
        kind_(c.kind),
        heads_(c.heads),
        norm1_(s / "layer_norm1", c.width),
        norm2_(s / "layer_norm2", c.width),
        q_(s / "self_attn" / "q_proj", c.width, c.width),
        k_(s / "self_attn" / "k_proj", c.width, c.width),
        v_(s / "self_attn" / "v_proj", c.width, c.width),
        out_(s / "self_attn" / "out_proj", c.width, c.width),
        fc1_(s / "mlp" / "fc1", c.width, c.mlp_width),
        fc2_(s / "mlp" / "fc2", c.mlp_width, c.width) {}

  Tensor forward(const Tensor& x) const {
    return block_.run1({x}, [this](const Tensors& in) { return apply(in[0]); });
  }

 private:
  Tensor apply(const Tensor& x) const {
    auto h = norm1_(x);
    auto y = out_(nn::attention(q_(h), k_(h), v_(h), {.heads = heads_, .causal = true})).add_(x);
    h = fc1_(norm2_(y));
    h = kind_ == TextKind::ClipL ? nn::quick_gelu(h) : nn::gelu(h);
    return fc2_(h).add_(y);
  }

  weights::Block block_;
  TextKind kind_;
  std::int64_t heads_;
  nn::LayerNorm norm1_, norm2_;
  nn::Linear q_, k_, v_, out_, fc1_, fc2_;
};

TextModel::Embeddings::Embeddings(const Scope& s, const TextConfig& c)
    : block(s),
      token(s / "token_embedding", c.vocabulary, c.width),
      position(s / "position_embedding", c.positions, c.width) {}

TextModel::Final::Final(const Scope& s, const TextConfig& c)
    : block(s), norm(s / "text_model" / "final_layer_norm", c.width) {
  if (c.projection == 0) return;
  projection = c.projection_transposed
                   ? s.weight("text_projection", {c.width, c.projection})
                   : s.weight("text_projection.weight", {c.projection, c.width});
}

TextModel::TextModel(const TextConfig& config)
    : config_(config),
      embeddings_((Scope(manifest_) / "text_model" / "embeddings").block(), config_),
      layers_([&] {
        std::vector<std::shared_ptr<const Layer>> layers;
        auto scope = Scope(manifest_) / "text_model" / "encoder" / "layers";
        for (std::int64_t i = 0; i < config_.layers; ++i)
          layers.push_back(std::make_shared<const Layer>((scope / i).block(), config_));
        return layers;
      }()),
      final_(Scope(manifest_).block("text_model.final"), config_) {}

int TextModel::wanted_layer(const std::optional<int>& layer) const {
  auto count = static_cast<int>(config_.layers);
  if (!layer || std::abs(*layer) > count || *layer == count) return count - 1;
  return *layer < 0 ? count + *layer : *layer;
}

namespace {

// Index of the first end token of each row; the last position where there is none. Counted by the
// host: a GPU would load code for it that nothing else needs (0.1 s of a new process on an H200).
std::vector<std::int64_t> ends_of(const Tensor& ids, std::int64_t end_token) {
  const auto host = ids.to(at::kCPU, at::kLong).contiguous();
  const auto length = host.size(1);
  std::vector<std::int64_t> ends;
  for (std::int64_t row = 0; row < host.size(0); ++row) {
    const auto* first = host.const_data_ptr<std::int64_t>() + row * length;
    const auto place = std::find(first, first + length, end_token) - first;
    ends.push_back(std::min<std::int64_t>(place, length - 1));
  }
  return ends;
}

}  // namespace

Tensor TextModel::embed(const TextInput& input) const {
  auto length = input.ids.size(1);
  if (length > config_.positions)
    throw Error(ErrorKind::Shape, "text encoder",
                "got " + std::to_string(length) + " tokens at once, it takes " +
                    std::to_string(config_.positions));
  std::vector<std::int64_t> places;
  Tensors vectors;
  for (const auto& r : input.replacements) {
    if (r.vector.numel() != config_.width)
      throw Error(ErrorKind::Shape, "embedding",
                  "has " + std::to_string(r.vector.numel()) +
                      " numbers a token, this text encoder needs " + std::to_string(config_.width));
    places.push_back(r.row * length + r.column);
    vectors.push_back(r.vector.reshape({config_.width}).to(at::kFloat));
  }
  Tensors inputs = {input.ids.to(input.device)};
  if (!places.empty()) {
    inputs.push_back(at::tensor(places, at::kLong).to(input.device));
    inputs.push_back(at::stack(vectors).to(input.device));
  }
  return embeddings_.block.run1(inputs, [this](const Tensors& in) {
    auto x = embeddings_.token(in[0]);
    if (in.size() > 1)
      x = x.flatten(0, 1).index_copy(0, in[1], in[2].to(x.scalar_type())).view(x.sizes());
    return x + embeddings_.position.first(x.size(1));
  });
}

TextOutput TextModel::forward(const TextInput& input, const TextOptions& options) const {
  auto x = embed(input);
  auto wanted = wanted_layer(options.layer);
  Tensor intermediate;
  for (int i = 0; i < static_cast<int>(layers_.size()); ++i) {
    x = layers_[i]->forward(x);
    if (i == wanted) intermediate = x;
  }
  const auto ends = ends_of(input.ids, config_.end_token);
  bool is_last = wanted + 1 == static_cast<int>(layers_.size());
  // Only a layer that was asked for by number can come without the norm.
  bool normalize = options.normalize || !options.layer;
  auto out = final_.block.run({x, is_last ? x : intermediate}, [&](const Tensors& in) -> Tensors {
    auto last = final_.norm(in[0]);
    auto hidden = !normalize ? in[1] : is_last ? last : final_.norm(in[1]);
    Tensors at_ends;
    for (std::size_t row = 0; row < ends.size(); ++row)
      at_ends.push_back(last[static_cast<std::int64_t>(row)][ends[row]]);
    auto pooled = at::stack(at_ends);
    if (options.project_pooled && final_.projection.defined()) {
      auto matrix = nn::patched(final_.projection);
      pooled =
          config_.projection_transposed ? at::matmul(pooled, matrix) : at::linear(pooled, matrix);
    }
    return {hidden.to(at::kFloat), pooled.to(at::kFloat)};
  });
  return {out[0], out[1]};
}

}  // namespace distorch::models::clip
