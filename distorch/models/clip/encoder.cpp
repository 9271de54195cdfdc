#include "distorch/models/clip/encoder.h"

#include "distorch/models/clip/text_model.h"
#include "distorch/models/text_tokens.h"
#include "distorch/tokenizers/clip_tokenizer.h"

namespace distorch::models::clip {

using at::Tensor;
using tokenizers::ClipBpe;

namespace {

class ClipEncoder : public TextEncoder {
 public:
  ClipEncoder(const TextConfig& config, const EncoderUse& use,
              std::shared_ptr<Vocabularies> vocabularies)
      : model_(config), use_(use), vocabularies_(std::move(vocabularies)) {}

  weights::Manifest& manifest() override { return model_.manifest(); }
  std::int64_t width() const override { return model_.config().width; }
  std::int64_t pooled_width() const override {
    const auto& c = model_.config();
    return c.projection > 0 && use_.project_pooled ? c.projection : c.width;
  }
  TokenBatch tokenize(const Prompt& prompt, const Embeddings& embeddings,
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

TokenBatch ClipEncoder::tokenize(const Prompt& prompt, const Embeddings& embeddings,
                                 std::int64_t chunks) const {
  tokenizers::ClipTokenizer tokenizer(vocabularies_->clip(), tokenizer_options());
  RowFilling filling{
      width(), tokenizer.options().padding, {ClipBpe::start_token, ClipBpe::end_token}};
  // Silence beside another encoder's text counts as an empty text.
  auto batch =
      token_batch(tokenizer, prompt.silent ? "" : prompt.text, embeddings, filling, chunks);
  batch.silent = prompt.silent;
  return batch;
}

// A layer that the encoder has not means its last one.
TextOptions ClipEncoder::options(std::optional<int> layer) const {
  TextOptions options;
  options.layer = layer ? layer : use_.layer;
  options.normalize = use_.normalize;
  options.project_pooled = use_.project_pooled;
  if (options.layer && std::abs(*options.layer) > model_.config().layers) options.layer.reset();
  return options;
}

TextStates ClipEncoder::encode(const TokenBatch& batch, std::optional<int> layer,
                               at::Device device) const {
  auto output = model_.forward({batch.ids, batch.replacements, device}, options(layer));
  return {weighted(output.hidden.to(at::kCPU), batch),
          output.pooled.narrow(0, 0, 1).to(at::kCPU),
          {},
          batch.silent};
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
