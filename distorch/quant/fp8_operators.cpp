#include "distorch/quant/fp8_operators.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "distorch/device/operators.h"
#include "distorch/device/parallel.h"
#include "distorch/quant/fp8_cuda.h"
#include "distorch/quant/small_floats.h"

namespace distorch::quant {
namespace {

using at::Tensor;
using Maybe = const std::optional<Tensor>&;

constexpr double kLargest = 448;
/// Numbers that a thread decodes at least: below that, starting it costs more.
constexpr std::int64_t kLeastNumbers = std::int64_t{1} << 15;

at::ScalarType type_of(bool wide) { return wide ? at::kFloat8_e5m2 : at::kFloat8_e4m3fn; }

bool is_written(at::ScalarType dtype) {
  return dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16;
}

NumberKind kind_of(at::ScalarType dtype) {
  if (dtype == at::kFloat) return NumberKind::Float;
  return dtype == at::kHalf ? NumberKind::Half : NumberKind::BFloat;
}

/// By two operations of torch: for types that nothing of ours writes, and where kernels are missing.
Tensor by_torch(const Tensor& values, const Tensor& scale, at::ScalarType dtype) {
  auto numbers = values.to(dtype);
  if (!scale.defined()) return numbers;
  auto factor = scale.to(dtype);
  if (factor.numel() == 1) return numbers.mul_(factor.reshape(at::IntArrayRef{}));
  std::vector<std::int64_t> by_row(values.dim(), 1);
  by_row[0] = values.size(0);
  return numbers.mul_(factor.view(by_row));
}

Tensor decode_on_cpu(const Tensor& given, Maybe scale, bool wide, at::ScalarType dtype) {
  const auto bytes = given.contiguous();
  auto y = at::empty(bytes.sizes(), bytes.options().dtype(dtype));
  if (y.numel() == 0) return y;
  auto factors = scale ? scale->to(dtype).to(at::kFloat).contiguous().flatten() : at::ones({1});
  const bool each_row = factors.numel() > 1;
  const auto width = each_row ? bytes.numel() / bytes.size(0) : bytes.numel();
  const auto pieces = each_row ? bytes.size(0) : bytes.numel();
  const auto piece = each_row ? width : 1;  // numbers
  const auto* from = bytes.const_data_ptr<std::uint8_t>();
  const auto* by = factors.const_data_ptr<float>();
  auto* to = static_cast<char*>(y.mutable_data_ptr());
  const auto size = static_cast<std::int64_t>(y.element_size());
  const bool past_caches = passes_caches(static_cast<std::int64_t>(y.nbytes()));
  device::parallel_for(0, pieces,
                       std::max<std::int64_t>(1, kLeastNumbers / std::max<std::int64_t>(1, piece)),
                       [&](std::int64_t begin, std::int64_t end) {
                         const auto first = begin * piece;
                         decode_small_floats({.type = wide ? SmallFloat::E5M2 : SmallFloat::E4M3,
                                              .kind = kind_of(dtype),
                                              .from = from + first,
                                              .to = to + first * size,
                                              .count = (end - begin) * piece,
                                              .factors = by + (each_row ? begin : 0),
                                              .run = width,
                                              .past_caches = past_caches});
                       });
  return y;
}

Tensor decode_on_cuda(const Tensor& bytes, Maybe scale, bool wide, at::ScalarType dtype) {
  auto by = scale.value_or(Tensor());
  auto y = cuda::decode_float8(bytes, by, wide, dtype);
  return y.defined() ? y : by_torch(bytes.view(type_of(wide)), by, dtype);
}

Tensor decoded_shape(const Tensor& bytes, Maybe, bool, at::ScalarType dtype) {
  return at::empty(bytes.sizes(), bytes.options().dtype(dtype));
}

using Encoded = std::tuple<Tensor, Tensor>;

Encoded encode_by_torch(const Tensor& x, Maybe scale) {
  auto used =
      scale ? scale->to(at::kFloat).reshape({1}) : at::ones({1}, x.options().dtype(at::kFloat));
  auto numbers = x.to(at::kFloat) / used;
  return {numbers.clamp_(-kLargest, kLargest).to(at::kFloat8_e4m3fn), used};
}

Encoded encode_on_cuda(const Tensor& x, Maybe scale) {
  auto [values, used] = cuda::to_float8(x, scale.value_or(Tensor()));
  if (!values.defined()) return encode_by_torch(x, scale);
  return {values, used};
}

Encoded encoded_shape(const Tensor& x, Maybe) {
  return {at::empty(x.sizes(), x.options().dtype(at::kFloat8_e4m3fn)),
          at::empty({1}, x.options().dtype(at::kFloat))};
}

std::optional<Tensor> maybe(const Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

}  // namespace

Tensor decode_float8(const Tensor& bytes, const Tensor& scale, bool wide, at::ScalarType dtype) {
  static const auto op =
      device::define({.schema = "decode_float8(Tensor bytes, Tensor? scale, bool wide, ScalarType "
                                "dtype) -> Tensor",
                      .cpu = torch::CppFunction(&decode_on_cpu),
                      .cuda = torch::CppFunction(&decode_on_cuda),
                      .meta = torch::CppFunction(&decoded_shape)})
          .typed<Tensor(const Tensor&, Maybe, bool, at::ScalarType)>();
  if (!is_written(dtype)) return by_torch(bytes.view(type_of(wide)), scale, dtype);
  return op.call(bytes, maybe(scale), wide, dtype);
}

std::pair<Tensor, Tensor> to_float8(const Tensor& x, const Tensor& scale) {
  static const auto op =
      device::define({.schema = "to_float8(Tensor x, Tensor? scale) -> (Tensor, Tensor)",
                      .cpu = torch::CppFunction(&encode_by_torch),
                      .cuda = torch::CppFunction(&encode_on_cuda),
                      .meta = torch::CppFunction(&encoded_shape)})
          .typed<Encoded(const Tensor&, Maybe)>();
  auto [values, used] = op.call(x, maybe(scale));
  return {values, used};
}

Tensor numbers_in(const Tensor& value, at::ScalarType dtype) {
  const bool wide = value.scalar_type() == at::kFloat8_e5m2;
  const bool small = wide || value.scalar_type() == at::kFloat8_e4m3fn;
  if (!small || !is_written(dtype) || !value.is_contiguous()) return value.to(dtype);
  return decode_float8(value.view(at::kByte), {}, wide, dtype);
}

}  // namespace distorch::quant
