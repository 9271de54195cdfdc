#include "distorch/quant/packed.h"

#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/align.h"
#include "distorch/quant/encoding.h"

namespace distorch::quant {
namespace {

// Decoded rows that exist at a time, in bytes: so many that a product with them keeps a device busy,
// small beside the activations of the models that need it. An accelerator takes FLUX's and Wan's
// largest matrices whole: rows in parts cost it a product with few rows and a bias in a pass of its
// own.
constexpr std::int64_t kTileBytes = std::int64_t{64} << 20;
constexpr std::int64_t kAcceleratorTileBytes = std::int64_t{160} << 20;
// Products of another number of rows run by slow kernels: twice a step's time (FLUX, H200).
constexpr std::int64_t kEvenRows = 256;

std::int64_t elements_of(const Packed& weight) { return c10::multiply_integers(weight.shape); }

/// How many rows of a matrix are decoded at a time: on the CPU as many as fit, elsewhere all or
/// about as many each time.
std::int64_t tile_rows(const Packed& matrix, at::ScalarType dtype) {
  const auto row_bytes = matrix.shape[1] * static_cast<std::int64_t>(c10::elementSize(dtype));
  const bool host = matrix.device().is_cpu();
  const auto bytes = host ? kTileBytes : kAcceleratorTileBytes;
  const auto most = std::max<std::int64_t>(1, bytes / std::max<std::int64_t>(1, row_bytes));
  if (most <= kEvenRows) return most;
  if (host) return align_down(most, kEvenRows);
  if (matrix.shape[0] <= most) return most;
  const auto tiles = (matrix.shape[0] + most - 1) / most;
  return align_up((matrix.shape[0] + tiles - 1) / tiles, kEvenRows);
}

/// x · wᵀ + bias into y, columns of a larger matrix: x [M, in], w [n, in], y [M, n].
void product_into(at::Tensor y, const at::Tensor& x, const at::Tensor& w,
                  const std::optional<at::Tensor>& bias) {
  if (bias)
    at::addmm_out(y, *bias, x, w.t());
  else
    at::mm_out(y, x, w.t());
}

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

Reading Encoding::reading(const FileTensor& values, const std::vector<FileTensor>& companions,
                          const std::string& /*where*/) const {
  Reading result{this, {}, values.shape, {}};
  std::vector<std::vector<std::int64_t>> shapes;
  for (const auto& companion : companions) {
    shapes.push_back(companion.shape);
    result.parts.push_back(companion.is_there() ? std::optional(companion.shape) : std::nullopt);
  }
  result.shape = shape_of(values.shape, shapes);
  return result;
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
  const auto dtype = x.scalar_type();
  const auto matrix = weight.as_matrix();
  const auto out = matrix.shape[0], step = tile_rows(matrix, dtype);
  std::optional<at::Tensor> added;
  if (bias.defined()) added = bias;
  if (out <= std::min(step, matrix.encoding->rows_in_one(matrix, 0)))
    return at::linear(x, decode(matrix, dtype), added);
  auto sizes = x.sizes().vec();
  sizes.back() = out;
  auto y = at::empty(sizes, x.options());
  const auto lines = y.numel() / out;
  const auto matrix_x = x.reshape({lines, matrix.shape[1]}), matrix_y = y.view({lines, out});
  for (std::int64_t first = 0; first < out;) {
    const auto count = std::min(step, matrix.encoding->rows_in_one(matrix, first));
    if (added) added = bias.narrow(0, first, count);
    const auto tile = decode(matrix.rows(first, count), dtype);
    // Into columns the CPU's product would be another in its last bits.
    if (x.device().is_cpu())
      y.narrow(-1, first, count).copy_(at::linear(x, tile, added));
    else
      product_into(matrix_y.narrow(1, first, count), matrix_x, tile, added);
    first += count;
  }
  return y;
}

}  // namespace distorch::quant
