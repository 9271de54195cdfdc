#include "distorch/models/clip/encoder.h"

#include "distorch/models/clip/text_model.h"
#include "distorch/tokenizers/clip_tokenizer.h"

namespace distorch::models::clip {

using at::Tensor;
using tokenizers::ClipBpe;

namespace {

/// Ids of all chunks, with embedding vectors where they belong. Vectors that do not fit leave their
/// place: what follows moves up, padding fills the end.
class Rows {
 public:
  Rows(std::int64_t width, int padding, const std::vector<Tensor>& embeddings)
      : width_(width), padding_(padding), embeddings_(embeddings) {}

  void add(const std::vector<tokenizers::Token>& chunk) {
    std::vector<std::int64_t> row;
    for (const auto& token : chunk) {
      weights_.push_back(token.weight);
      if (!token.is_embedding()) {
        row.push_back(token.id);
        continue;
      }
      auto vector = embeddings_[token.embedding][token.row];
      if (vector.numel() != width_) continue;
      batch_.replacements.push_back({rows_, static_cast<std::int64_t>(row.size()), vector});
      row.push_back(0);
    }
    finish(std::move(row), chunk.size());
  }

  TokenBatch batch(std::size_t length) {
    batch_.chunks = rows_;
    bool weighted =
        std::any_of(weights_.begin(), weights_.end(), [](float weight) { return weight != 1.0f; });
    if (weighted) {
      batch_.weights = at::tensor(weights_, at::kFloat).view({rows_, -1});
      finish({ClipBpe::start_token, ClipBpe::end_token}, length);  // the empty prompt
    }
    batch_.ids = at::tensor(ids_, at::kLong).view({rows_, -1});
    return std::move(batch_);
  }

 private:
  void finish(std::vector<std::int64_t> row, std::size_t length) {
    row.resize(length, padding_);
    ids_.insert(ids_.end(), row.begin(), row.end());
    ++rows_;
  }

  std::int64_t width_;
  int padding_;
  const std::vector<Tensor>& embeddings_;
  TokenBatch batch_;
  std::vector<std::int64_t> ids_;
  std::vector<float> weights_;
  std::int64_t rows_ = 0;
};

class ClipEncoder : public TextEncoder {
 public:
  ClipEncoder(const TextConfig& config, const EncoderUse& use,
              std::shared_ptr<Vocabularies> vocabularies)
      : model_(config), use_(use), vocabularies_(std::move(vocabularies)) {}

  weights::Manifest& manifest() override { return model_.manifest(); }
  std::int64_t width() const override { return model_.config().width; }
  std::int64_t pooled_width() const override {
    const auto& c = model_.config();
    return c.projection > 0 ? c.projection : c.width;
  }
  TokenBatch tokenize(const std::string& prompt, const Embeddings& embeddings,
                      std::int64_t chunks) const override;
  TextStates encode(const TokenBatch& batch, std::optional<int> layer,
                    at::Device device) const override;

 private:
  tokenizers::PromptTokenizerOptions tokenizer_options() const {
    return model_.config().kind == TextKind::ClipL ? tokenizers::clip_l_options
                                                   : tokenizers::clip_h_options;
  }
  TextOptions options(std::optional<int> layer) const;

  TextModel model_;
  EncoderUse use_;
  std::shared_ptr<Vocabularies> vocabularies_;
};

TokenBatch ClipEncoder::tokenize(const std::string& prompt, const Embeddings& embeddings,
                                 std::int64_t chunks) const {
  std::vector<Tensor> vectors;
  auto lookup = [&](const std::string& name) -> std::optional<int> {
    auto vector = embeddings ? embeddings(name) : Tensor();
    if (!vector.defined()) return {};
    return static_cast<int>(vector.size(0));
  };
  tokenizers::ClipTokenizer tokenizer(vocabularies_->clip(), tokenizer_options());
  auto tokens = tokenizer.tokenize(prompt, lookup);
  for (const auto& name : tokens.embeddings) vectors.push_back(embeddings(name));
  while (static_cast<std::int64_t>(tokens.chunks.size()) < chunks)
    tokens.chunks.push_back(tokenizer.tokenize("").chunks.front());
  Rows rows(width(), tokenizer.options().padding, vectors);
  for (const auto& chunk : tokens.chunks) rows.add(chunk);
  return rows.batch(tokens.chunks.front().size());
}

// A layer that the encoder has not means its last one.
TextOptions ClipEncoder::options(std::optional<int> layer) const {
  TextOptions options;
  options.layer = layer ? layer : use_.layer;
  options.normalize = use_.normalize;
  if (options.layer && std::abs(*options.layer) > model_.config().layers) options.layer.reset();
  return options;
}

TextStates ClipEncoder::encode(const TokenBatch& batch, std::optional<int> layer,
                               at::Device device) const {
  auto output = model_.forward({batch.ids.to(device), batch.replacements}, options(layer));
  auto hidden = output.hidden.to(at::kCPU);
  auto states = hidden.narrow(0, 0, batch.chunks);
  if (batch.weights.defined()) {
    auto empty = hidden.narrow(0, batch.chunks, 1);
    auto weight = batch.weights.unsqueeze(-1);
    states = at::where(weight == 1.0, states, (states - empty) * weight + empty);
  }
  return {states.reshape({1, -1, states.size(2)}), output.pooled.narrow(0, 0, 1).to(at::kCPU)};
}

}  // namespace

std::unique_ptr<TextEncoder> make_encoder(const TextConfig& config, const EncoderUse& use,
                                          std::shared_ptr<Vocabularies> vocabularies) {
  return std::make_unique<ClipEncoder>(config, use, std::move(vocabularies));
}

TextPart text_part_of(std::string name, const weights::Checkpoint& part, TextKind kind,
                      const EncoderUse& use, std::vector<std::string> lora_prefixes) {
  auto config = text_config(part, kind);
  return {std::move(name), part,
          [config, use](std::shared_ptr<Vocabularies> vocabularies) {
            return make_encoder(config, use, std::move(vocabularies));
          },
          [prefixes = std::move(lora_prefixes)](const weights::Manifest& manifest) {
            return prefixed_lora_names(manifest, prefixes);
          }};
}

}  // namespace distorch::models::clip
