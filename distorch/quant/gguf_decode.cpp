#include "distorch/quant/gguf_decode.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <map>
#include <mutex>

#include "distorch/base/error.h"
#include "distorch/device/operators.h"
#include "distorch/device/parallel.h"
#include "distorch/formats/gguf_types.h"
#include "distorch/quant/gguf_cpu.h"
#include "distorch/quant/gguf_cuda.h"
#include "distorch/quant/gguf_grids.h"

namespace distorch::quant {

namespace {

using at::Tensor;

/// Bytes that a thread decodes at least: below that, starting it costs more.
constexpr std::int64_t kLeastBytes = std::int64_t{1} << 15;

[[noreturn]] void fail(const std::string& sentence) {
  throw Error(ErrorKind::Internal, "decode_blocks", sentence);
}

NumberKind kind_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat: return NumberKind::Float;
    case at::kHalf: return NumberKind::Half;
    case at::kBFloat16: return NumberKind::BFloat;
    default: fail(fmt::format("does not make numbers of type {}", c10::toString(dtype)));
  }
}

const formats::BlockType& checked(const Tensor& blocks, std::int64_t id, at::ScalarType dtype) {
  const auto* type = formats::block_type(static_cast<std::uint32_t>(id));
  if (!type || type->plain) fail(fmt::format("knows no packed type {}", id));
  kind_of(dtype);
  if (blocks.scalar_type() != at::kByte || blocks.dim() != 1 || blocks.numel() % type->bytes != 0)
    fail(fmt::format("needs whole {} blocks of {} bytes in a row, got {} {}", type->name,
                     type->bytes, blocks.numel(), c10::toString(blocks.scalar_type())));
  return *type;
}

Tensor shape_of(const Tensor& blocks, std::int64_t id, at::ScalarType dtype) {
  const auto& type = checked(blocks, id, dtype);
  return at::empty({blocks.numel() / type.bytes * type.elements}, blocks.options().dtype(dtype));
}

Tensor on_cpu(const Tensor& given, std::int64_t id, at::ScalarType dtype) {
  const auto& type = checked(given, id, dtype);
  const auto blocks = given.contiguous();
  auto numbers = shape_of(blocks, id, dtype);
  const BlockJob whole{.type = static_cast<int>(id),
                       .kind = kind_of(dtype),
                       .grid = grid_of(static_cast<int>(id)).data(),
                       .past_caches = passes_caches(static_cast<std::int64_t>(numbers.nbytes()))};
  const auto* from = blocks.const_data_ptr<std::uint8_t>();
  auto* to = static_cast<std::uint8_t*>(numbers.mutable_data_ptr());
  const auto number_bytes = static_cast<std::int64_t>(numbers.element_size()) * type.elements;
  device::parallel_for(0, blocks.numel() / type.bytes, kLeastBytes / type.bytes,
                       [&](std::int64_t begin, std::int64_t end) {
                         auto job = whole;
                         job.blocks = from + begin * type.bytes;
                         job.numbers = to + begin * number_bytes;
                         job.count = end - begin;
                         if (!decode_on_cpu(job))
                           fail(fmt::format("has no kernel for {}", type.name));
                       });
  return numbers;
}

/// A type's grid on a device, put there once; undefined for types without.
Tensor grid_on(at::Device device, std::int64_t id) {
  const auto grid = grid_of(static_cast<int>(id));
  if (grid.empty()) return {};
  static std::mutex mutex;
  static auto& known = *new std::map<std::pair<int, const std::int8_t*>, Tensor>;
  std::lock_guard lock(mutex);
  auto& there = known[{device.index(), grid.data()}];
  if (!there.defined())
    there = at::from_blob(const_cast<std::int8_t*>(grid.data()),
                          {static_cast<std::int64_t>(grid.size())}, at::kChar)
                .to(device);
  return there;
}

Tensor on_cuda(const Tensor& given, std::int64_t id, at::ScalarType dtype) {
  const auto& type = checked(given, id, dtype);
  const auto blocks = given.contiguous();
  auto numbers = decode_on_cuda(blocks, type, dtype, grid_on(blocks.device(), id));
  return numbers.defined() ? numbers : on_cpu(blocks.cpu(), id, dtype).to(blocks.device());
}

const auto& decode_operator() {
  static const auto op =
      device::define(
          {.schema = "decode_blocks(Tensor blocks, int type, ScalarType dtype) -> Tensor",
           .cpu = torch::CppFunction(&on_cpu),
           .cuda = torch::CppFunction(&on_cuda),
           .meta = torch::CppFunction(&shape_of)})
          .typed<Tensor(const Tensor&, std::int64_t, at::ScalarType)>();
  return op;
}

}  // namespace

Tensor decode_blocks(const Tensor& blocks, int type, at::ScalarType dtype) {
  return decode_operator().call(blocks, type, dtype);
}

}  // namespace distorch::quant
