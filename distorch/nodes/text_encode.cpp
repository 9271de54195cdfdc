#include "distorch/nodes/text_encode.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/device/device.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

using at::Tensor;
using models::clip::TextInput;
using models::clip::TextOptions;
using tokenizers::ClipBpe;
using tokenizers::PromptTokens;

namespace {

namespace fs = std::filesystem;

/// "name" or "name.safetensors" in the embedding folders and everything below them.
std::optional<fs::path> find_embedding(const std::string& name, const ModelFolders& folders) {
  if (name.empty()) return {};
  for (const char* extension : {"", ".safetensors", ".sft", ".pt", ".bin"}) {
    auto wanted = name + extension;
    if (auto path = folders.find("embeddings", wanted)) return path;
    for (const auto& listed : folders.list("embeddings"))
      if (listed == wanted || listed.ends_with("/" + wanted))
        return folders.find("embeddings", listed);
  }
  return {};
}

/// Rows of embeddings "bundle_emb.NAME.string_to_param.*" that some LoRA files carry.
Tensor bundled(const weights::Checkpoint& file, const std::string& suffix) {
  std::vector<Tensor> rows;
  for (const auto& [name, stored] : file.tensors())
    if (name.starts_with("bundle_emb.") && name.ends_with(suffix))
      rows.push_back(weights::mapped_tensor(stored));
  return rows.empty() ? Tensor() : at::cat(rows);
}

/// Ids of all chunks, with embedding vectors where they belong. Vectors that do not fit leave their
/// place: what follows moves up, padding fills the end.
class Batch {
 public:
  Batch(const LoadedText& text, const std::vector<Tensor>& embeddings)
      : text_(text), embeddings_(embeddings) {}

  void add(const std::vector<tokenizers::Token>& chunk) {
    std::vector<std::int64_t> row;
    for (const auto& token : chunk) {
      if (!token.is_embedding()) {
        row.push_back(token.id);
        continue;
      }
      auto vector = embeddings_[token.embedding][token.row];
      if (vector.numel() != text_.network->config().width) continue;
      input_.replacements.push_back({rows_, static_cast<std::int64_t>(row.size()), vector});
      row.push_back(0);
    }
    finish(std::move(row), chunk.size());
  }

  /// The empty prompt: start, end, padding.
  void add_empty(std::size_t length) { finish({ClipBpe::start_token, ClipBpe::end_token}, length); }

  TextInput input() {
    input_.ids = at::tensor(ids_, at::kLong).view({rows_, -1});
    return std::move(input_);
  }

 private:
  void finish(std::vector<std::int64_t> row, std::size_t length) {
    row.resize(length, text_.tokenizer->options().padding);
    ids_.insert(ids_.end(), row.begin(), row.end());
    ++rows_;
  }

  const LoadedText& text_;
  const std::vector<Tensor>& embeddings_;
  TextInput input_;
  std::vector<std::int64_t> ids_;
  std::int64_t rows_ = 0;
};

void prepare(const Clip& clip, const TextInput& input, const TextOptions& options,
             streaming::Engine& engine) {
  auto& text = *clip.loaded;
  text.weights->set_loras(clip.loras);
  streaming::RunNeeds needs;
  needs.key =
      fmt::format("{}x{} loras {}", input.ids.size(0), input.ids.size(1), clip.loras.size());
  needs.profile = [&](const RigDevice& compute) {
    return streaming::profile_model(*text.weights, compute, [&](at::Device device) {
      text.network->forward(
          {at::empty(input.ids.sizes(), at::TensorOptions().dtype(at::kLong).device(device)), {}},
          options);
    });
  };
  engine.prepare(text.weights, needs);
}

bool weighted(const PromptTokens& tokens) {
  for (const auto& chunk : tokens.chunks)
    for (const auto& token : chunk)
      if (token.weight != 1.0f) return true;
  return false;
}

/// states [1, L, width] moved away from (or towards) those of the empty prompt, by the weight of
/// each place.
Tensor apply_weights(const Tensor& states, const Tensor& empty,
                     const std::vector<tokenizers::Token>& chunk) {
  std::vector<float> factors;
  for (const auto& token : chunk) factors.push_back(token.weight);
  auto weight = at::tensor(factors, at::kFloat).view({1, -1, 1});
  return at::where(weight == 1.0, states, (states - empty) * weight + empty);
}

}  // namespace

Tensor load_embedding(const std::string& name, const std::string& key, ModelCache& models) {
  auto path = find_embedding(name, models.folders());
  if (!path) return {};
  try {
    weights::Checkpoint file(models.file(*path));
    Tensor vectors;
    if (const auto* stored = file.find(key)) vectors = weights::mapped_tensor(*stored);
    if (!vectors.defined()) vectors = bundled(file, ".string_to_param.*");
    if (!vectors.defined()) vectors = bundled(file, "." + key);
    if (!vectors.defined() && !file.empty())
      vectors = weights::mapped_tensor(file.tensors().begin()->second);
    if (!vectors.defined() || vectors.numel() == 0 || vectors.dim() == 0) return {};
    return vectors.to(at::kFloat).reshape({-1, vectors.size(-1)});
  } catch (const Error& problem) {
    log::warn_once(fmt::format("embedding '{}' is left out: {}", name, problem.what()));
    return {};
  }
}

sampling::Conditioning encode_prompt(const Clip& clip, const std::string& prompt,
                                     ModelCache& models) {
  const auto& text = *clip.loaded;
  std::map<std::string, Tensor> found;
  auto lookup = [&](const std::string& name) -> std::optional<int> {
    auto [at, added] = found.emplace(name, Tensor());
    if (added) at->second = load_embedding(name, text.embedding_key, models);
    if (!at->second.defined()) return {};
    return static_cast<int>(at->second.size(0));
  };
  auto tokens = text.tokenizer->tokenize(prompt, lookup);
  if (!tokens.missing.empty())
    log::warn(
        "the prompt names embeddings that are not in the folder 'embeddings', they are left out: "
        "{}",
        fmt::join(tokens.missing, ", "));
  std::vector<Tensor> vectors;
  auto width = text.network->config().width;
  for (const auto& name : tokens.embeddings) {
    vectors.push_back(found.at(name));
    if (vectors.back().size(1) != width)
      log::warn(
          "embedding '{}' is left out: its vectors have {} numbers, this text encoder needs {}",
          name, vectors.back().size(1), width);
  }

  Batch batch(text, vectors);
  for (const auto& chunk : tokens.chunks) batch.add(chunk);
  bool has_weights = weighted(tokens);
  if (has_weights) batch.add_empty(tokens.chunks.front().size());
  TextOptions options;
  options.layer = clip.layer ? clip.layer : text.network->default_layer();
  auto input = batch.input();
  prepare(clip, input, options, models.engine());
  if (models.engine().plan_only()) {
    auto length = static_cast<std::int64_t>(tokens.chunks.size() * tokens.chunks.front().size());
    sampling::ConditioningItem item;
    item.cross_attn = at::zeros({1, length, width});
    item.pooled_output = at::zeros({1, width});
    return {item};
  }
  input.ids = input.ids.to(device::to_torch(text.weights->options().compute));
  auto output = text.network->forward(input, options);

  auto hidden = output.hidden.to(at::kCPU);
  std::vector<Tensor> states;
  for (std::size_t i = 0; i < tokens.chunks.size(); ++i) {
    auto state = hidden.narrow(0, static_cast<std::int64_t>(i), 1);
    states.push_back(has_weights ? apply_weights(state, hidden.narrow(0, hidden.size(0) - 1, 1),
                                                 tokens.chunks[i])
                                 : state);
  }
  sampling::ConditioningItem item;
  item.cross_attn = at::cat(states, 1);
  item.pooled_output = output.pooled.narrow(0, 0, 1).to(at::kCPU);
  return {item};
}

}  // namespace distorch::nodes
