#include "distorch/quant/gguf_in_half.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/device/operators.h"
#include "distorch/device/parallel.h"
#include "distorch/formats/gguf_types.h"
#include "distorch/quant/gguf_cuda.h"
#include "distorch/quant/gguf_decode.h"
#include "distorch/quant/gguf_grids.h"
#include "distorch/quant/gguf_half_cpu.h"

namespace distorch::quant {

namespace {

using at::Tensor;

const formats::BlockType& checked(const Tensor& blocks, std::int64_t id, at::ScalarType dtype) {
  const auto* type = formats::block_type(static_cast<std::uint32_t>(id));
  if (!type || !has_half_steps(type->name))
    throw Error(ErrorKind::Internal, "decode_in_half", fmt::format("knows no type {}", id));
  if (blocks.scalar_type() != at::kByte || blocks.dim() != 1 || blocks.numel() % type->bytes != 0)
    throw Error(ErrorKind::Internal, "decode_in_half",
                fmt::format("needs whole {} blocks of {} bytes in a row, got {} {}", type->name,
                            type->bytes, blocks.numel(), c10::toString(blocks.scalar_type())));
  if (dtype != at::kFloat && dtype != at::kHalf && dtype != at::kBFloat16)
    throw Error(ErrorKind::Internal, "decode_in_half",
                fmt::format("does not make numbers of type {}", c10::toString(dtype)));
  return *type;
}

Tensor shape_of(const Tensor& blocks, std::int64_t id, at::ScalarType dtype) {
  const auto& type = checked(blocks, id, dtype);
  return at::empty({blocks.numel() / type.bytes * type.elements}, blocks.options().dtype(dtype));
}

Tensor on_cpu(const Tensor& given, std::int64_t id, at::ScalarType dtype) {
  constexpr std::int64_t least_bytes = std::int64_t{1} << 15;  // that are worth a thread
  const auto& type = checked(given, id, dtype);
  const auto blocks = given.contiguous();
  auto numbers = shape_of(blocks, id, at::kFloat);
  const auto* from = blocks.const_data_ptr<std::uint8_t>();
  auto* to = numbers.mutable_data_ptr<float>();
  device::parallel_for(0, blocks.numel() / type.bytes, least_bytes / type.bytes,
                       [&](std::int64_t begin, std::int64_t end) {
                         decode_in_half_on_cpu({.type = static_cast<int>(id),
                                                .blocks = from + begin * type.bytes,
                                                .numbers = to + begin * type.elements,
                                                .count = end - begin});
                       });
  return numbers.to(dtype);
}

Tensor on_cuda(const Tensor& given, std::int64_t id, at::ScalarType dtype) {
  const auto& type = checked(given, id, dtype);
  const auto blocks = given.contiguous();
  // None of these types has a grid.
  auto numbers = decode_on_cuda(blocks, type, dtype, {}, /*in_half=*/true);
  return numbers.defined() ? numbers : on_cpu(blocks.cpu(), id, dtype).to(blocks.device());
}

const auto& half_operator() {
  static const auto op =
      device::define(
          {.schema = "decode_in_half(Tensor blocks, int type, ScalarType dtype) -> Tensor",
           .cpu = torch::CppFunction(&on_cpu),
           .cuda = torch::CppFunction(&on_cuda),
           .meta = torch::CppFunction(&shape_of)})
          .typed<Tensor(const Tensor&, std::int64_t, at::ScalarType)>();
  return op;
}

}  // namespace

bool has_half_steps(std::string_view type) {
  static const auto& list =
      *new std::vector<std::string_view>{"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",   "Q2_K",
                                         "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"};
  return std::ranges::find(list, type) != list.end();
}

Tensor decode_in_half(const Tensor& blocks, int type, at::ScalarType dtype) {
  return half_operator().call(blocks, type, dtype);
}

}  // namespace distorch::quant
