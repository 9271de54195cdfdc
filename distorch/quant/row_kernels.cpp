#include "distorch/quant/row_kernels.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "distorch/quant/row_kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace distorch::quant::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Four numbers a, b, c, d become a+b+c-d, a+b-c+d, a-b+c+d and -a+b+c+d.
template <class D, class V = hn::Vec<D>>
void four(D d, float* a, float* b, float* c, float* e, float factor) {
  const auto by = hn::Set(d, factor);
  const V p = hn::LoadU(d, a), q = hn::LoadU(d, b), r = hn::LoadU(d, c), s = hn::LoadU(d, e);
  const V sum = hn::Add(p, q), difference = hn::Sub(p, q);
  const V other_sum = hn::Add(r, s), other_difference = hn::Sub(r, s);
  hn::StoreU(hn::Mul(hn::Add(sum, other_difference), by), d, a);
  hn::StoreU(hn::Mul(hn::Sub(sum, other_difference), by), d, b);
  hn::StoreU(hn::Mul(hn::Add(difference, other_sum), by), d, c);
  hn::StoreU(hn::Mul(hn::Sub(other_sum, difference), by), d, e);
}

// The same at steps that are less than a vector may be wide: for the compiler to put into vectors.
void rotate_near(float* x, std::int64_t size, std::int64_t step) {
  for (std::int64_t first = 0; first < size; first += 4 * step)
    for (std::int64_t i = first; i < first + step; ++i) {
      const float a = x[i], b = x[i + step], c = x[i + 2 * step], e = x[i + 3 * step];
      const float sum = a + b, difference = a - b, other_sum = c + e, other_difference = c - e;
      x[i] = 0.5f * (sum + other_difference);
      x[i + step] = 0.5f * (sum - other_difference);
      x[i + 2 * step] = 0.5f * (difference + other_sum);
      x[i + 3 * step] = 0.5f * (other_sum - difference);
    }
}

template <class D>
void rotate_at(D d, float* x, std::int64_t size, std::int64_t step) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t first = 0; first < size; first += 4 * step)
    for (std::int64_t i = first; i < first + step; i += lanes)
      four(d, x + i, x + i + step, x + i + 2 * step, x + i + 3 * step, 0.5f);
}

void Rotate(float* x, std::int64_t size, std::int64_t group) {
  constexpr std::int64_t widest = 16;
  const hn::CappedTag<float, widest> d;
  for (std::int64_t first = 0; first < size; first += group) {
    rotate_near(x + first, group, 1);
    if (group > 4) rotate_near(x + first, group, 4);
    for (std::int64_t step = widest; step < group; step *= 4) rotate_at(d, x + first, group, step);
  }
}

float LargestMagnitude(const float* x, std::int64_t size) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto largest = hn::Zero(d), strange = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    const auto v = hn::LoadU(d, x + i);
    largest = hn::Max(hn::Abs(v), largest);
    strange = hn::MulAdd(v, hn::Zero(d), strange);  // NaN where v is no finite number
  }
  float result = hn::GetLane(hn::MaxOfLanes(d, largest));
  float rest = hn::GetLane(hn::SumOfLanes(d, strange));
  for (; i < size; ++i) {
    result = std::max(result, std::abs(x[i]));
    rest += x[i] * 0;
  }
  return result + rest;
}

void ToWhole(const float* x, std::int8_t* to, std::int64_t size, float scale, int least, int most) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> whole;
  const hn::Rebind<std::int8_t, decltype(d)> bytes;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto by = hn::Set(d, scale);
  const auto low = hn::Set(whole, least), high = hn::Set(whole, most);
  std::int64_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    auto v = hn::NearestInt(hn::Div(hn::LoadU(d, x + i), by));
    v = hn::Min(hn::Max(v, low), high);
    hn::StoreU(hn::DemoteTo(bytes, v), bytes, to + i);
  }
  for (; i < size; ++i)
    to[i] = static_cast<std::int8_t>(
        std::clamp(static_cast<int>(std::nearbyint(x[i] / scale)), least, most));
}

void Scaled(const std::int32_t* sums, float* to, std::int64_t size, float row, const float* scales,
            bool one_scale, const float* bias) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> whole;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto by = hn::Set(d, row);
  const auto same = hn::Set(d, row * scales[0]);
  std::int64_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    const auto factor = one_scale ? same : hn::Mul(hn::LoadU(d, scales + i), by);
    auto v = hn::Mul(hn::ConvertTo(d, hn::LoadU(whole, sums + i)), factor);
    if (bias) v = hn::Add(v, hn::LoadU(d, bias + i));
    hn::StoreU(v, d, to + i);
  }
  for (; i < size; ++i)
    to[i] = static_cast<float>(sums[i]) * (row * scales[one_scale ? 0 : i]) + (bias ? bias[i] : 0);
}

}  // namespace distorch::quant::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace distorch::quant::kernels {

HWY_EXPORT(Rotate);
HWY_EXPORT(LargestMagnitude);
HWY_EXPORT(ToWhole);
HWY_EXPORT(Scaled);

void rotate(float* x, std::int64_t size, std::int64_t group) {
  HWY_DYNAMIC_DISPATCH(Rotate)(x, size, group);
}

float largest_magnitude(const float* x, std::int64_t size) {
  return HWY_DYNAMIC_DISPATCH(LargestMagnitude)(x, size);
}

void to_whole(const float* x, std::int8_t* to, std::int64_t size, float scale, int least,
              int most) {
  HWY_DYNAMIC_DISPATCH(ToWhole)(x, to, size, scale, least, most);
}

void scaled(const std::int32_t* sums, float* to, std::int64_t size, float row, const float* scales,
            bool one_scale, const float* bias) {
  HWY_DYNAMIC_DISPATCH(Scaled)(sums, to, size, row, scales, one_scale, bias);
}

}  // namespace distorch::quant::kernels
#endif
