#include "distorch/models/text_encoder.h"

#include <fmt/format.h>

namespace distorch::models {

namespace {

/// Of a contiguous tensor, which must outlive them.
std::string_view bytes_of(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

}  // namespace

Vocabularies::Vocabularies(std::filesystem::path folder, std::vector<std::filesystem::path> more)
    : folder_(std::move(folder)), places_{folder_, folder_.parent_path()} {
  places_.insert(places_.end(), more.begin(), more.end());
}

/// The first place's folder `kind` that has one of the files; the usual one where none has.
std::filesystem::path Vocabularies::find(const std::string& kind,
                                         const std::vector<std::string>& files) const {
  std::error_code code;
  for (const auto& place : places_)
    for (const auto& file : files)
      if (std::filesystem::exists(place / kind / file, code)) return place / kind;
  return folder_.parent_path() / kind;
}

std::shared_ptr<const tokenizers::ClipBpe> Vocabularies::clip() {
  if (!clip_) clip_ = tokenizers::ClipBpe::load(folder_ / "bpe_simple_vocab_16e6.txt.gz");
  return clip_;
}

std::shared_ptr<const tokenizers::Unigram> Vocabularies::t5(const at::Tensor& own,
                                                            const std::string& path) {
  auto& slot = t5_[own.defined() ? path : ""];
  if (slot) return slot;
  if (!own.defined())
    return slot = tokenizers::Unigram::load(find("t5", {"tokenizer.json", "spiece.model"}));
  return slot = std::make_shared<tokenizers::Unigram>(
             tokenizers::read_sentencepiece(bytes_of(own.contiguous()), path), path);
}

std::shared_ptr<const tokenizers::SentencePiece> Vocabularies::sentence_piece(
    const at::Tensor& own, const std::string& path) {
  auto& slot = sentence_pieces_[own.defined() ? path : ""];
  if (slot) return slot;
  if (!own.defined())
    return slot = tokenizers::SentencePiece::load(find("umt5", {"spiece.model"}) / "spiece.model");
  return slot = std::make_shared<tokenizers::SentencePiece>(bytes_of(own.contiguous()), path);
}

std::shared_ptr<const tokenizers::QwenBpe> Vocabularies::qwen() {
  if (!qwen_) qwen_ = tokenizers::QwenBpe::load(find("qwen", {"qwen.tiktoken"}));
  return qwen_;
}

std::shared_ptr<const tokenizers::LlamaBpe> Vocabularies::llama(const std::vector<std::string>& own,
                                                                const std::string& path) {
  auto& slot = llama_[own.empty() ? "" : path];
  if (slot) return slot;
  if (own.empty())
    return slot = tokenizers::LlamaBpe::load(find("llama3", {"tokenizer.model", "tokenizer.json"}));
  return slot = tokenizers::LlamaBpe::from_spellings(own, path);
}

std::int64_t TokenBatch::tokens() const {
  if (kept.empty()) return chunks * ids.size(1) - dropped;
  std::int64_t sum = 0;
  for (const auto& places : kept) sum += places.count();
  return sum;
}

std::string TokenBatch::shape() const {
  auto text = fmt::format("{}x{}", ids.size(0), ids.size(1));
  if (mask.defined()) text += " masked";
  for (const auto& picture : pictures)
    text += fmt::format(" {}x{}", picture.grid_rows, picture.grid_columns);
  return text;
}

TextStates joined(const TextRecipe::Join& join, const std::vector<TextStates>& states) {
  return join ? join(states) : states.at(0);
}

}  // namespace distorch::models
