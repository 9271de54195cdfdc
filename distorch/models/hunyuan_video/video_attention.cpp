#include "distorch/models/hunyuan_video/video_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "distorch/nn/attention.h"

namespace distorch::models::hunyuan_video {

using at::Tensor;

namespace {

double scale_of(const Tensor& heads) {
  return 1.0 / std::sqrt(static_cast<double>(heads.size(-1)));
}

/// The video's tokens in the order of its frames, in groups: [B, groups, H, frames, Dh].
Tensor grouped(const Tensor& x, const VideoPlaces& places) {
  auto video = x.narrow(1, places.text, x.size(1) - places.text);
  if (places.given > 0) {
    const auto made = video.size(1) - places.given;
    video = at::cat({video.narrow(1, made, places.given), video.narrow(1, 0, made)}, 1);
  }
  return video.unflatten(1, {-1, places.frames}).transpose(2, 3);
}

}  // namespace

Tensor enhancement(const nn::Qkv& heads, const VideoPlaces& places, double weight) {
  const auto frames = places.frames;
  if (frames < 2 || (heads.q.size(1) - places.text) % frames != 0)
    return at::ones({}, heads.q.options());
  auto q = grouped(heads.q, places) * scale_of(heads.q);
  auto shares =
      at::matmul(q, grouped(heads.k, places).transpose(-2, -1)).to(at::kFloat).softmax(-1);
  auto others = shares.sum({-2, -1}) - shares.diagonal(0, -2, -1).sum(-1);
  auto mean = others.mean() / static_cast<double>(frames * frames - frames);
  return (mean * (static_cast<double>(frames) + weight)).clamp_min(1.0).to(heads.q.scalar_type());
}

Tensor attend_apart(const nn::Qkv& heads, const VideoPlaces& places) {
  // So many tokens at once, which bounds the memory of their scores.
  constexpr std::int64_t piece = 4096;
  const auto text = places.text, video = heads.q.size(1) - text;
  auto words = nn::attend(heads.q.narrow(1, 0, text), heads.k, heads.v);
  std::vector<Tensor> parts = {words};
  auto of_text = [&](const Tensor& x) { return x.narrow(1, 0, text).transpose(1, 2); };
  const auto keys = of_text(heads.k).to(at::kFloat), values = of_text(heads.v).to(at::kFloat);
  for (std::int64_t first = 0; first < video; first += piece) {
    const auto count = std::min(piece, video - first);
    auto own = [&](const Tensor& x) {  // [B, H, count, Dh]
      return x.narrow(1, text + first, count).transpose(1, 2).to(at::kFloat);
    };
    auto q = own(heads.q) * scale_of(heads.q);
    auto scores =
        at::cat({(q * own(heads.k)).sum(-1, true), at::matmul(q, keys.transpose(-2, -1))}, -1);
    auto shares = scores.softmax(-1);
    auto seen =
        own(heads.v) * shares.narrow(-1, 0, 1) + at::matmul(shares.narrow(-1, 1, text), values);
    parts.push_back(seen.transpose(1, 2).flatten(2).to(words.scalar_type()));
  }
  return at::cat(parts, 1);
}

}  // namespace distorch::models::hunyuan_video
