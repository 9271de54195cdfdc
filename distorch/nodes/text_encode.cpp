#include "distorch/nodes/text_encode.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <set>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/device/device.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

using at::Tensor;
using models::TextStates;
using models::TokenBatch;
using streaming::LoraUse;

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
      rows.push_back(weights::read_tensor(stored));
  return rows.empty() ? Tensor() : at::cat(rows);
}

/// Finds textual inversions for one encoder, each once, and says what is wrong with them.
class EmbeddingFinder {
 public:
  EmbeddingFinder(const LoadedEncoder& encoder, ModelCache& models)
      : encoder_(encoder), models_(models) {}

  Tensor operator()(const std::string& name) {
    auto [at, added] = found_.emplace(name, Tensor());
    if (!added) return at->second;
    auto vectors = load_embedding(name, encoder_.name, models_);
    if (!vectors.defined()) {
      missing_.push_back(name);
    } else if (vectors.size(1) != encoder_.network->token_width()) {
      log::warn(
          "embedding '{}' is left out: its vectors have {} numbers, this text encoder needs {}",
          name, vectors.size(1), encoder_.network->token_width());
    }
    return at->second = vectors;
  }
  const std::vector<std::string>& missing() const { return missing_; }

 private:
  const LoadedEncoder& encoder_;
  ModelCache& models_;
  std::map<std::string, Tensor> found_;
  std::vector<std::string> missing_;
};

/// What an encoder refuses to read is told with its file, which it does not know itself.
TokenBatch tokens_of(const LoadedEncoder& encoder, const models::Prompt& prompt,
                     EmbeddingFinder& finder, std::int64_t chunks) {
  try {
    return encoder.network->tokenize(prompt, std::ref(finder), chunks);
  } catch (const Error& problem) {
    if (problem.where() != "text encoder") throw;
    throw Error(problem.kind(), encoder.weights->checkpoint().path(), problem.sentence());
  }
}

/// The prompts as token batches, one an encoder, of as many chunks each.
std::vector<TokenBatch> tokenize(const LoadedText& text, const Prompts& prompts,
                                 ModelCache& models) {
  std::vector<TokenBatch> batches;
  std::int64_t chunks = 1;
  std::set<std::string> missing;
  for (bool again = true; again;) {
    again = false;
    batches.clear();
    for (const auto& encoder : text.encoders) {
      EmbeddingFinder finder(*encoder, models);
      batches.push_back(tokens_of(*encoder, prompts.of(encoder->name), finder, chunks));
      missing.insert(finder.missing().begin(), finder.missing().end());
      if (batches.back().chunks > chunks) {
        chunks = batches.back().chunks;
        again = text.encoders.size() > 1;
      }
    }
  }
  if (!missing.empty())
    log::warn(
        "the prompt names embeddings that are not in the folder 'embeddings', they are left out: "
        "{}",
        fmt::join(missing, ", "));
  return batches;
}

TextStates encode(LoadedEncoder& encoder, const TokenBatch& batch,
                  const std::vector<streaming::LoraUse>& loras, std::optional<int> layer,
                  streaming::Engine& engine) {
  streaming::RunNeeds needs;
  needs.key = batch.shape();
  needs.loras = loras;
  needs.profile = [&](const RigDevice& compute) {
    auto fresh = encoder.make();
    return streaming::profile_model(*encoder.weights, fresh->manifest(), compute,
                                    [&](at::Device device) {
                                      auto blank = batch;
                                      blank.replacements.clear();
                                      fresh->encode(blank, layer, device);
                                    });
  };
  auto use = engine.prepare(encoder.weights, needs);
  if (engine.plan_only()) {
    auto pooled = encoder.network->pooled_width();
    return {at::zeros({1, batch.tokens(), encoder.network->width()}),
            pooled > 0 ? at::zeros({1, pooled}) : Tensor()};
  }
  return encoder.network->encode(batch, layer,
                                 device::to_torch(encoder.weights->options().compute));
}

/// Encoders whose states are no part of the text, and under what name a network finds them in a
/// conditioning.
const std::map<std::string, std::string>& encoders_beside() {
  static const std::map<std::string, std::string> list = {{"byt5_small", "conditioning_byt5small"}};
  return list;
}

}  // namespace

TextStates encode_tokens(LoadedEncoder& encoder, const TokenBatch& batch,
                         streaming::Engine& engine) {
  return encode(encoder, batch, {}, {}, engine);
}

Tensor load_embedding(const std::string& name, const std::string& key, ModelCache& models) {
  auto path = find_embedding(name, models.folders());
  if (!path) return {};
  std::shared_ptr<const formats::TensorFile> opened;
  try {
    opened = models.file(*path);
    weights::Checkpoint file(opened);
    Tensor vectors;
    if (const auto* stored = file.find(key)) vectors = weights::read_tensor(*stored);
    if (!vectors.defined()) vectors = bundled(file, ".string_to_param.*");
    if (!vectors.defined()) vectors = bundled(file, "." + key);
    if (!vectors.defined() && !file.empty())
      vectors = weights::read_tensor(file.tensors().begin()->second);
    if (!vectors.defined() || vectors.numel() == 0 || vectors.dim() == 0) return {};
    return vectors.to(at::kFloat).reshape({-1, vectors.size(-1)});
  } catch (const Error& problem) {
    // A file that nobody can read is left out, as in ComfyUI; one that changes while it is read is
    // a fault of this run.
    if (opened && !opened->mapping()->unchanged()) throw;
    log::warn_once(fmt::format("embedding '{}' is left out: {}", name, problem.what()));
    return {};
  }
}

/// The files that its encoders lie in, for messages.
std::string files_of(const LoadedText& text) {
  std::set<std::string> names;
  for (const auto& encoder : text.encoders)
    names.insert(std::filesystem::path(encoder->weights->checkpoint().path()).filename().string());
  return fmt::format("{}", fmt::join(names, " and "));
}

const Clip& text_encoders_of(const graph::Call& call, const std::string& input) {
  const auto& clip = call.get<Clip>(input);
  if (!clip.loaded)
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("the checkpoint that '{}' comes from holds no text encoder; load one "
                            "with CLIPLoader",
                            input));
  return clip;
}

const models::Prompt& Prompts::of(const std::string& encoder) const {
  auto at = by_encoder.find(encoder);
  return at == by_encoder.end() ? all : at->second;
}

sampling::Conditioning encode_prompts(const Clip& clip, const Prompts& prompts,
                                      ModelCache& models) {
  const auto& text = *clip.loaded;
  auto batches = tokenize(text, prompts, models);
  std::vector<TextStates> states;
  sampling::ConditioningItem item;
  for (std::size_t i = 0; i < text.encoders.size(); ++i) {
    auto& encoder = *text.encoders[i];
    auto beside = encoders_beside().find(encoder.name);
    // Nobody asks such an encoder where it has nothing to say.
    if (beside != encoders_beside().end() && batches[i].silent) continue;
    auto made =
        encode(encoder, batches[i], i < clip.loras.size() ? clip.loras[i] : std::vector<LoraUse>{},
               clip.layer, models.engine());
    if (beside == encoders_beside().end())
      states.push_back(std::move(made));
    else
      item.tensors[beside->second] = made.states;
  }
  auto joined = models::joined(text.join, states);
  item.cross_attn = joined.states;
  item.pooled_output = joined.pooled;
  if (joined.mask.defined()) item.tensors["attention_mask"] = joined.mask;
  item.texts["text_encoder"] = files_of(text);
  return {item};
}

}  // namespace distorch::nodes
