#include "distorch/quant/nibbles.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "distorch/device/operators.h"
#include "distorch/device/parallel.h"
#include "distorch/quant/int8_cuda.h"

namespace distorch::quant {
namespace {

using at::Tensor;

Tensor bytes_of(const Tensor& tensor) {
  return tensor.scalar_type() == at::kByte ? tensor : tensor.view(at::kByte);
}

Tensor room_for(const Tensor& bytes) {
  return at::empty({bytes.size(0), 2 * bytes.size(1)}, bytes.options().dtype(at::kChar));
}

using Table = std::array<std::int8_t, 16>;

void look_up(const Table& table, const std::uint8_t* from, std::int64_t bytes, std::int8_t* to) {
  for (std::int64_t i = 0; i < bytes; ++i) {
    to[2 * i] = table[from[i] & 15];
    to[2 * i + 1] = table[from[i] >> 4];
  }
}

Tensor by_table_on_cpu(const Tensor& bytes, const Tensor& scales, const Tensor& levels,
                       std::int64_t group) {
  constexpr float largest = 127;
  auto from = bytes.contiguous(), by = scales.contiguous(), of = levels.contiguous();
  auto y = room_for(bytes);
  const auto width = bytes.size(1), groups = scales.size(1);
  const auto* level = of.const_data_ptr<float>();
  device::parallel_for(0, bytes.size(0), 4, [&](std::int64_t begin, std::int64_t end) {
    Table table;
    for (auto r = begin; r < end; ++r)
      for (std::int64_t g = 0; g < groups; ++g) {
        const float scale = by.const_data_ptr<float>()[r * groups + g];
        for (int i = 0; i < 16; ++i)
          table[i] = static_cast<std::int8_t>(
              std::clamp(std::nearbyint(level[i] * scale), -largest, largest));
        look_up(table, from.const_data_ptr<std::uint8_t>() + r * width + g * group / 2, group / 2,
                y.mutable_data_ptr<std::int8_t>() + r * 2 * width + g * group);
      }
  });
  return y;
}

/// The sixteen indices of the bytes, [N, K] int32, by torch.
Tensor indices(const Tensor& bytes) {
  auto low = bytes.bitwise_and(15), high = bytes.bitwise_right_shift(4);
  return at::stack({low, high}, -1).flatten(-2).to(at::kInt);
}

Tensor by_table_on_cuda(const Tensor& bytes, const Tensor& scales, const Tensor& levels,
                        std::int64_t group) {
  if (auto y = cuda::nibbles(bytes, scales, levels, group); y.defined()) return y;
  constexpr double largest = 127;
  auto of = indices(bytes);
  auto values = levels.index_select(0, of.flatten()).view(of.sizes()).unflatten(-1, {-1, group});
  return (values * scales.unsqueeze(-1))
      .flatten(-2)
      .round_()
      .clamp_(-largest, largest)
      .to(at::kChar);
}

Tensor by_table_shape(const Tensor& bytes, const Tensor&, const Tensor&, std::int64_t) {
  return room_for(bytes);
}

Tensor signed_on_cpu(const Tensor& bytes) {
  Table table;
  for (int i = 0; i < 16; ++i) table[i] = static_cast<std::int8_t>(i < 8 ? i : i - 16);
  auto from = bytes.contiguous();
  auto y = room_for(bytes);
  device::parallel_for(0, bytes.numel(), 1 << 14, [&](std::int64_t begin, std::int64_t end) {
    look_up(table, from.const_data_ptr<std::uint8_t>() + begin, end - begin,
            y.mutable_data_ptr<std::int8_t>() + 2 * begin);
  });
  return y;
}

Tensor signed_on_cuda(const Tensor& bytes) {
  if (auto y = cuda::nibbles(bytes, {}, {}, 0); y.defined()) return y;
  auto of = indices(bytes).to(at::kChar);
  return at::where(of.ge(8), of - 16, of);
}

const auto& table_operator() {
  static const auto op =
      device::define({.schema = "nibbles_by_table(Tensor bytes, Tensor scales, Tensor levels, "
                                "int group) -> Tensor",
                      .cpu = torch::CppFunction(&by_table_on_cpu),
                      .cuda = torch::CppFunction(&by_table_on_cuda),
                      .meta = torch::CppFunction(&by_table_shape)})
          .typed<Tensor(const Tensor&, const Tensor&, const Tensor&, std::int64_t)>();
  return op;
}

const auto& signed_operator() {
  static const auto op = device::define({.schema = "signed_nibbles(Tensor bytes) -> Tensor",
                                         .cpu = torch::CppFunction(&signed_on_cpu),
                                         .cuda = torch::CppFunction(&signed_on_cuda),
                                         .meta = torch::CppFunction(&room_for)})
                             .typed<Tensor(const Tensor&)>();
  return op;
}

}  // namespace

Tensor nibbles_by_table(const Tensor& bytes, const Tensor& scales, const Tensor& levels,
                        std::int64_t group) {
  return table_operator().call(bytes_of(bytes), scales, levels, group);
}

Tensor signed_nibbles(const Tensor& bytes) { return signed_operator().call(bytes_of(bytes)); }

std::vector<std::int64_t> nibble_shape(std::vector<std::int64_t> bytes) {
  if (!bytes.empty()) bytes.back() *= 2;
  return bytes;
}

}  // namespace distorch::quant
