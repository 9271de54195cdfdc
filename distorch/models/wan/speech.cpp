#include "distorch/models/wan/speech.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::wan {

using at::Tensor;
using weights::Scope;
using weights::Tensors;

namespace {

constexpr const char* kProjection = "proj_model.proj.weight";
constexpr std::int64_t kFramesOfCell = 4;
/// So many tokens more on both sides of a frame's share.
constexpr std::int64_t kMore = 4;

std::int64_t whole(double number) { return static_cast<std::int64_t>(number); }

/// Tokens `first` to `last`, both of them; those that are not there are zeros behind the others.
Tensor share(const Tensor& tokens, std::int64_t first, std::int64_t last) {
  const auto end = tokens.size(1);
  const auto from = std::clamp<std::int64_t>(first, 0, end);
  const auto to = std::clamp<std::int64_t>(last + 1, from, end);
  return at::constant_pad_nd(tokens.narrow(1, from, to - from),
                             {0, 0, 0, last - first + 1 - (to - from)});
}

}  // namespace

void check_speech_file(const weights::Checkpoint& file) {
  for (const char* name : {kProjection, "proj_model.norm.weight", "proj_model.norm.bias",
                           "blocks.0.cross_attn.k_proj.weight"})
    if (!file.has(name))
      throw Error(ErrorKind::Format, file.path(),
                  fmt::format("holds no layers of FantasyTalking: '{}' is missing", name));
}

SpeechConfig speech_config(const weights::Checkpoint& file) {
  return {.heard_width = size_of(file, kProjection, 1), .width = size_of(file, kProjection, 0)};
}

SpeechProjection::SpeechProjection(const SpeechConfig& config)
    : config_(config),
      scope_((Scope(manifest_) / "proj_model").block()),
      block_(scope_),
      projection_(scope_ / "proj", config.heard_width, config.width, false),
      norm_(scope_ / "norm", config.width) {}

Tensor SpeechProjection::operator()(const Tensor& states) const {
  return block_.run1({states}, [this](const Tensors& in) {
    return norm_(projection_(in[0].to(projection_.dtype()))).to(at::kFloat);
  });
}

Tensor tokens_of_frames(const Tensor& tokens, std::int64_t frames) {
  const auto cells = (frames - 1) / kFramesOfCell + 1;
  if (cells < 2)
    throw Error(ErrorKind::Usage, "num_frames",
                fmt::format("is {}: speech is shared out to videos of 5 frames and more", frames));
  const auto each = static_cast<double>(tokens.size(1)) / static_cast<double>(frames);
  const auto half = whole(each * kFramesOfCell / 2);
  std::vector<std::pair<std::int64_t, std::int64_t>> shares(1);
  for (std::int64_t i = 1; i < cells; ++i) {
    const auto start = each * static_cast<double>((i - 1) * kFramesOfCell + 1);
    const auto end = each * static_cast<double>(i * kFramesOfCell + 1);
    const auto middle = whole((start + end) / 2) - 1;
    shares.emplace_back(middle - half, middle + half);
  }
  // The first one ends where the second begins.
  shares[0] = {shares[1].first - 2 * half, shares[1].first};
  Tensors parts;
  for (const auto& [first, last] : shares)
    parts.push_back(share(tokens, first - kMore, last + kMore));
  return at::stack(parts, 1);
}

}  // namespace distorch::models::wan
