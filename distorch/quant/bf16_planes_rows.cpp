#include "distorch/quant/bf16_planes_rows.h"

#include <algorithm>
#include <cstring>
#include <numeric>

// Highway compiles the part between its marks once for every kind of processor.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "distorch/quant/bf16_planes_rows.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace distorch::quant::planes::HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR

// Without vectors the loop over single numbers does it all.
std::int64_t unpack_narrow(const RowBytes&, std::uint8_t*) { return 0; }
std::int64_t unpack_wide(const RowBytes&, std::uint8_t*) { return 0; }

#else

namespace hn = hwy::HWY_NAMESPACE;
using Bytes = hn::FixedTag<std::uint8_t, 16>;
using Halves = hn::FixedTag<std::uint16_t, 8>;

/// 16 numbers from their planes and exponents.
template <bool Wide, class V>
HWY_INLINE void put(V plane, V exponent, std::uint8_t* to) {
  const Bytes bytes;
  const Halves halves;
  const auto high = hn::Or(hn::And(plane, hn::Set(bytes, 0x80)), hn::ShiftRight<1>(exponent));
  const auto low = hn::Or(hn::And(plane, hn::Set(bytes, 0x7f)), hn::ShiftLeft<7>(exponent));
  const auto first = hn::InterleaveLower(bytes, low, high);
  const auto second = hn::InterleaveUpper(bytes, low, high);
  if constexpr (Wide) {
    const auto zero = hn::Zero(halves);
    auto store = [&](V numbers, std::uint8_t* at) {
      const auto sixteen = hn::BitCast(halves, numbers);
      hn::StoreU(hn::BitCast(bytes, hn::InterleaveLower(halves, zero, sixteen)), bytes, at);
      hn::StoreU(hn::BitCast(bytes, hn::InterleaveUpper(halves, zero, sixteen)), bytes, at + 16);
    };
    store(first, to);
    store(second, to + 32);
  } else {
    hn::StoreU(first, bytes, to);
    hn::StoreU(second, bytes, to + 16);
  }
}

/// The first numbers of a row, as many whole 32s as there are; how many that were.
template <bool Wide>
std::int64_t unpack(const RowBytes& row, std::uint8_t* to) {
  constexpr std::int64_t size = Wide ? 4 : 2;
  const Bytes bytes;
  const auto table = hn::LoadU(bytes, row.exponents);
  const auto nibble = hn::Set(bytes, 15);
  std::int64_t i = 0;
  for (; i + 32 <= row.numbers; i += 32) {
    const auto codes = hn::LoadU(bytes, row.codes + i / 2);
    const auto low = hn::And(codes, nibble), high = hn::ShiftRight<4>(codes);
    put<Wide>(hn::LoadU(bytes, row.planes + i),
              hn::TableLookupBytes(table, hn::InterleaveLower(bytes, low, high)), to + i * size);
    put<Wide>(hn::LoadU(bytes, row.planes + i + 16),
              hn::TableLookupBytes(table, hn::InterleaveUpper(bytes, low, high)),
              to + (i + 16) * size);
  }
  return i;
}

std::int64_t unpack_narrow(const RowBytes& row, std::uint8_t* to) { return unpack<false>(row, to); }
std::int64_t unpack_wide(const RowBytes& row, std::uint8_t* to) { return unpack<true>(row, to); }

#endif

}  // namespace distorch::quant::planes::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace distorch::quant::planes {

HWY_EXPORT(unpack_narrow);
HWY_EXPORT(unpack_wide);

namespace {

constexpr int kMantissaBits = 7;

std::uint8_t exponent_of(std::uint16_t number) {
  return static_cast<std::uint8_t>(number >> kMantissaBits);
}
std::uint8_t plane_of(std::uint16_t number) {
  return static_cast<std::uint8_t>((number >> 8 & 0x80) | (number & 0x7f));
}

void put_one(std::uint8_t plane, std::uint8_t exponent, std::int64_t place, void* to, bool wide) {
  const auto number =
      static_cast<std::uint16_t>((plane & 0x80) << 8 | exponent << kMantissaBits | (plane & 0x7f));
  if (wide)
    static_cast<std::uint32_t*>(to)[place] = static_cast<std::uint32_t>(number) << 16;
  else
    static_cast<std::uint16_t*>(to)[place] = number;
}

}  // namespace

void unpack_row(const RowBytes& row, void* to, bool wide) {
  auto* bytes = static_cast<std::uint8_t*>(to);
  auto i = wide ? HWY_DYNAMIC_DISPATCH(unpack_wide)(row, bytes)
                : HWY_DYNAMIC_DISPATCH(unpack_narrow)(row, bytes);
  for (; i < row.numbers; ++i)
    put_one(row.planes[i], row.exponents[row.codes[i / 2] >> i % 2 * 4 & 15], i, to, wide);
  for (auto at = kTable; at + kEscapeBytes <= row.exponent_bytes; at += kEscapeBytes) {
    const auto* entry = row.exponents + at;
    const auto place = entry[1] | entry[2] << 8 | entry[3] << 16;
    if (place < row.numbers) put_one(row.planes[place], entry[0], place, to, wide);
  }
}

RowTable table_of(std::span<const std::uint16_t> row) {
  // Four counts of each, so that equal neighbours do not wait for each other.
  std::array<std::array<std::uint32_t, 256>, 4> counts{};
  std::size_t i = 0;
  for (; i + 4 <= row.size(); i += 4)
    for (std::size_t k = 0; k < 4; ++k) ++counts[k][exponent_of(row[i + k])];
  for (; i < row.size(); ++i) ++counts[0][exponent_of(row[i])];
  for (std::size_t e = 0; e < 256; ++e) counts[0][e] += counts[1][e] + counts[2][e] + counts[3][e];
  std::array<int, 256> order{};
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + kTable, order.end(), [&](int a, int b) {
    return counts[0][a] != counts[0][b] ? counts[0][a] > counts[0][b] : a < b;
  });
  RowTable table;
  auto others = static_cast<std::int64_t>(row.size());
  for (std::size_t code = 0; code < kTable; ++code) {
    table.exponents[code] = static_cast<std::uint8_t>(order[code]);
    others -= counts[0][order[code]];
  }
  table.escapes = others;
  return table;
}

void pack_row(std::span<const std::uint16_t> row, const RowTable& table, std::uint8_t* planes,
              std::uint8_t* codes, std::span<std::uint8_t> exponents) {
  constexpr std::uint8_t other = 255;
  std::array<std::uint8_t, 256> code_of{};
  code_of.fill(other);
  for (std::size_t code = 0; code < kTable; ++code)
    code_of[table.exponents[code]] = static_cast<std::uint8_t>(code);
  std::memcpy(exponents.data(), table.exponents.data(), kTable);
  // Places beyond every row: unused.
  std::fill(exponents.begin() + kTable, exponents.end(), std::uint8_t{0xff});
  auto* entry = exponents.data() + kTable;
  auto code_at = [&](std::size_t i) {
    if (i >= row.size()) return std::uint8_t{0};
    planes[i] = plane_of(row[i]);
    const auto exponent = exponent_of(row[i]);
    if (code_of[exponent] != other) return code_of[exponent];
    *entry++ = exponent;
    for (int shift = 0; shift < 24; shift += 8) *entry++ = static_cast<std::uint8_t>(i >> shift);
    return std::uint8_t{0};
  };
  for (std::size_t i = 0; i < row.size(); i += 2) {
    const auto low = code_at(i), high = code_at(i + 1);
    codes[i / 2] = static_cast<std::uint8_t>(low | high << 4);
  }
}

}  // namespace distorch::quant::planes
#endif
