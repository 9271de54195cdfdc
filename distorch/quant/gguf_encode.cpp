#include "distorch/quant/gguf_encode.h"

#include <ATen/ATen.h>

#include "distorch/base/error.h"

namespace distorch::quant {

namespace {

using at::Tensor;

constexpr int kQ4_0 = 2, kQ8_0 = 8, kQ4_K = 12;
constexpr std::int64_t kSmall = 32, kLarge = 256;

/// 1 / d, and 0 where d is 0.
Tensor reciprocal_or_zero(const Tensor& d) {
  return at::where(d == 0, at::zeros_like(d), d.reciprocal());
}

/// [n, 1] numbers as the bytes of float16s.
Tensor half_bytes(const Tensor& d) { return d.to(at::kHalf).contiguous().view(at::kByte); }

/// Halves round away from zero.
Tensor rounded(const Tensor& x) {
  auto size = x.abs(), whole = size.floor();
  return x.sign() * (whole + ((size - whole) * 2).floor());
}

/// Codes [n, 32] of four bits, the second half above the first: [n, 16].
Tensor joined_halves(const Tensor& codes) {
  auto parts = codes.to(at::kByte).chunk(2, 1);
  return parts[0].bitwise_or(parts[1].bitwise_left_shift(4));
}

Tensor q8_0(const Tensor& x) {
  auto d = x.abs().amax({1}, true) / 127;
  auto codes = rounded(x * reciprocal_or_zero(d)).to(at::kChar).view(at::kByte);
  return at::cat({half_bytes(d), codes}, 1);
}

Tensor q4_0(const Tensor& x) {
  auto largest = x.gather(1, x.abs().argmax(1, true));
  auto d = largest / -8;
  auto codes = (x * reciprocal_or_zero(d) + 8.5).trunc().clamp(0, 15);
  return at::cat({half_bytes(d), joined_halves(codes)}, 1);
}

/// Eight scales and eight offsets [n, 8] of six bits: [n, 12] bytes.
Tensor six_bits(const Tensor& scales, const Tensor& offsets) {
  auto low = [](const Tensor& t) { return t.narrow(1, 0, 4); };
  auto high = [](const Tensor& t) { return t.narrow(1, 4, 4); };
  auto top = [&](const Tensor& t) {
    return low(t).bitwise_or(high(t).bitwise_right_shift(4).bitwise_left_shift(6));
  };
  auto rest =
      high(scales).bitwise_and(15).bitwise_or(high(offsets).bitwise_and(15).bitwise_left_shift(4));
  return at::cat({top(scales), top(offsets), rest}, 1);
}

Tensor q4_k(const Tensor& x) {
  constexpr double levels = 15, scale_levels = 63;
  auto groups = x.view({-1, 8, 32});
  auto offset = (-groups.amin(2)).clamp_min(0);
  auto scale = (groups.amax(2) + offset).clamp_min(0) / levels;
  auto d = (scale.amax({1}, true) / scale_levels).to(at::kHalf);
  auto dmin = (offset.amax({1}, true) / scale_levels).to(at::kHalf);
  auto stepped = [&](const Tensor& numbers, const Tensor& step) {
    return (numbers * reciprocal_or_zero(step.to(at::kFloat)))
        .round()
        .clamp(0, scale_levels)
        .to(at::kByte);
  };
  auto scales = stepped(scale, d), offsets = stepped(offset, dmin);
  auto real_scale = (d.to(at::kFloat) * scales).unsqueeze(2);
  auto real_offset = (dmin.to(at::kFloat) * offsets).unsqueeze(2);
  auto codes = ((groups + real_offset) * reciprocal_or_zero(real_scale)).round().clamp(0, levels);
  auto bytes = joined_halves(codes.view({-1, 64})).view({x.size(0), 128});
  return at::cat({half_bytes(d), half_bytes(dmin), six_bits(scales, offsets), bytes}, 1);
}

}  // namespace

bool can_encode(int type) { return type == kQ4_0 || type == kQ8_0 || type == kQ4_K; }

Tensor encode_blocks(const Tensor& x, int type) {
  if (!can_encode(type))
    throw Error(ErrorKind::Internal, "encode_blocks", "does not know the type");
  auto numbers = x.to(at::kFloat).contiguous();
  if (type == kQ4_K) return q4_k(numbers.view({-1, kLarge})).flatten();
  auto blocks = numbers.view({-1, kSmall});
  return (type == kQ8_0 ? q8_0(blocks) : q4_0(blocks)).flatten();
}

}  // namespace distorch::quant
