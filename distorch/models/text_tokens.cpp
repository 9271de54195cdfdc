#include "distorch/models/text_tokens.h"

#include <algorithm>
#include <optional>

namespace distorch::models {

using at::Tensor;

namespace {

class Rows {
 public:
  Rows(const RowFilling& filling, const std::vector<Tensor>& embeddings)
      : filling_(filling), embeddings_(embeddings) {}

  void add(const std::vector<tokenizers::Token>& chunk) {
    std::vector<std::int64_t> row;
    for (const auto& token : chunk) {
      weights_.push_back(token.weight);
      if (!token.is_embedding()) {
        row.push_back(token.id);
        continue;
      }
      auto vector = embeddings_[token.embedding][token.row];
      if (vector.numel() != filling_.width) continue;
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
      finish(filling_.empty, length);
    }
    batch_.ids = at::tensor(ids_, at::kLong).view({rows_, -1});
    return std::move(batch_);
  }

 private:
  void finish(std::vector<std::int64_t> row, std::size_t length) {
    row.resize(length, filling_.padding);
    ids_.insert(ids_.end(), row.begin(), row.end());
    ++rows_;
  }

  const RowFilling& filling_;
  const std::vector<Tensor>& embeddings_;
  TokenBatch batch_;
  std::vector<std::int64_t> ids_;
  std::vector<float> weights_;
  std::int64_t rows_ = 0;
};

}  // namespace

TokenBatch token_batch(const tokenizers::PromptTokenizer& tokenizer, const std::string& prompt,
                       const TextEncoder::Embeddings& embeddings, const RowFilling& filling,
                       std::int64_t chunks) {
  std::vector<Tensor> vectors;
  tokenizers::EmbeddingLookup lookup;
  if (embeddings)
    lookup = [&](const std::string& name) -> std::optional<int> {
      auto vector = embeddings(name);
      if (!vector.defined()) return {};
      return static_cast<int>(vector.size(0));
    };
  auto tokens = tokenizer.tokenize(prompt, lookup);
  for (const auto& name : tokens.embeddings) vectors.push_back(embeddings(name));
  while (static_cast<std::int64_t>(tokens.chunks.size()) < chunks)
    tokens.chunks.push_back(tokenizer.tokenize("").chunks.front());
  Rows rows(filling, vectors);
  for (const auto& chunk : tokens.chunks) rows.add(chunk);
  return rows.batch(tokens.chunks.front().size());
}

TokenBatch nothing(const RowFilling& filling) {
  TokenBatch batch;
  batch.ids = at::tensor(filling.empty, at::kLong).unsqueeze(0);
  batch.silent = true;
  return batch;
}

Tensor weighted(const Tensor& all, const TokenBatch& batch) {
  auto states = all.narrow(0, 0, batch.chunks);
  if (batch.weights.defined()) {
    auto empty = all.narrow(0, batch.chunks, 1);
    auto weight = batch.weights.unsqueeze(-1);
    states = at::where(weight == 1.0, states, (states - empty) * weight + empty);
  }
  return states.reshape({1, -1, states.size(2)});
}

}  // namespace distorch::models
