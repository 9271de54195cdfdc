#include "distorch/models/t5/encoder.h"

#include "distorch/models/gguf_tokenizer.h"
#include "distorch/models/t5/glyphs.h"
#include "distorch/models/t5/text_model.h"
#include "distorch/models/text_tokens.h"
#include "distorch/tokenizers/byte_tokens.h"

namespace distorch::models::t5 {

using at::Tensor;
using tokenizers::Unigram;

namespace {

constexpr int kPadding = 0;

/// What reads the text.
enum class Reading {
  Unigram,        // ours; all tokens count
  SentencePiece,  // the library; tokens behind the end do not count (UMT5)
  Glyphs,         // bytes of what is quoted; tokens behind the end do not count (ByT5)
};

static_assert(Unigram::end_token == tokenizers::ByteTokens::end_token &&
              kPadding == tokenizers::ByteTokens::padding_token);

/// What one encoder of this kind does otherwise than another.
struct EncoderUse {
  int shortest = 1;  // tokens that prompts are filled up to
  Reading reading = Reading::Unigram;
  bool masked = false;  // tokens behind the end do not count, and who gets the states is told so
  Tensor vocabulary{};  // the file's own; undefined: it has none
  std::string path{};   // of the file
};

class T5Encoder : public TextEncoder {
 public:
  T5Encoder(const TextConfig& config, EncoderUse use, std::shared_ptr<Vocabularies> vocabularies)
      : model_(config), use_(std::move(use)), vocabularies_(std::move(vocabularies)) {}

  weights::Manifest& manifest() override { return model_.manifest(); }
  std::int64_t width() const override { return model_.config().width; }
  std::int64_t pooled_width() const override { return 0; }

  TokenBatch tokenize(const Prompt& prompt, const Embeddings& embeddings,
                      std::int64_t) const override {
    tokenizers::PromptTokenizer tokenizer(
        encoding(), {.min_length = use_.shortest, .end = Unigram::end_token, .padding = kPadding});
    RowFilling filling{width(), kPadding, {Unigram::end_token}};
    auto words = use_.reading == Reading::Glyphs ? quoted_words(prompt.text) : prompt.text;
    auto silent = prompt.silent || (use_.reading == Reading::Glyphs && words.empty());
    auto batch = silent ? nothing(filling) : token_batch(tokenizer, words, embeddings, filling);
    if (use_.reading != Reading::Unigram || use_.masked) batch.mask = up_to_end(batch.ids);
    return batch;
  }

  TextStates encode(const TokenBatch& batch, std::optional<int> layer,
                    at::Device device) const override {
    auto mask = batch.mask.defined() ? batch.mask.to(device) : Tensor();
    auto states = model_.forward(batch.ids.to(device), batch.replacements, layer, mask);
    if (use_.reading != Reading::Unigram && mask.defined()) states = states * mask.unsqueeze(-1);
    auto told = use_.masked ? batch.mask.narrow(0, 0, 1) : Tensor();
    return {weighted(states.to(at::kCPU), batch), {}, told, batch.silent};
  }

 private:
  std::function<std::vector<int>(std::string_view)> encoding() const {
    if (use_.reading == Reading::Glyphs) return tokenizers::byte_tokens;
    if (use_.reading == Reading::SentencePiece)
      return [model = vocabularies_->sentence_piece(use_.vocabulary, use_.path)](
                 std::string_view text) { return model->encode(text); };
    return [vocabulary = vocabularies_->t5(use_.vocabulary, use_.path)](std::string_view text) {
      return vocabulary->encode(text);
    };
  }

  /// 1 for every token up to the first that ends the text.
  static Tensor up_to_end(const Tensor& ids) {
    auto ends = ids.eq(Unigram::end_token).to(at::kLong);
    return (at::cumsum(ends, 1) - ends).eq(0).to(at::kFloat);
  }

  TextModel model_;
  EncoderUse use_;
  std::shared_ptr<Vocabularies> vocabularies_;
};

TextPart part_of(std::string name, const weights::Checkpoint& part, EncoderUse use,
                 std::vector<std::string> lora_prefixes) {
  auto config = text_config(part);
  auto file = part.empty() ? nullptr : part.tensors().begin()->second.file;
  use.path = part.path();
  if (const auto* stored = part.find("spiece_model"))
    use.vocabulary = weights::read_tensor(*stored);
  return {std::move(name), part,
          [config, use,
           file](std::shared_ptr<Vocabularies> vocabularies) -> std::unique_ptr<TextEncoder> {
            auto own = use;
            if (own.reading == Reading::SentencePiece && !own.vocabulary.defined())
              own.vocabulary = gguf_sentence_piece(file);
            return std::make_unique<T5Encoder>(config, own, std::move(vocabularies));
          },
          [prefixes = std::move(lora_prefixes)](const weights::Manifest& manifest) {
            return prefixed_lora_names(manifest, prefixes);
          }};
}

}  // namespace

TextPart text_part_of(std::string name, const weights::Checkpoint& part, int shortest,
                      std::vector<std::string> lora_prefixes) {
  return part_of(std::move(name), part, {.shortest = shortest}, std::move(lora_prefixes));
}

TextPart masked_text_part_of(std::string name, const weights::Checkpoint& part, int shortest,
                             std::vector<std::string> lora_prefixes) {
  return part_of(std::move(name), part, {.shortest = shortest, .masked = true},
                 std::move(lora_prefixes));
}

TextPart umt5_part_of(std::string name, const weights::Checkpoint& part, int shortest,
                      std::vector<std::string> lora_prefixes) {
  return part_of(std::move(name), part, {.shortest = shortest, .reading = Reading::SentencePiece},
                 std::move(lora_prefixes));
}

TextPart byt5_part_of(std::string name, const weights::Checkpoint& part,
                      std::vector<std::string> lora_prefixes) {
  return part_of(std::move(name), part, {.reading = Reading::Glyphs}, std::move(lora_prefixes));
}

}  // namespace distorch::models::t5
