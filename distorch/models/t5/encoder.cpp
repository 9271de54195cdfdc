#include "distorch/models/t5/encoder.h"

#include "distorch/models/t5/text_model.h"
#include "distorch/models/text_tokens.h"

namespace distorch::models::t5 {

using at::Tensor;
using tokenizers::Unigram;

namespace {

constexpr int kPadding = 0;

class T5Encoder : public TextEncoder {
 public:
  T5Encoder(const TextConfig& config, int shortest, Tensor own_vocabulary, std::string path,
            std::shared_ptr<Vocabularies> vocabularies)
      : model_(config),
        shortest_(shortest),
        own_vocabulary_(std::move(own_vocabulary)),
        path_(std::move(path)),
        vocabularies_(std::move(vocabularies)) {}

  weights::Manifest& manifest() override { return model_.manifest(); }
  std::int64_t width() const override { return model_.config().width; }
  std::int64_t pooled_width() const override { return 0; }

  TokenBatch tokenize(const Prompt& prompt, const Embeddings& embeddings,
                      std::int64_t) const override {
    auto vocabulary = vocabularies_->t5(own_vocabulary_, path_);
    tokenizers::PromptTokenizer tokenizer(
        [&](std::string_view text) { return vocabulary->encode(text); },
        {.min_length = shortest_, .end = Unigram::end_token, .padding = kPadding});
    RowFilling filling{width(), kPadding, {Unigram::end_token}};
    if (prompt.silent) return nothing(filling);
    return token_batch(tokenizer, prompt.text, embeddings, filling);
  }

  TextStates encode(const TokenBatch& batch, std::optional<int> layer,
                    at::Device device) const override {
    auto states = model_.forward(batch.ids.to(device), batch.replacements, layer);
    return {weighted(states.to(at::kCPU), batch), {}, {}, batch.silent};
  }

 private:
  TextModel model_;
  int shortest_;
  Tensor own_vocabulary_;
  std::string path_;
  std::shared_ptr<Vocabularies> vocabularies_;
};

}  // namespace

TextPart text_part_of(std::string name, const weights::Checkpoint& part, int shortest,
                      std::vector<std::string> lora_prefixes) {
  auto config = text_config(part);
  Tensor own;
  if (const auto* stored = part.find("spiece_model")) own = weights::read_tensor(*stored);
  return {std::move(name), part,
          [config, shortest, own, path = part.path()](
              std::shared_ptr<Vocabularies> vocabularies) -> std::unique_ptr<TextEncoder> {
            return std::make_unique<T5Encoder>(config, shortest, own, path,
                                               std::move(vocabularies));
          },
          [prefixes = std::move(lora_prefixes)](const weights::Manifest& manifest) {
            return prefixed_lora_names(manifest, prefixes);
          }};
}

}  // namespace distorch::models::t5
