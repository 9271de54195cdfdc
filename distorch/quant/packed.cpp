#include "distorch/quant/packed.h"

#include <fmt/format.h>

#include <algorithm>

#include "distorch/quant/encoding.h"

namespace distorch::quant {
namespace {

// Decoded rows that exist at a time: large enough that a product of so many rows keeps a device
// busy, small beside the activations of the models that need it.
constexpr std::int64_t tile_bytes = std::int64_t{64} << 20;
// Products of another number of rows run by slow kernels: twice a step's time (FLUX, H200).
constexpr std::int64_t even_rows = 256;

std::int64_t elements_of(const Packed& weight) { return c10::multiply_integers(weight.shape); }

}  // namespace

Packed Packed::rows(std::int64_t first, std::int64_t count) const {
  return encoding->rows(*this, first, count);
}

Packed Encoding::rows(const Packed& weight, std::int64_t first, std::int64_t count) const {
  auto result = weight;
  auto all = weight.shape.at(0);
  result.encoding = from_row(first, weight.shape);
  result.shape[0] = count;
  result.values = weight.values.narrow(0, first, count);
  for (std::size_t i = 0; i < result.parts.size(); ++i) {
    auto& part = result.parts[i];
    if (!part.defined()) continue;
    if (auto some = part_rows(i, part.sizes().vec(), all, first, count))
      part = part.narrow(0, some->first, some->second);
  }
  return result;
}

std::optional<std::pair<std::int64_t, std::int64_t>> Encoding::part_rows(
    std::size_t /*part*/, const std::vector<std::int64_t>& shape, std::int64_t all,
    std::int64_t first, std::int64_t count) const {
  if (all < 2 || shape.empty() || shape[0] != all) return {};
  return std::pair{first, count};
}

std::string Encoding::marker() const { return fmt::format(R"({{"format": "{}"}})", name()); }

std::string Encoding::fault(const FileTensor& /*values*/,
                            const std::vector<FileTensor>& /*companions*/) const {
  return {};
}

at::Tensor Encoding::product(const at::Tensor& /*x*/, const Packed& /*weight*/,
                             const at::Tensor& /*bias*/) const {
  return {};
}

std::vector<std::int64_t> Encoding::shape_of(
    const std::vector<std::int64_t>& values,
    const std::vector<std::vector<std::int64_t>>& /*companions*/) const {
  return values;
}

std::int64_t Encoding::rows_in_one(const Packed& weight, std::int64_t first) const {
  return weight.shape.at(0) - first;
}

Packed Packed::to(at::Device target, bool non_blocking) const {
  auto moved = [&](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.to(target, tensor.scalar_type(), non_blocking) : tensor;
  };
  auto result = *this;
  result.values = moved(values);
  for (auto& part : result.parts) part = moved(part);
  return result;
}

Packed Packed::as_matrix() const {
  auto result = *this;
  if (shape.size() > 2)
    result.shape = {shape[0], elements_of(*this) / std::max<std::int64_t>(1, shape[0])};
  return result;
}

at::Tensor decode(const Packed& weight, at::ScalarType dtype) {
  return weight.encoding->decode(weight, dtype);
}

at::Tensor linear(const at::Tensor& x, const Packed& weight, const at::Tensor& bias) {
  auto dtype = x.scalar_type();
  auto matrix = weight.as_matrix();
  auto row_bytes = matrix.shape[1] * static_cast<std::int64_t>(c10::elementSize(dtype));
  auto out = matrix.shape[0];
  auto step = std::max<std::int64_t>(1, tile_bytes / std::max<std::int64_t>(1, row_bytes));
  if (step > even_rows) step -= step % even_rows;
  std::optional<at::Tensor> added;
  if (bias.defined()) added = bias;
  if (out <= std::min(step, matrix.encoding->rows_in_one(matrix, 0)))
    return at::linear(x, decode(matrix, dtype), added);
  auto sizes = x.sizes().vec();
  sizes.back() = out;
  auto y = at::empty(sizes, x.options());
  for (std::int64_t first = 0; first < out;) {
    auto count = std::min(step, matrix.encoding->rows_in_one(matrix, first));
    if (added) added = bias.narrow(0, first, count);
    y.narrow(-1, first, count)
        .copy_(at::linear(x, decode(matrix.rows(first, count), dtype), added));
    first += count;
  }
  return y;
}

}  // namespace distorch::quant
