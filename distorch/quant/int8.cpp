#include "distorch/quant/int8.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "distorch/base/align.h"
#include "distorch/device/operators.h"
#include "distorch/device/parallel.h"
#include "distorch/quant/faults.h"
#include "distorch/quant/int8_cuda.h"
#include "distorch/quant/int8_product.h"
#include "distorch/quant/rotation.h"
#include "distorch/quant/row_kernels.h"
#include "distorch/quant/variants.h"

namespace distorch::quant {
namespace {

using at::Tensor;
using formats::DType;
using Maybe = const std::optional<Tensor>&;

class Int8 final : public Encoding {
 public:
  explicit Int8(int rotated) : rotated_(rotated) {}

  std::string_view name() const override { return "int8_tensorwise"; }

  const std::vector<Companion>& companions() const override {
    static const std::vector<Companion> list = {{{"weight_scale"}, true}};
    return list;
  }

  bool matches(DType, const std::vector<bool>&) const override { return false; }

  std::string marker() const override {
    if (rotated_ == 0) return Encoding::marker();
    return fmt::format(
        R"({{"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": {}}})", rotated_);
  }

  std::string fault(const FileTensor& values,
                    const std::vector<FileTensor>& companions) const override {
    const auto& scale = companions[0];
    if (values.shape.empty()) return "is a single number, which is not packed as 'int8_tensorwise'";
    if (rotated_ > 0 && (values.shape.size() != 2 || values.shape[1] % rotated_ != 0))
      return fmt::format("has rows of shape [{}], which groups of {} do not divide",
                         fmt::join(values.shape, ", "), rotated_);
    return first_of({wrong_dtype(values, {DType::I8}), missing(scale),
                     wrong_scale(scale, values.shape[0], true)});
  }

  Tensor decode(const Packed& weight, at::ScalarType dtype) const override {
    auto values = weight.values.to(at::kFloat).view(weight.shape);
    auto scale = weight.parts[0].to(at::kFloat);
    if (scale.numel() == 1) {
      values.mul_(scale.reshape(at::IntArrayRef{}));
    } else {
      std::vector<std::int64_t> by_row(weight.shape.size(), 1);
      by_row[0] = weight.shape[0];
      values.mul_(scale.reshape(by_row));
    }
    if (rotated_ > 0) values = rotated(values, rotated_);
    return values.to(dtype);
  }

  // Decoded they would give other products.
  bool rests_packed() const override { return true; }

  Tensor product(const Tensor& x, const Packed& weight, const Tensor& bias) const override {
    auto numbers = whole(weight);
    return numbers ? int8_linear(x, *numbers, bias) : Tensor();
  }

  std::optional<WholeNumbers> whole(const Packed& weight) const {
    if (weight.values.dim() != 2) return {};
    return WholeNumbers{.values = weight.values, .scale = weight.parts[0], .rotated = rotated_};
  }

 private:
  int rotated_;
};

float scale_of(float largest, const Levels& levels) {
  return std::max(largest / static_cast<float>(levels.most), levels.floor);
}

/// Rows begin .. end - 1 of x as whole numbers.
template <typename Number>
void whole_rows_of(const Number* x, std::int8_t* to, float* scales, std::int64_t begin,
                   std::int64_t end, std::int64_t width, int rotated, const Levels& levels) {
  std::vector<float> row(width);
  for (auto r = begin; r < end; ++r) {
    const auto* from = x + r * width;
    std::copy(from, from + width, row.begin());
    if (rotated > 0) kernels::rotate(row.data(), width, rotated);
    scales[r] = scale_of(kernels::largest_magnitude(row.data(), width), levels);
    kernels::to_whole(row.data(), to + r * width, width, scales[r], levels.least, levels.most);
  }
}

/// sums [M, n] scaled into columns first .. first + n - 1 of y [M, N].
template <typename Number>
void scale_into(const Tensor& y, std::int64_t first, const Tensor& sums, const Tensor& rows,
                const Tensor& scale, const Tensor& bias) {
  const auto count = sums.size(1), width = y.size(1);
  const auto* row = rows.const_data_ptr<float>();
  const auto* from = sums.const_data_ptr<std::int32_t>();
  const bool one = scale.numel() == 1;
  const auto* by = scale.const_data_ptr<float>() + (one ? 0 : first);
  const auto* added = bias.defined() ? bias.const_data_ptr<float>() + first : nullptr;
  auto* to = y.mutable_data_ptr<Number>() + first;
  device::parallel_for(0, y.size(0), 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> room(std::is_same_v<Number, float> ? 0 : count);
    for (auto r = begin; r < end; ++r) {
      if constexpr (std::is_same_v<Number, float>) {
        kernels::scaled(from + r * count, to + r * width, count, row[r], by, one, added);
      } else {
        kernels::scaled(from + r * count, room.data(), count, row[r], by, one, added);
        std::copy(room.begin(), room.end(), to + r * width);
      }
    }
  });
}

Tensor on_cpu(const Tensor& x, const Tensor& values, const Tensor& scale, Maybe bias,
              std::int64_t rotated, std::int64_t most) {
  constexpr std::int64_t room_bytes = std::int64_t{64} << 20;  // of sums at a time
  const auto& levels = most == kFourBits.most ? kFourBits : kEightBits;
  const auto out = values.size(0);
  const auto quantised = whole_rows(x, static_cast<int>(rotated), levels);
  auto y = at::empty({x.size(0), out}, x.options());
  auto by = scale.to(at::kFloat).contiguous();
  auto added = bias ? bias->to(at::kFloat).contiguous() : Tensor();
  const auto row_bytes = std::max<std::int64_t>(1, x.size(0) * 4);
  const auto step = std::max<std::int64_t>(1, room_bytes / row_bytes);
  for (std::int64_t first = 0; first < out; first += step) {
    const auto count = std::min(step, out - first);
    auto sums = at::_int_mm(quantised.first, values.narrow(0, first, count).t()).contiguous();
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, y.scalar_type(), "int8_linear", [&] {
      scale_into<scalar_t>(y, first, sums, quantised.second, by, added);
    });
  }
  return y;
}

/// x [M, K] as cuBLASLt multiplies it: {int8 [M', K], float32 [M]}, M' a multiple of 32.
std::pair<Tensor, Tensor> rows_for_cuda(const Tensor& x, int rotation, const Levels& levels) {
  constexpr std::int64_t multiple = 32;
  const auto padded = align_up(std::max<std::int64_t>(x.size(0), 1), multiple);
  if (auto kernel = cuda::int8_rows(x, padded, rotation, levels); kernel.first.defined())
    return kernel;
  if (auto kernel = cuda::whole_rows(x, padded, rotation, levels); kernel.first.defined())
    return kernel;
  auto numbers = rotation > 0 ? rotated(x, rotation) : x.to(at::kFloat);
  auto scales = (at::amax(numbers.abs(), {1}) / levels.most).clamp_min(levels.floor);
  auto whole = (numbers / scales.unsqueeze(1)).round_().clamp_(levels.least, levels.most);
  return {at::constant_pad_nd(whole.to(at::kChar), {0, 0, 0, padded - x.size(0)}), scales};
}

Tensor on_cuda(const Tensor& x, const Tensor& values, const Tensor& scale, Maybe bias,
               std::int64_t rotated, std::int64_t most) {
  constexpr std::int64_t multiple = 8;  // of the inner size and of rows, for cuBLASLt
  const auto& levels = most == kFourBits.most ? kFourBits : kEightBits;
  auto [whole, rows] = rows_for_cuda(x, static_cast<int>(rotated), levels);
  auto by = scale.to(at::kFloat).reshape({-1}).contiguous();
  auto weight = values;
  if (auto y =
          cuda::multiplied({whole, values, rows, by, bias.value_or(Tensor())}, x.scalar_type());
      y.defined())
    return y;
  const auto in = align_up(values.size(1), multiple), out = align_up(values.size(0), multiple);
  if (in != values.size(1)) whole = at::constant_pad_nd(whole, {0, in - values.size(1)});
  if (in != values.size(1) || out != values.size(0))
    weight = at::constant_pad_nd(weight, {0, in - values.size(1), 0, out - values.size(0)});
  auto sums = at::_int_mm(whole, weight.t());
  if (out == values.size(0))
    if (auto y = cuda::scaled(sums, rows, by, bias.value_or(Tensor()), x.scalar_type());
        y.defined())
      return y;
  auto y = sums.narrow(0, 0, x.size(0)).narrow(1, 0, values.size(0)).to(at::kFloat);
  y.mul_(rows.unsqueeze(1) * by.unsqueeze(0));
  if (bias) y.add_(bias->to(at::kFloat));
  return y.to(x.scalar_type());
}

Tensor shape_only(const Tensor& x, const Tensor& values, const Tensor&, Maybe, std::int64_t,
                  std::int64_t) {
  return at::empty({x.size(0), values.size(0)}, x.options());
}

KernelWork cost(c10::ArrayRef<c10::IValue> arguments) {
  const auto &x = arguments[0].toTensor(), &values = arguments[1].toTensor();
  const auto rows = static_cast<double>(x.size(0)), in = static_cast<double>(x.size(1));
  const auto out = static_cast<double>(values.size(0));
  // The whole numbers and the sums are written and read once.
  return {.kind = KernelKind::Matmul,
          .bytes = 2 * rows * in + 2 * 4 * rows * out,
          .flops = 2 * rows * in * out,
          .depth = in};
}

/// The whole numbers, and a scale a row.
std::int64_t scratch(c10::ArrayRef<c10::IValue> arguments) {
  const auto& x = arguments[0].toTensor();
  return x.numel() + 4 * x.size(0);
}

const auto& linear_operator() {
  static const auto op =
      device::define({.schema = "int8_linear(Tensor x, Tensor values, Tensor scale, Tensor? bias, "
                                "int rotated, int most) -> Tensor",
                      .cpu = torch::CppFunction(&on_cpu),
                      .cuda = torch::CppFunction(&on_cuda),
                      .meta = torch::CppFunction(&shape_only),
                      .cost = cost,
                      .scratch = scratch})
          .typed<Tensor(const Tensor&, const Tensor&, const Tensor&, Maybe, std::int64_t,
                        std::int64_t)>();
  return op;
}

}  // namespace

std::pair<Tensor, Tensor> whole_rows(const Tensor& x, int rotated, const Levels& levels) {
  auto numbers = x.contiguous();
  const auto rows = x.size(0), width = x.size(1);
  auto whole = at::empty({rows, width}, x.options().dtype(at::kChar));
  auto scales = at::empty({rows}, x.options().dtype(at::kFloat));
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "whole_rows", [&] {
    const auto* from = numbers.const_data_ptr<scalar_t>();
    auto* to = whole.mutable_data_ptr<std::int8_t>();
    auto* scale = scales.mutable_data_ptr<float>();
    device::parallel_for(0, rows, 4, [&](std::int64_t begin, std::int64_t end) {
      whole_rows_of(from, to, scale, begin, end, width, rotated, levels);
    });
  });
  return {whole, scales};
}

Tensor int8_linear(const Tensor& x, const WholeNumbers& weight, const Tensor& bias) {
  const auto in = weight.values.size(1);
  auto sizes = x.sizes().vec();
  sizes.back() = weight.values.size(0);
  if (x.numel() == 0 || weight.values.size(0) == 0) return at::empty(sizes, x.options());
  auto rows = x.reshape({-1, in});
  std::optional<Tensor> added;
  if (bias.defined()) added = bias;
  auto y = linear_operator().call(rows, weight.values, weight.scale, added, weight.rotated,
                                  weight.levels.most);
  return y.view(sizes);
}

std::optional<WholeNumbers> whole_numbers(const Packed& weight) {
  const auto* packing = dynamic_cast<const Int8*>(weight.encoding);
  return packing ? packing->whole(weight) : std::nullopt;
}

const Encoding& int8_tensorwise(int rotated) {
  static Variants<Int8, int> variants;
  return variants.of(rotated);
}

}  // namespace distorch::quant
