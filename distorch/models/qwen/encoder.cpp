#include "distorch/models/qwen/encoder.h"

#include "distorch/base/error.h"
#include "distorch/models/qwen/text_model.h"
#include "distorch/models/qwen/vision.h"
#include "distorch/models/text_tokens.h"

namespace distorch::models::qwen {

using at::Tensor;
using tokenizers::QwenBpe;

namespace {

constexpr int kUserToken = 872, kLineEndToken = 198;

std::string framed(const std::string& frame, const std::string& text) {
  auto at = frame.find("{}");
  return at == std::string::npos ? frame : frame.substr(0, at) + text + frame.substr(at + 2);
}

/// Where the user's own words begin: behind the second "<|im_start|>" and "user\n" after it.
std::int64_t words_begin(const std::vector<std::int64_t>& ids) {
  std::int64_t begin = -1;
  int starts = 0;
  auto count = static_cast<std::int64_t>(ids.size());
  for (std::int64_t i = 0; i < count && starts < 2; ++i)
    if (ids[static_cast<std::size_t>(i)] == QwenBpe::start_token) begin = i, ++starts;
  if (begin < 0) return count - 1;
  auto id = [&](std::int64_t i) { return ids[static_cast<std::size_t>(i)]; };
  if (count > begin + 3 && id(begin + 1) == kUserToken && id(begin + 2) == kLineEndToken)
    begin += 3;
  return begin;
}

/// 1 up to the first padding token; undefined where there is none.
Tensor mask_of(const Tensor& ids) {
  auto padding = ids.eq(QwenBpe::padding_token).to(at::kLong).cumsum(1);
  if (padding.max().item<std::int64_t>() == 0) return {};
  return padding.eq(0).to(at::kFloat);
}

/// Frame, row and column of every token: [3, L] float32. A picture's tokens share the frame that it
/// begins at; what follows goes on behind the longer of its sides.
Tensor positions_of(const TokenBatch& batch) {
  auto length = batch.ids.size(1);
  auto positions = at::empty({3, length}, at::kFloat);
  std::int64_t done = 0, next = 0;
  auto run_to = [&](std::int64_t column) {
    positions.narrow(1, done, column - done)
        .copy_(at::arange(next, next + column - done, at::kFloat).unsqueeze(0));
    next += column - done;
    done = column;
  };
  for (const auto& picture : batch.pictures) {
    run_to(picture.column);
    auto rows = picture.grid_rows / 2, columns = picture.grid_columns / 2;
    auto here = positions.narrow(1, done, picture.columns);
    here[0].fill_(static_cast<double>(next));
    here[1].copy_(at::arange(next, next + rows, at::kFloat).repeat_interleave(columns));
    here[2].copy_(at::arange(next, next + columns, at::kFloat).repeat({rows}));
    next += std::max(rows, columns);
    done += picture.columns;
  }
  run_to(length);
  return positions;
}

class QwenEncoder : public TextEncoder {
 public:
  QwenEncoder(const TextConfig& config, const std::optional<VisionConfig>& vision,
              const EncoderUse& use, std::shared_ptr<Vocabularies> vocabularies)
      : vision_(vision ? std::make_unique<Vision>(manifest_, *vision) : nullptr),
        model_(manifest_, config),
        use_(use),
        vocabularies_(std::move(vocabularies)) {}

  weights::Manifest& manifest() override { return manifest_; }
  std::int64_t width() const override {
    return model_.config().width *
           std::max<std::int64_t>(1, static_cast<std::int64_t>(use_.side_by_side.size()));
  }
  std::int64_t token_width() const override { return model_.config().width; }
  std::int64_t pooled_width() const override { return 0; }
  TokenBatch tokenize(const Prompt& prompt, const Embeddings& embeddings,
                      std::int64_t chunks) const override;
  TextStates encode(const TokenBatch& batch, std::optional<int> layer,
                    at::Device device) const override;

 private:
  std::string whole_text(const Prompt& prompt) const;
  void place_pictures(TokenBatch& batch, const std::vector<Tensor>& pictures) const;
  std::vector<Tap> taps(std::optional<int> layer) const;

  weights::Manifest manifest_;
  std::unique_ptr<Vision> vision_;
  TextModel model_;
  EncoderUse use_;
  std::shared_ptr<Vocabularies> vocabularies_;
};

std::string QwenEncoder::whole_text(const Prompt& prompt) const {
  if (use_.own_frames &&
      (prompt.text.starts_with("<|im_start|>") || prompt.text.starts_with("<|start_header_id|>")))
    return prompt.text;
  const auto words = use_.never_empty && prompt.text.empty() ? std::string(" ") : prompt.text;
  if (prompt.frame) return framed(*prompt.frame, words);
  bool sees = !prompt.pictures.empty() && !use_.frame_with_pictures.empty();
  return framed(sees ? use_.frame_with_pictures : use_.frame, words);
}

/// Puts the places of pictures where the text has "<|image_pad|>"; pictures without such a place are
/// not seen.
void QwenEncoder::place_pictures(TokenBatch& batch, const std::vector<Tensor>& pictures) const {
  if (!vision_)
    throw Error(
        ErrorKind::Usage, "text encoder",
        "has no vision tower, so it cannot see the picture; take one of "
        "Qwen2.5-VL with its weights 'visual.*', or put the 'mmproj' file beside a GGUF one");
  std::vector<std::int64_t> ids;
  std::size_t seen = 0;
  auto given = batch.ids[0];
  for (std::int64_t i = 0; i < given.size(0); ++i) {
    auto id = given[i].item<std::int64_t>();
    if (id != QwenBpe::image_token || seen == pictures.size()) {
      ids.push_back(id);
      continue;
    }
    auto picture = cut_picture(pictures[seen++], vision_->config());
    picture.column = static_cast<std::int64_t>(ids.size());
    ids.insert(ids.end(), static_cast<std::size_t>(picture.columns), QwenBpe::image_token);
    batch.pictures.push_back(std::move(picture));
  }
  batch.ids = at::tensor(ids, at::kLong).unsqueeze(0);
}

TokenBatch QwenEncoder::tokenize(const Prompt& prompt, const Embeddings& embeddings,
                                 std::int64_t) const {
  auto vocabulary = vocabularies_->qwen();
  tokenizers::PromptTokenizer tokenizer(
      [&](std::string_view text) { return vocabulary->encode(text); },
      {.min_length = use_.shortest, .padding = QwenBpe::padding_token, .weights = false});
  RowFilling filling{token_width(), QwenBpe::padding_token, {}};
  auto batch = token_batch(tokenizer, whole_text(prompt),
                           use_.embeddings ? embeddings : Embeddings{}, filling);
  batch.mask = mask_of(batch.ids);
  if (use_.drop_instructions) {
    auto ids = batch.ids[0].contiguous();
    batch.dropped = words_begin(
        {ids.const_data_ptr<std::int64_t>(), ids.const_data_ptr<std::int64_t>() + ids.numel()});
  }
  if (!prompt.pictures.empty()) {
    place_pictures(batch, prompt.pictures);
    batch.mask = mask_of(batch.ids);
  }
  return batch;
}

std::vector<Tap> QwenEncoder::taps(std::optional<int> asked) const {
  std::vector<Tap> taps;
  auto count = model_.config().layers;
  for (auto layer : use_.side_by_side) taps.push_back({std::min(layer, count), layer >= count});
  if (!taps.empty()) return taps;
  auto layer = asked ? asked : use_.layer;
  if (!layer || std::abs(*layer) > count || *layer == count) return {{count, true}};
  return {{(*layer < 0 ? count + *layer : *layer) + 1, false}};
}

TextStates QwenEncoder::encode(const TokenBatch& batch, std::optional<int> layer,
                               at::Device device) const {
  TextInput input{batch.ids.to(device), batch.replacements, batch.mask, positions_of(batch)};
  for (const auto& picture : batch.pictures) {
    auto vectors =
        vision_->forward(picture.patches.to(device), picture.grid_rows, picture.grid_columns);
    for (std::int64_t i = 0; i < picture.columns; ++i)
      input.replacements.push_back({0, picture.column + i, vectors[i]});
  }
  auto states = model_.forward(input, taps(layer)).to(at::kCPU);
  auto kept = states.size(1) - batch.dropped;
  TextStates result{states.narrow(1, batch.dropped, kept), {}};
  if (batch.mask.defined()) result.mask = batch.mask.narrow(1, batch.dropped, kept);
  return result;
}

/// "lora_te_layers_0_self_attn_q_proj": the language model's weights without "model.".
LoraNames kohya_names(const weights::Manifest& manifest) {
  constexpr std::string_view kModel = "model.";
  LoraNames names;
  for (const auto& weight : manifest.weights())
    if (weight.name.starts_with(kModel) && weight.name.ends_with(".weight"))
      names["lora_te_" + with_underscores(lora_base(weight.name.substr(kModel.size())))] =
          weight.name;
  return names;
}

}  // namespace

TextPart text_part_of(std::string name, const weights::Checkpoint& part, const EncoderUse& use) {
  auto config = text_config(part);
  std::optional<VisionConfig> vision;
  if (has_vision(part)) vision = vision_config(part);
  auto in_checkpoint = "text_encoders." + name + ".transformer.";
  return {std::move(name), part,
          [config, vision,
           use](std::shared_ptr<Vocabularies> vocabularies) -> std::unique_ptr<TextEncoder> {
            return std::make_unique<QwenEncoder>(config, vision, use, std::move(vocabularies));
          },
          [in_checkpoint](const weights::Manifest& manifest) {
            auto names = prefixed_lora_names(manifest, {in_checkpoint});
            names.merge(kohya_names(manifest));
            return names;
          }};
}

}  // namespace distorch::models::qwen
