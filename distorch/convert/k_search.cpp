#include "distorch/convert/k_search.h"

#include <algorithm>
#include <cmath>

// Highway compiles the rest of this file once for each set of instructions and chooses at run time:
// the macros are its own way of saying so. Products and sums stay two roundings (CMakeLists.txt).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "distorch/convert/k_search.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace distorch::convert::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, kLanes>;
using V = hn::Vec<D>;

// Sums over the numbers of a part, w = what a number counts, l = its code:
// w·l, w·l·l, w·l·y.
struct Sums {
  V l, ll, ly;
};

/// Parts in lanes. y is what a code has to meet: the numbers less the part's smallest (affine), or
/// the numbers themselves (scaled).
template <int Part>
struct Parts {
  alignas(64) float y[Part][kLanes];
  alignas(64) float w[Part][kLanes];
  alignas(64) float low[kLanes], high[kLanes];  // smallest (no more than 0) and largest number
  alignas(64) float w_sum[kLanes], wy[kLanes];
  alignas(64) float l[kLanes], ll[kLanes], ly[kLanes];  // Sums of the codes that were chosen
  alignas(64) float scale[kLanes], offset[kLanes];      // as found, then whole numbers
  alignas(64) float d[kLanes], dmin[kLanes];            // of the part's block
};

inline V at(const float* from) { return hn::Load(D(), from); }
inline V all(float value) { return hn::Set(D(), value); }

/// The nearest whole number of a small one, halves to even.
inline V rounded(V v) {
  const V large = all(12582912.0f);  // 1.5 · 2^23: its last place is 1
  return hn::Sub(hn::Add(v, large), large);
}
/// Within low .. high; NaN becomes high, then low.
inline V clamped(V v, V low, V high) { return hn::Max(hn::Min(v, high), low); }
/// a / b, 0 where b is not above 0.
inline V over(V a, V b) {
  const auto good = hn::Gt(b, hn::Zero(D()));
  return hn::IfThenElseZero(good, hn::Div(a, hn::IfThenElse(good, b, all(1))));
}

template <int Part>
void turn(const float* from, Parts<Part>& p) {
  for (int i = 0; i < Part; ++i)
    for (int lane = 0; lane < kLanes; ++lane) p.y[i][lane] = from[lane * Part + i];
}

/// Fills w, its sums, and low and high; takes low off y where `affine`.
template <int Part>
void weigh(Parts<Part>& p, const Importance& importance, bool affine, int lane) {
  V low = hn::Zero(D()), high = at(p.y[0] + lane), squares = hn::Zero(D());
  for (int i = 0; i < Part; ++i) {
    const V x = at(p.y[i] + lane);
    low = hn::Min(x, low);
    high = hn::Max(x, high);
    squares = hn::Add(squares, hn::Mul(x, x));
  }
  const V mean = hn::Mul(squares, all(1.0f / Part));
  const V base = hn::Mul(all(importance.base), importance.squared ? mean : hn::Sqrt(mean));
  V w_sum = hn::Zero(D()), wy = hn::Zero(D());
  for (int i = 0; i < Part; ++i) {
    const V x = at(p.y[i] + lane);
    const V w = hn::Add(base, importance.squared ? hn::Mul(x, x) : hn::Abs(x));
    const V y = affine ? hn::Sub(x, low) : x;
    hn::Store(w, D(), p.w[i] + lane);
    hn::Store(y, D(), p.y[i] + lane);
    w_sum = hn::Add(w_sum, w);
    wy = hn::Add(wy, hn::Mul(w, y));
  }
  hn::Store(low, D(), p.low + lane);
  hn::Store(high, D(), p.high + lane);
  hn::Store(w_sum, D(), p.w_sum + lane);
  hn::Store(wy, D(), p.wy + lane);
}

/// For the codes nearest to y · inverse + add.
template <int Part>
inline Sums sums_of(const Parts<Part>& p, int lane, V inverse, V add, V least, V most) {
  Sums s{hn::Zero(D()), hn::Zero(D()), hn::Zero(D())};
  for (int i = 0; i < Part; ++i) {
    const V y = at(p.y[i] + lane), w = at(p.w[i] + lane);
    const V l = rounded(clamped(hn::Add(hn::Mul(y, inverse), add), least, most));
    const V wl = hn::Mul(w, l);
    s.l = hn::Add(s.l, wl);
    s.ll = hn::Add(s.ll, hn::Mul(wl, l));
    s.ly = hn::Add(s.ly, hn::Mul(wl, y));
  }
  return s;
}

/// Sum of w · (scale · l + shift - y)² without its part w · y · y, which no choice changes.
inline V loss_of(const Sums& s, V w_sum, V wy, V scale, V shift) {
  const V square =
      hn::Add(hn::Mul(hn::Mul(scale, scale), s.ll), hn::Mul(hn::Mul(shift, shift), w_sum));
  const V mixed = hn::Sub(hn::Mul(scale, hn::Sub(hn::Mul(shift, s.l), s.ly)), hn::Mul(shift, wy));
  return hn::Add(square, hn::Add(mixed, mixed));
}

/// Scale and shift that fit these codes best; the offset -(low + shift) is never below 0.
inline void fit(const Sums& s, V w_sum, V wy, V low, V& scale, V& shift) {
  const V a = hn::Mul(w_sum, s.ll), determinant = hn::Sub(a, hn::Mul(s.l, s.l));
  const auto whole = hn::Gt(determinant, hn::Mul(a, all(1e-5f)));
  const V safe = hn::IfThenElse(whole, determinant, all(1));
  const V inverse = hn::Div(all(1), safe);
  scale = hn::Mul(hn::Sub(hn::Mul(w_sum, s.ly), hn::Mul(wy, s.l)), inverse);
  shift = hn::Mul(hn::Sub(hn::Mul(s.ll, wy), hn::Mul(s.l, s.ly)), inverse);
  shift = hn::Min(hn::IfThenElseZero(whole, shift), hn::Neg(low));
  const V alone = over(hn::Sub(s.ly, hn::Mul(shift, s.l)), s.ll);
  const auto moved = hn::Or(hn::Not(whole), hn::Eq(shift, hn::Neg(low)));
  scale = hn::IfThenElse(moved, alone, scale);
}

/// Scale and offset of each part by trying spacings.
template <int Part>
void try_spacings(Parts<Part>& p, const AffineRule& rule, int lane) {
  const V low = at(p.low + lane), w_sum = at(p.w_sum + lane), wy = at(p.wy + lane);
  const V one = over(all(1), hn::Sub(at(p.high + lane), low));
  const V most = all(static_cast<float>(rule.most));
  V best = hn::Zero(D()), best_scale = hn::Zero(D()), best_shift = hn::Zero(D());
  for (int trial = 0; trial < rule.trials; ++trial) {
    const float steps =
        static_cast<float>(rule.most) + rule.first + rule.step * static_cast<float>(trial);
    const auto s = sums_of(p, lane, hn::Mul(one, all(steps)), hn::Zero(D()), hn::Zero(D()), most);
    V scale, shift;
    fit(s, w_sum, wy, low, scale, shift);
    const V loss = loss_of(s, w_sum, wy, scale, shift);
    const auto better = hn::And(hn::Lt(loss, best), hn::Gt(scale, hn::Zero(D())));
    best = hn::IfThenElse(better, loss, best);
    best_scale = hn::IfThenElse(better, scale, best_scale);
    best_shift = hn::IfThenElse(better, shift, best_shift);
  }
  hn::Store(best_scale, D(), p.scale + lane);
  hn::Store(hn::Max(hn::Neg(hn::Add(low, best_shift)), hn::Zero(D())), D(), p.offset + lane);
}

/// Of each part's scale and those beside it the one that leaves the least, with the offset that
/// suits it best; what p.scale and p.offset are about becomes whole numbers.
template <int Part>
void choose_affine(Parts<Part>& p, const AffineRule& rule, int lane) {
  const V zero = hn::Zero(D()), most = all(static_cast<float>(rule.most));
  const V most_scale = all(static_cast<float>(rule.most_scale));
  const V d = at(p.d + lane), dmin = at(p.dmin + lane), low = at(p.low + lane);
  const V w_sum = at(p.w_sum + lane), wy = at(p.wy + lane);
  const V middle = at(p.scale + lane),
          old_shift = hn::Neg(hn::Add(hn::Mul(dmin, at(p.offset + lane)), low));
  const V per_weight = over(all(1), w_sum), per_dmin = over(all(1), dmin);
  V best = all(INFINITY), best_scale = zero, best_offset = zero;
  Sums kept{zero, zero, zero};
  for (int beside = -rule.beside; beside <= rule.beside; ++beside) {
    const V code = clamped(hn::Add(middle, all(static_cast<float>(beside))), zero, most_scale);
    const V scale = hn::Mul(d, code), inverse = over(all(1), scale);
    const auto s = sums_of(p, lane, inverse, hn::Neg(hn::Mul(old_shift, inverse)), zero, most);
    const V wanted = hn::Mul(hn::Sub(wy, hn::Mul(scale, s.l)), per_weight);
    const V offset =
        rounded(clamped(hn::Mul(hn::Neg(hn::Add(wanted, low)), per_dmin), zero, most_scale));
    const V shift = hn::Neg(hn::Add(hn::Mul(dmin, offset), low));
    const V loss = loss_of(s, w_sum, wy, scale, shift);
    const auto better = hn::Lt(loss, best);
    best = hn::IfThenElse(better, loss, best);
    best_scale = hn::IfThenElse(better, code, best_scale);
    best_offset = hn::IfThenElse(better, offset, best_offset);
    kept.l = hn::IfThenElse(better, s.l, kept.l);
    kept.ll = hn::IfThenElse(better, s.ll, kept.ll);
    kept.ly = hn::IfThenElse(better, s.ly, kept.ly);
  }
  hn::Store(best_scale, D(), p.scale + lane);
  hn::Store(best_offset, D(), p.offset + lane);
  hn::Store(kept.l, D(), p.l + lane);
  hn::Store(kept.ll, D(), p.ll + lane);
  hn::Store(kept.ly, D(), p.ly + lane);
}

inline float half(float number) { return from_half(to_half(number)); }

/// d and dmin of a block from the largest scale and offset of its parts, which become whole
/// multiples.
template <int Part>
void share(Parts<Part>& p, const AffineRule& rule, int first, int parts) {
  const auto most = static_cast<float>(rule.most_scale);
  const float d = half(*std::max_element(p.scale + first, p.scale + first + parts) / most);
  const float dmin = half(*std::max_element(p.offset + first, p.offset + first + parts) / most);
  const float per_d = d > 0 ? 1 / d : 0, per_dmin = dmin > 0 ? 1 / dmin : 0;
  for (int i = first; i < first + parts; ++i) {
    p.d[i] = d;
    p.dmin[i] = dmin;
    p.scale[i] = std::min(std::nearbyint(p.scale[i] * per_d), most);
    p.offset[i] = std::min(std::nearbyint(p.offset[i] * per_dmin), most);
  }
}

/// What a block loses with its scales, offsets and codes as they are, as in loss_of().
template <int Part>
double block_loss(const Parts<Part>& p, int first, int parts, double d, double dmin) {
  double sum = 0;
  for (int i = first; i < first + parts; ++i) {
    const double scale = d * p.scale[i], shift = -(dmin * p.offset[i] + p.low[i]);
    sum += scale * scale * p.ll[i] + shift * shift * p.w_sum[i] +
           2 * (scale * (shift * p.l[i] - p.ly[i]) - shift * p.wy[i]);
  }
  return sum;
}

/// d and dmin that suit the scales, offsets and codes of a block best.
template <int Part>
void refit(Parts<Part>& p, int first, int parts) {
  double a = 0, b = 0, f = 0, c = 0, e = 0;
  for (int i = first; i < first + parts; ++i) {
    const double scale = p.scale[i], offset = p.offset[i];
    a += scale * scale * p.ll[i];
    b += scale * offset * p.l[i];
    f += offset * offset * p.w_sum[i];
    c += scale * (static_cast<double>(p.ly[i]) + static_cast<double>(p.low[i]) * p.l[i]);
    e -= offset * (static_cast<double>(p.low[i]) * p.w_sum[i] + p.wy[i]);
  }
  const double determinant = a * f - b * b;
  double d = p.d[first], dmin = p.dmin[first];
  if (determinant > 1e-9 * a * f) {
    d = (c * f + b * e) / determinant;
    dmin = (a * e + b * c) / determinant;
  } else if (a > 0) {
    d = (c + b * dmin) / a;
  }
  if (!(d > 0) || !(dmin >= 0)) return;
  const float new_d = half(static_cast<float>(d)), new_dmin = half(static_cast<float>(dmin));
  if (block_loss(p, first, parts, new_d, new_dmin) >=
      block_loss(p, first, parts, p.d[first], p.dmin[first]))
    return;
  std::fill(p.d + first, p.d + first + parts, new_d);
  std::fill(p.dmin + first, p.dmin + first + parts, new_dmin);
}

/// Writes the codes nearest to y · inverse + add, `more` added.
template <int Part>
void write_codes(const Parts<Part>& p, int lane, V inverse, V add, float least, float most,
                 FoundParts& found) {
  const hn::Rebind<std::uint8_t, D> bytes;
  const hn::RebindToSigned<D> whole;
  const V more = all(-least);
  for (int i = 0; i < Part; ++i) {
    const V v = clamped(hn::Add(hn::Mul(at(p.y[i] + lane), inverse), add), all(least), all(most));
    const V code = hn::Add(rounded(v), more);
    hn::StoreU(hn::DemoteTo(bytes, hn::ConvertTo(whole, code)), bytes, found.codes[i] + lane);
  }
}

/// What is stored of the parts: d, dmin, scales, offsets.
template <int Part>
void write_scales(const Parts<Part>& p, FoundParts& found) {
  constexpr int parts = kSuper / Part;
  constexpr float most = 65504;  // of float16: what would be beyond was cut
  found.finite = true;
  for (int block = 0; block < kLanes / parts; ++block) {
    found.d[block] = p.d[block * parts];
    found.dmin[block] = p.dmin[block * parts];
    found.finite = found.finite && std::abs(found.d[block]) < most && found.dmin[block] < most;
  }
  for (int i = 0; i < kLanes; ++i) {
    found.scales[i] = static_cast<std::int16_t>(p.scale[i]);
    found.offsets[i] = static_cast<std::int16_t>(p.offset[i]);
    found.finite = found.finite && std::isfinite(p.wy[i]);
  }
}

template <int Part>
void affine(const float* from, const AffineRule& rule, FoundParts& found) {
  constexpr int parts = kSuper / Part;
  const int lanes = static_cast<int>(hn::Lanes(D()));
  Parts<Part> p;
  turn(from, p);
  for (int lane = 0; lane < kLanes; lane += lanes) {
    weigh(p, rule.importance, true, lane);
    try_spacings(p, rule, lane);
  }
  for (int first = 0; first < kLanes; first += parts) share(p, rule, first, parts);
  for (int round = 0; round < rule.rounds; ++round) {
    if (round > 0)
      for (int first = 0; first < kLanes; first += parts) refit(p, first, parts);
    for (int lane = 0; lane < kLanes; lane += lanes) choose_affine(p, rule, lane);
  }
  for (int lane = 0; lane < kLanes; lane += lanes) {
    const V scale = hn::Mul(at(p.d + lane), at(p.scale + lane)), inverse = over(all(1), scale);
    const V offset = hn::Mul(at(p.dmin + lane), at(p.offset + lane));
    const V add = hn::Mul(hn::Add(offset, at(p.low + lane)), inverse);
    write_codes(p, lane, inverse, add, 0, static_cast<float>(rule.most), found);
  }
  write_scales(p, found);
}

/// The scale of each part by trying spacings; it may be negative.
void try_scales(Parts<16>& p, const ScaledRule& rule, int lane) {
  const V low = at(p.low + lane), high = at(p.high + lane);
  const V furthest = hn::IfThenElse(hn::Gt(high, hn::Neg(low)), high, low);
  const auto some = hn::Ne(furthest, hn::Zero(D()));
  const V one = hn::IfThenElseZero(some, hn::Div(all(-1), hn::IfThenElse(some, furthest, all(1))));
  const V least = all(static_cast<float>(-rule.half)),
          most = all(static_cast<float>(rule.half - 1));
  V best = hn::Zero(D()), best_scale = hn::Zero(D());
  for (int trial = 0; trial < rule.trials; ++trial) {
    const float steps =
        static_cast<float>(rule.half) + rule.step * static_cast<float>(trial - rule.trials / 2);
    const auto s = sums_of(p, lane, hn::Mul(one, all(steps)), hn::Zero(D()), least, most);
    const V scale = over(s.ly, s.ll), explained = hn::Mul(scale, s.ly);
    const auto better = hn::Gt(explained, best);
    best = hn::IfThenElse(better, explained, best);
    best_scale = hn::IfThenElse(better, scale, best_scale);
  }
  hn::Store(best_scale, D(), p.scale + lane);
}

/// Of each part's scale and those beside it the one that leaves the least.
void choose_scale(Parts<16>& p, const ScaledRule& rule, int lane) {
  const V zero = hn::Zero(D()), d = at(p.d + lane), middle = at(p.scale + lane);
  const V least = all(static_cast<float>(-rule.half)),
          most = all(static_cast<float>(rule.half - 1));
  V best = all(INFINITY), best_code = zero, best_ll = zero, best_ly = zero;
  for (int beside = -rule.beside; beside <= rule.beside; ++beside) {
    const V code = clamped(hn::Add(middle, all(static_cast<float>(beside))),
                           all(static_cast<float>(-rule.most_scale)),
                           all(static_cast<float>(rule.most_scale - 1)));
    const V scale = hn::Mul(d, code);
    const auto some = hn::Ne(scale, zero);
    const V inverse =
        hn::IfThenElseZero(some, hn::Div(all(1), hn::IfThenElse(some, scale, all(1))));
    const auto s = sums_of(p, lane, inverse, zero, least, most);
    const V loss = hn::Mul(scale, hn::Sub(hn::Mul(scale, s.ll), hn::Add(s.ly, s.ly)));
    const auto better = hn::Lt(loss, best);
    best = hn::IfThenElse(better, loss, best);
    best_code = hn::IfThenElse(better, code, best_code);
    best_ll = hn::IfThenElse(better, s.ll, best_ll);
    best_ly = hn::IfThenElse(better, s.ly, best_ly);
  }
  hn::Store(best_code, D(), p.scale + lane);
  hn::Store(best_ll, D(), p.ll + lane);
  hn::Store(best_ly, D(), p.ly + lane);
}

/// d of a block: the scale that is furthest from zero becomes -most_scale.
void share(Parts<16>& p, const ScaledRule& rule, int first) {
  constexpr int parts = kSuper / 16;
  float furthest = 0;
  for (int i = first; i < first + parts; ++i)
    if (std::abs(p.scale[i]) > std::abs(furthest)) furthest = p.scale[i];
  const auto most = static_cast<float>(rule.most_scale);
  const float d = half(furthest / -most), per_d = d != 0 ? 1 / d : 0;
  for (int i = first; i < first + parts; ++i) {
    p.d[i] = d;
    p.dmin[i] = 0;
    p.offset[i] = 0;
    p.scale[i] = std::clamp(std::nearbyint(p.scale[i] * per_d), -most, most - 1);
  }
}

/// d that suits the scales and codes of a block best.
void refit(Parts<16>& p, int first) {
  constexpr int parts = kSuper / 16;
  double above = 0, below = 0;
  for (int i = first; i < first + parts; ++i) {
    const double scale = p.scale[i];
    above += scale * p.ly[i];
    below += scale * scale * p.ll[i];
  }
  if (!(below > 0)) return;
  const float d = half(static_cast<float>(above / below));
  auto loss = [&](double by) { return by * by * below - 2 * by * above; };
  if (loss(d) < loss(p.d[first])) std::fill(p.d + first, p.d + first + parts, d);
}

}  // namespace

void FindAffine(const float* from, int part, const AffineRule& rule, FoundParts& found) {
  if (part == 16)
    affine<16>(from, rule, found);
  else
    affine<32>(from, rule, found);
}

void FindScaled(const float* from, const ScaledRule& rule, FoundParts& found) {
  constexpr int parts = kSuper / 16;
  const int lanes = static_cast<int>(hn::Lanes(D()));
  Parts<16> p;
  turn(from, p);
  for (int lane = 0; lane < kLanes; lane += lanes) {
    weigh(p, rule.importance, false, lane);
    try_scales(p, rule, lane);
  }
  for (int first = 0; first < kLanes; first += parts) share(p, rule, first);
  for (int round = 0; round < rule.rounds; ++round) {
    if (round > 0)
      for (int first = 0; first < kLanes; first += parts) refit(p, first);
    for (int lane = 0; lane < kLanes; lane += lanes) choose_scale(p, rule, lane);
  }
  for (int lane = 0; lane < kLanes; lane += lanes) {
    const V scale = hn::Mul(at(p.d + lane), at(p.scale + lane));
    const auto some = hn::Ne(scale, hn::Zero(D()));
    const V inverse =
        hn::IfThenElseZero(some, hn::Div(all(1), hn::IfThenElse(some, scale, all(1))));
    write_codes(p, lane, inverse, hn::Zero(D()), static_cast<float>(-rule.half),
                static_cast<float>(rule.half - 1), found);
  }
  write_scales(p, found);
}

}  // namespace distorch::convert::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace distorch::convert {
namespace {
HWY_EXPORT(FindAffine);
HWY_EXPORT(FindScaled);
}  // namespace

void find_affine(const float* from, int part, const AffineRule& rule, FoundParts& found) {
  HWY_DYNAMIC_DISPATCH(FindAffine)(from, part, rule, found);
}

void find_scaled(const float* from, const ScaledRule& rule, FoundParts& found) {
  HWY_DYNAMIC_DISPATCH(FindScaled)(from, rule, found);
}

}  // namespace distorch::convert
#endif
