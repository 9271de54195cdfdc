#include "distorch/quant/bf16_planes.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/align.h"
#include "distorch/base/error.h"
#include "distorch/device/operators.h"
#include "distorch/device/parallel.h"
#include "distorch/quant/bf16_planes_kernel.h"
#include "distorch/quant/bf16_planes_rows.h"

namespace distorch::quant {
namespace {

using at::Tensor;
using Shape = std::vector<std::int64_t>;

std::int64_t numbers_of_a_row(at::IntArrayRef shape) {
  return shape.size() < 2 ? 0 : c10::multiply_integers(shape.slice(1));
}

/// What is wrong with the shapes; empty: nothing.
std::string fault_of(at::IntArrayRef values, at::IntArrayRef codes, at::IntArrayRef exponents) {
  const auto n = numbers_of_a_row(values);
  if (n < 1 || n > planes::kMostNumbers)
    return fmt::format("planes of shape [{}] have no rows of 1 to {} numbers",
                       fmt::join(values, ", "), planes::kMostNumbers);
  const Shape wanted{values[0], (n + 1) / 2};
  if (codes != at::IntArrayRef(wanted))
    return fmt::format("weight_codes has shape [{}] where [{}] is needed", fmt::join(codes, ", "),
                       fmt::join(wanted, ", "));
  const bool fits = exponents.size() == 2 && exponents[0] == values[0] &&
                    exponents[1] >= planes::kTable &&
                    (exponents[1] - planes::kTable) % planes::kEscapeBytes == 0;
  if (!fits)
    return fmt::format(
        "weight_exponents has shape [{}] where [{}, 16 and a multiple of 4] is needed",
        fmt::join(exponents, ", "), values[0]);
  return {};
}

void check(const Tensor& values, const Tensor& codes, const Tensor& exponents) {
  for (const auto* part : {&values, &codes, &exponents})
    if (!part->defined() || part->scalar_type() != at::kByte)
      throw Error(ErrorKind::Format, "bf16_planes", "planes, codes and exponents are bytes (U8)");
  if (auto fault = fault_of(values.sizes(), codes.sizes(), exponents.sizes()); !fault.empty())
    throw Error(ErrorKind::Format, "bf16_planes", fault);
}

class Planes final : public Encoding {
 public:
  std::string_view name() const override { return "bf16_planes"; }

  const std::vector<Companion>& companions() const override {
    static const std::vector<Companion> list = {{{"weight_codes"}}, {{"weight_exponents"}}};
    return list;
  }

  bool matches(formats::DType dtype, const std::vector<bool>& present) const override {
    return dtype == formats::DType::U8 && present[0] && present[1];
  }

  std::string fault(const FileTensor& values,
                    const std::vector<FileTensor>& companions) const override {
    for (const auto* part : {&values, &companions.at(0), &companions.at(1)})
      if (part->dtype != formats::DType::U8)
        return fmt::format("has a '{}' of type {} where U8 is needed", part->name,
                           formats::name_of(part->dtype));
    auto wrong = fault_of(values.shape, companions[0].shape, companions[1].shape);
    return wrong.empty() ? wrong : "does not fit its parts: " + wrong;
  }

  Tensor decode(const Packed& weight, at::ScalarType dtype) const override {
    const bool wide = dtype == at::kFloat || dtype == at::kDouble;
    return unpack_bf16(weight.values, weight.parts.at(0), weight.parts.at(1), wide)
        .view(weight.shape)
        .to(dtype);
  }
};

Tensor on_cpu(const Tensor& values, const Tensor& codes, const Tensor& exponents, bool wide) {
  check(values, codes, exponents);
  const auto v = values.contiguous(), c = codes.contiguous(), e = exponents.contiguous();
  auto out = at::empty(v.sizes(), v.options().dtype(wide ? at::kFloat : at::kBFloat16));
  const auto n = numbers_of_a_row(v.sizes()), code_bytes = c.size(1), table_bytes = e.size(1);
  const auto out_bytes = n * static_cast<std::int64_t>(out.element_size());
  const auto* planes_at = v.const_data_ptr<std::uint8_t>();
  const auto* codes_at = c.const_data_ptr<std::uint8_t>();
  const auto* exponents_at = e.const_data_ptr<std::uint8_t>();
  auto* to = static_cast<std::uint8_t*>(out.mutable_data_ptr());
  constexpr std::int64_t numbers_at_least = 1 << 16;
  device::parallel_for(0, v.size(0), std::max<std::int64_t>(1, numbers_at_least / n),
                       [&](std::int64_t first, std::int64_t last) {
                         for (auto row = first; row < last; ++row)
                           planes::unpack_row({.planes = planes_at + row * n,
                                               .codes = codes_at + row * code_bytes,
                                               .exponents = exponents_at + row * table_bytes,
                                               .exponent_bytes = table_bytes,
                                               .numbers = n},
                                              to + row * out_bytes, wide);
                       });
  return out;
}

Tensor on_cuda(const Tensor& values, const Tensor& codes, const Tensor& exponents, bool wide) {
  check(values, codes, exponents);
  auto out = unpack_bf16_on_cuda(values, codes, exponents);
  if (!out.defined()) return unpack_bf16_by_torch(values, codes, exponents, wide);
  return wide ? out.to(at::kFloat) : out;
}

Tensor shape_only(const Tensor& values, const Tensor&, const Tensor&, bool wide) {
  return at::empty(values.sizes(), values.options().dtype(wide ? at::kFloat : at::kBFloat16));
}

}  // namespace

const Encoding& bf16_planes() {
  static const Planes one;
  return one;
}

Tensor unpack_bf16(const Tensor& planes, const Tensor& codes, const Tensor& exponents, bool wide) {
  static const auto op =
      device::define({.schema = "bf16_planes(Tensor planes, Tensor codes, Tensor exponents, "
                                "bool wide) -> Tensor",
                      .cpu = torch::CppFunction(&on_cpu),
                      .cuda = torch::CppFunction(&on_cuda),
                      .meta = torch::CppFunction(&shape_only)})
          .typed<Tensor(const Tensor&, const Tensor&, const Tensor&, bool)>();
  return op.call(planes, codes, exponents, wide);
}

Tensor unpack_bf16_by_torch(const Tensor& planes, const Tensor& codes, const Tensor& exponents,
                            bool wide) {
  const auto rows = planes.size(0), n = numbers_of_a_row(planes.sizes());
  auto code = at::stack({codes.bitwise_and(15), codes.bitwise_right_shift(4)}, -1);
  code = code.flatten(1).narrow(1, 0, n).to(at::kLong);
  auto exponent = exponents.narrow(1, 0, planes::kTable).gather(1, code).to(at::kInt);
  if (exponents.size(1) > planes::kTable) {
    auto entry = exponents.narrow(1, planes::kTable, exponents.size(1) - planes::kTable)
                     .reshape({rows, -1, planes::kEscapeBytes})
                     .to(at::kLong);
    auto place = entry.select(2, 1) + entry.select(2, 2) * 256 + entry.select(2, 3) * 65536;
    auto row = at::arange(rows, place.options()).unsqueeze(1).expand_as(place);
    auto used = place < n;
    exponent.index_put_({row.masked_select(used), place.masked_select(used)},
                        entry.select(2, 0).masked_select(used).to(at::kInt));
  }
  auto plane = planes.reshape({rows, n}).to(at::kInt);
  auto bits = plane.bitwise_and(128) * 256 + exponent * 128 + plane.bitwise_and(127);
  auto numbers = bits.to(at::kShort).view(at::kBFloat16).view(planes.sizes());
  return wide ? numbers.to(at::kFloat) : numbers;
}

namespace {

/// Calls work(row, its numbers) for all rows, with all threads.
template <class Work>
void for_rows(const Tensor& whole, const Work& work) {
  const auto n = numbers_of_a_row(whole.sizes());
  const auto* from = static_cast<const std::uint16_t*>(whole.const_data_ptr());
  constexpr std::int64_t numbers_at_least = 1 << 16;
  device::parallel_for(0, whole.size(0), std::max<std::int64_t>(1, numbers_at_least / n),
                       [&](std::int64_t first, std::int64_t last) {
                         for (auto row = first; row < last; ++row)
                           work(row, {from + row * n, static_cast<std::size_t>(n)});
                       });
}

}  // namespace

bool is_worth_packing(std::int64_t numbers, std::int64_t escapes) {
  constexpr std::int64_t worth = 16;
  if (numbers < 1 || numbers > planes::kMostNumbers) return false;
  const auto packed = numbers + (numbers + 1) / 2 + planes::kTable + planes::kEscapeBytes * escapes;
  return packed <= 2 * numbers - 2 * numbers / worth;
}

std::int64_t escapes_of(const Tensor& rows) {
  constexpr std::int64_t multiple = 4;
  std::vector<std::int64_t> each(static_cast<std::size_t>(rows.size(0)), 0);
  for_rows(rows.contiguous(), [&](std::int64_t row, std::span<const std::uint16_t> numbers) {
    each[row] = planes::table_of(numbers).escapes;
  });
  return align_up(*std::max_element(each.begin(), each.end()), multiple);
}

Packed pack_rows(const Tensor& rows, std::int64_t escapes) {
  const auto n = numbers_of_a_row(rows.sizes()), count = rows.size(0), code_bytes = (n + 1) / 2;
  const auto table_bytes = planes::kTable + planes::kEscapeBytes * escapes;
  const auto bytes = at::TensorOptions().dtype(at::kByte);
  auto plane = at::empty(rows.sizes(), bytes), codes = at::empty({count, code_bytes}, bytes);
  auto exponents = at::empty({count, table_bytes}, bytes);
  auto* planes_at = plane.mutable_data_ptr<std::uint8_t>();
  auto* codes_at = codes.mutable_data_ptr<std::uint8_t>();
  auto* exponents_at = exponents.mutable_data_ptr<std::uint8_t>();
  for_rows(rows.contiguous(), [&](std::int64_t row, std::span<const std::uint16_t> numbers) {
    planes::pack_row(numbers, planes::table_of(numbers), planes_at + row * n,
                     codes_at + row * code_bytes,
                     {exponents_at + row * table_bytes, static_cast<std::size_t>(table_bytes)});
  });
  return {&bf16_planes(), plane, {codes, exponents}, rows.sizes().vec()};
}

std::optional<Packed> pack_bf16(const Tensor& weight) {
  const auto n = numbers_of_a_row(weight.sizes());
  if (weight.scalar_type() != at::kBFloat16 || weight.numel() == 0 || !is_worth_packing(n, 0))
    return {};
  const auto escapes = escapes_of(weight);
  if (!is_worth_packing(n, escapes)) return {};
  return pack_rows(weight, escapes);
}

}  // namespace distorch::quant
