#include "distorch/models/flux/image_prompt.h"

#include <fmt/format.h>

#include <cmath>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::flux {

using at::Tensor;
using weights::Checkpoint;
using weights::Scope;

namespace {

constexpr const char* kKey = "ip_adapter_double_stream_k_proj";
constexpr const char* kValue = "ip_adapter_double_stream_v_proj";

std::string block_name(std::int64_t block) {
  return fmt::format("double_blocks.{}.processor.", block);
}

/// `size` numbers from `first` to `last`.
void add_ramp(std::vector<double>& to, double first, double last, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) {
    auto share = size > 1 ? static_cast<double>(i) / static_cast<double>(size - 1) : 0.0;
    to.push_back(first + (last - first) * share);
  }
}

}  // namespace

struct ImagePromptAdapter::Tokens {
  Tokens(const Scope& s, const ImagePromptConfig& c)
      : block(s),
        projection(s / "proj", c.embedding, c.tokens * c.width),
        norm(s / "norm", c.width) {}
  weights::Block block;
  nn::Linear projection;
  nn::LayerNorm norm;
};

struct ImagePromptAdapter::Heads {
  Heads(const Scope& s, const ImagePromptConfig& c)
      : block(s), key(s / kKey, c.width, c.hidden), value(s / kValue, c.width, c.hidden) {}
  weights::Block block;
  nn::Linear key, value;
};

ImagePromptAdapter::ImagePromptAdapter(const ImagePromptConfig& config) : config_(config) {
  const Scope root(manifest_);
  tokens_ = std::make_shared<const Tokens>((root / "ip_adapter_proj_model").block(), config_);
  for (std::int64_t i = 0; i < config_.blocks; ++i)
    heads_.push_back(
        std::make_shared<const Heads>((root / "double_blocks" / i / "processor").block(), config_));
}

Tensor ImagePromptAdapter::forward(const Tensor& embeds) const {
  if (embeds.dim() != 2 || embeds.size(1) != config_.embedding)
    throw Error(
        ErrorKind::Shape, "IP-Adapter",
        fmt::format("takes pictures as {} numbers each, got {}: it goes with another picture "
                    "encoder (CLIP ViT-L gives 768)",
                    config_.embedding, c10::str(embeds.sizes())));
  auto tokens = tokens_->block.run1({embeds}, [this](const weights::Tensors& in) {
    auto all = tokens_->projection(in[0].to(tokens_->projection.dtype()));
    return tokens_->norm(all.reshape({-1, config_.tokens, config_.width}));
  });
  std::vector<Tensor> result;
  for (const auto& heads : heads_) {
    auto both = heads->block.run({tokens}, [&](const weights::Tensors& in) -> weights::Tensors {
      return {heads->key(in[0]).to(at::kFloat), heads->value(in[0]).to(at::kFloat)};
    });
    result.insert(result.end(), both.begin(), both.end());
  }
  return at::stack(result).unsqueeze(0);
}

std::string image_prompt_name(std::int64_t index) { return fmt::format("image_prompt.{}", index); }

Checkpoint image_prompt_part(const Checkpoint& file) {
  if (!file.has("ip_adapter_proj_model.proj.weight"))
    throw Error(
        ErrorKind::Format, file.path(),
        "holds no IP-Adapter of XLabs for FLUX, which has 'ip_adapter_proj_model.proj.weight' "
        "and 'double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight'");
  auto part = file;
  for (const auto& [name, stored] : file.tensors()) {
    auto at = name.find(".ip_adapter_double_stream_");
    if (at != std::string::npos && name.find(".processor.") == std::string::npos)
      part.rename(name, name.substr(0, at) + ".processor" + name.substr(at));
  }
  return part;
}

ImagePromptConfig image_prompt_config(const Checkpoint& part) {
  ImagePromptConfig c;
  const std::string projection = "ip_adapter_proj_model.proj.weight";
  c.embedding = size_of(part, projection, 1);
  c.width = size_of(part, "ip_adapter_proj_model.norm.weight", 0);
  const auto rows = size_of(part, projection, 0);
  if (rows % c.width != 0)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("'{}' has {} rows, which is no number of tokens of width {}",
                            projection, rows, c.width));
  c.tokens = rows / c.width;
  c.hidden = size_of(part, block_name(0) + kKey + ".weight", 0);
  c.blocks = part.count("double_blocks.");
  return c;
}

std::vector<double> block_strengths(const std::string& kind, double first, double last,
                                    std::int64_t count) {
  std::vector<double> result;
  const auto half = count / 2;
  if (kind == "Linear") {
    add_ramp(result, first, last, count);
  } else if (kind == "First half") {
    add_ramp(result, first, last, half);
    result.resize(static_cast<std::size_t>(count), last);
  } else if (kind == "Second half") {
    result.resize(static_cast<std::size_t>(count - half), first);
    add_ramp(result, first, last, half);
  } else if (kind == "Sigmoid") {
    constexpr double steepness = 8;
    const auto size = static_cast<double>(count);
    for (std::int64_t i = 0; i < count; ++i) {
      auto rising = 1 / (1 + std::exp(-(static_cast<double>(i) - size / 2) * steepness / size));
      result.push_back(first + (last - first) * (rising - 0.5));
    }
  } else {
    throw Error(ErrorKind::Usage, "smothing_type", "'" + kind + "' is not known");
  }
  return result;
}

}  // namespace distorch::models::flux
