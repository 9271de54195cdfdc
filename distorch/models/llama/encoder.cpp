#include "distorch/models/llama/encoder.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/models/gguf_tokenizer.h"
#include "distorch/models/qwen/text_model.h"
#include "distorch/models/text_tokens.h"

namespace distorch::models::llama {

using at::Tensor;
using tokenizers::LlamaBpe;

namespace {

std::string framed(const std::string& frame, const std::string& text) {
  auto at = frame.find("{}");
  return at == std::string::npos ? frame : frame.substr(0, at) + text + frame.substr(at + 2);
}

/// 1 up to the first padding token; undefined where there is none.
Tensor mask_of(const Tensor& ids) {
  auto padding = ids.eq(LlamaBpe::padding_token).to(at::kLong).cumsum(1);
  if (padding.max().item<std::int64_t>() == 0) return {};
  return padding.eq(0).to(at::kFloat);
}

/// The states of some places [1, L, ...], one behind the other.
Tensor at_places(const Tensor& x, const std::vector<Places>& places) {
  std::vector<Tensor> parts;
  for (const auto& p : places) parts.push_back(x.slice(1, p.first, p.end, p.step));
  return at::cat(parts, 1);
}

class LlamaEncoder : public TextEncoder {
 public:
  LlamaEncoder(const qwen::TextConfig& config, EncoderUse use, std::vector<std::string> vocabulary,
               std::string path, std::shared_ptr<Vocabularies> vocabularies)
      : model_(manifest_, config),
        use_(std::move(use)),
        vocabulary_(std::move(vocabulary)),
        path_(std::move(path)),
        vocabularies_(std::move(vocabularies)) {}

  weights::Manifest& manifest() override { return manifest_; }
  std::int64_t width() const override { return model_.config().width; }
  std::int64_t pooled_width() const override { return 0; }
  TokenBatch tokenize(const Prompt& prompt, const Embeddings& embeddings,
                      std::int64_t) const override {
    auto vocabulary = vocabularies_->llama(vocabulary_, path_);
    tokenizers::PromptTokenizer tokenizer(
        [&](std::string_view text) { return vocabulary->encode(text); },
        {.min_length = 1, .start = LlamaBpe::start_token, .padding = LlamaBpe::padding_token});
    RowFilling filling{width(), LlamaBpe::padding_token, {LlamaBpe::start_token}};
    auto batch = token_batch(tokenizer, framed(prompt.frame.value_or(use_.frame), prompt.text),
                             embeddings, filling);
    place(batch, prompt);
    batch.mask = mask_of(batch.ids);
    return batch;
  }
  TextStates encode(const TokenBatch& batch, std::optional<int> layer,
                    at::Device device) const override;

 private:
  void place(TokenBatch& batch, const Prompt& prompt) const;
  qwen::Tap tap(int layer) const;

  weights::Manifest manifest_;
  qwen::TextModel model_;
  EncoderUse use_;
  std::vector<std::string> vocabulary_;
  std::string path_;
  std::shared_ptr<Vocabularies> vocabularies_;
};

/// Puts what a picture encoder saw where the text has "<image>", and says which states are kept.
void LlamaEncoder::place(TokenBatch& batch, const Prompt& prompt) const {
  std::vector<Item> items;
  std::vector<std::int64_t> columns, place_of;
  std::vector<Replacement> shown;
  std::size_t seen = 0;
  auto given = batch.ids[0];
  for (std::int64_t i = 0; i < given.size(0); ++i) {
    Item item{given[i].item<std::int64_t>()};
    place_of.push_back(static_cast<std::int64_t>(columns.size()));
    if (item.id == LlamaBpe::image_token && seen < prompt.seen.size()) {
      const auto& states = prompt.seen[seen++];
      if (states.dim() != 2 || states.size(1) != width())
        throw Error(ErrorKind::Shape, "text encoder",
                    fmt::format("takes what a picture encoder saw in {} numbers a place, got {}: "
                                "encode the picture with the vision part of the same LLaVA",
                                width(), c10::str(states.sizes())));
      item = {item.id, states.size(0), true};
      for (std::int64_t row = 0; row < states.size(0); ++row)
        shown.push_back({0, place_of.back() + row, states[row]});
    }
    columns.insert(columns.end(), static_cast<std::size_t>(item.places), i);
    items.push_back(item);
  }
  batch.kept = kept_of(items, prompt.seen_every);
  if (shown.empty()) return;
  auto chosen = at::tensor(columns, at::kLong);
  batch.ids = batch.ids.index_select(1, chosen);
  if (batch.weights.defined()) batch.weights = batch.weights.index_select(1, chosen);
  for (auto& one : batch.replacements) one.column = place_of[static_cast<std::size_t>(one.column)];
  batch.replacements.insert(batch.replacements.end(), shown.begin(), shown.end());
}

qwen::Tap LlamaEncoder::tap(int layer) const {
  auto count = model_.config().layers;
  if (use_.layers_left_out)
    return {count - *use_.layers_left_out, *use_.layers_left_out == 0 || use_.normed};
  if (std::abs(layer) > count || layer == count) return {count, true};
  return {(layer < 0 ? count + layer : layer) + 1, false};
}

TextStates LlamaEncoder::encode(const TokenBatch& batch, std::optional<int> layer,
                                at::Device device) const {
  auto places = at::arange(batch.ids.size(1), at::kFloat).unsqueeze(0).expand({3, -1});
  qwen::TextInput input{batch.ids.to(device), batch.replacements, batch.mask, places};
  auto states = model_.forward(input, {tap(layer.value_or(use_.layer))}).to(at::kCPU);
  TextStates result{at_places(weighted(states, batch), batch.kept), {}};
  if (!batch.mask.defined()) return result;
  auto mask = at_places(batch.mask.narrow(0, 0, 1), batch.kept);
  if (mask.min().item<float>() < 1.0f) result.mask = mask;
  return result;
}

}  // namespace

std::vector<Places> kept_of(const std::vector<Item>& items, std::int64_t every) {
  constexpr auto kOpen = std::numeric_limits<std::int64_t>::min();
  auto count = static_cast<std::int64_t>(items.size());
  auto id = [&](std::int64_t i) { return i < count ? items[static_cast<std::size_t>(i)].id : -1; };
  std::vector<Places> kept;
  std::int64_t begin = 0, end = count;  // of the words, in items
  std::int64_t before = 0, within = 0;  // places that pictures take beyond their own
  std::int64_t total = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto& item = items[static_cast<std::size_t>(i)];
    if (item.picture && begin == 0) {
      kept.push_back({total, total + item.places, every});
      before += item.places - 1;
    } else if (item.picture) {
      if (end == kOpen) within += item.places - 1;
    } else if (item.id == LlamaBpe::header_token && id(i + 1) == LlamaBpe::user_token &&
               id(i + 2) == LlamaBpe::header_end_token) {
      begin = i + 2;
      end = kOpen;
    } else if (item.id == LlamaBpe::end_of_turn_token && end == kOpen) {
      end = i + 1;
    }
    total += item.places;
  }
  // A turn without an end loses its last token, as in ComfyUI.
  if (end == kOpen) end = count - 1;
  if (total > begin + 2 && id(begin + 1) == LlamaBpe::empty_line_token) begin += 2;
  kept.push_back({begin + before, std::min(total, end + before + within), 1});
  return kept;
}

TextPart text_part_of(std::string name, const weights::Checkpoint& part, const EncoderUse& use) {
  auto config = qwen::text_config(part);
  auto in_checkpoint = "text_encoders." + name + ".transformer.";
  auto file = part.empty() ? nullptr : part.tensors().begin()->second.file;
  return {std::move(name), part,
          [config, use, file, path = part.path()](
              std::shared_ptr<Vocabularies> vocabularies) -> std::unique_ptr<TextEncoder> {
            return std::make_unique<LlamaEncoder>(config, use, gguf_byte_pairs(file), path,
                                                  std::move(vocabularies));
          },
          [in_checkpoint](const weights::Manifest& manifest) {
            return prefixed_lora_names(manifest, {in_checkpoint});
          }};
}

}  // namespace distorch::models::llama
