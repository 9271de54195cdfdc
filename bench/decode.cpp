// How fast packed weights become numbers on the CPU: bytes of numbers a second for every type of GGUF
// blocks and for the small floats of ComfyUI's files, beside a copy of as many bytes in the same run,
// with all threads. Both write to memory that is there already, in large pages where the system gives
// them, as NumPy's are in bench/peers/decode.py.
//   bench_decode [--out FOLDER] [--mb MEGABYTES OF NUMBERS]
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdlib>
#include <cstring>

#include "bench/bench.h"
#include "distorch/device/parallel.h"
#include "distorch/formats/gguf_types.h"
#include "distorch/quant/gguf_cpu.h"
#include "distorch/quant/gguf_grids.h"
#include "distorch/quant/small_floats.h"

namespace {

using namespace distorch;

constexpr int kRounds = 7;

/// Copies with all threads, as decoding writes: seconds.
double copy_seconds(const at::Tensor& from, const at::Tensor& to) {
  const auto* source = static_cast<const char*>(from.const_data_ptr());
  auto* target = static_cast<char*>(to.mutable_data_ptr());
  const auto start = bench::now_s();
  device::parallel_for(0, static_cast<std::int64_t>(from.nbytes()), 1 << 20,
                       [&](std::int64_t begin, std::int64_t end) {
                         std::memcpy(target + begin, source + begin,
                                     static_cast<std::size_t>(end - begin));
                       });
  return bench::now_s() - start;
}

bool past_caches(const at::Tensor& numbers) {
  return quant::passes_caches(static_cast<std::int64_t>(numbers.nbytes()));
}

/// Decodes with all threads: seconds.
double decode_seconds(const formats::BlockType& type, const at::Tensor& blocks,
                      const at::Tensor& numbers) {
  const auto id = static_cast<int>(type.id);
  const quant::BlockJob whole{.type = id,
                              .kind = numbers.scalar_type() == at::kFloat
                                          ? quant::NumberKind::Float
                                          : quant::NumberKind::BFloat,
                              .grid = quant::grid_of(id).data(),
                              .past_caches = past_caches(numbers)};
  const auto* from = blocks.const_data_ptr<std::uint8_t>();
  auto* to = static_cast<char*>(numbers.mutable_data_ptr());
  const auto bytes = type.elements * static_cast<std::int64_t>(numbers.element_size());
  const auto start = bench::now_s();
  device::parallel_for(0, blocks.numel() / type.bytes, (1 << 15) / type.bytes,
                       [&](std::int64_t begin, std::int64_t end) {
                         auto job = whole;
                         job.blocks = from + begin * type.bytes;
                         job.numbers = to + begin * bytes;
                         job.count = end - begin;
                         quant::decode_on_cpu(job);
                       });
  return bench::now_s() - start;
}

/// Numbers of 8 or 4 bits of ComfyUI's files: with one factor, or one for each `run`.
struct Small {
  const char* name;
  quant::SmallFloat type;
  std::int64_t run;  // 0: all
};
constexpr Small kSmall[] = {{"float8_e4m3fn", quant::SmallFloat::E4M3, 0},
                            {"float8_e5m2", quant::SmallFloat::E5M2, 0},
                            {"mxfp8", quant::SmallFloat::E4M3, 32},
                            {"nvfp4", quant::SmallFloat::E2M1, 16}};

double decode_seconds(const Small& small, const at::Tensor& codes, const at::Tensor& factors,
                      const at::Tensor& numbers) {
  constexpr std::int64_t piece = std::int64_t{1} << 15;  // numbers
  const auto size = static_cast<std::int64_t>(numbers.element_size());
  const auto a_byte = small.type == quant::SmallFloat::E2M1 ? 2 : 1;
  const auto* from = codes.const_data_ptr<std::uint8_t>();
  const auto* by = factors.const_data_ptr<float>();
  auto* to = static_cast<char*>(numbers.mutable_data_ptr());
  const auto start = bench::now_s();
  device::parallel_for(0, numbers.numel() / piece, 1, [&](std::int64_t begin, std::int64_t end) {
    const auto first = begin * piece, count = (end - begin) * piece;
    quant::decode_small_floats({.type = small.type,
                                .kind = numbers.scalar_type() == at::kFloat
                                            ? quant::NumberKind::Float
                                            : quant::NumberKind::BFloat,
                                .from = from + first / a_byte,
                                .to = to + first * size,
                                .count = count,
                                .factors = by + (small.run ? first / small.run : 0),
                                .run = small.run ? small.run : count,
                                .past_caches = past_caches(numbers)});
  });
  return bench::now_s() - start;
}

/// Gigabytes of numbers a second, the best of several rounds that take turns with copies.
struct Speed {
  double decode = 0, copy = 0;
};

template <class Decode>
Speed speed_of(at::ScalarType dtype, std::int64_t numbers, const Decode& decode) {
  auto from = at::ones({numbers}, dtype), to = at::empty_like(from);
  const auto size = static_cast<double>(from.nbytes());
  Speed best;
  for (int round = 0; round < kRounds; ++round) {
    best.copy = std::max(best.copy, size / copy_seconds(from, to));
    best.decode = std::max(best.decode, size / decode(to));
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr double giga = 1e9;
  setenv("THP_MEM_ALLOC_ENABLE", "1", 0);  // torch's own switch
  const auto bytes = std::stoll(bench::option(argc, argv, "--mb", "256")) << 20;
  bench::Results results("decode", bench::out_folder(argc, argv));
  fmt::print("{} threads; peer: a copy of the numbers\n", at::get_num_threads());
  bench::Results::head();
  for (auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto wanted = bytes / static_cast<std::int64_t>(c10::elementSize(dtype));
    auto add = [&](const std::string& name, const Speed& speed) {
      results.add(fmt::format("{} to {}", name, c10::toString(dtype)), speed.decode / giga,
                  speed.copy / giga, "GB/s");
    };
    for (const auto& type : formats::block_types()) {
      if (type.plain) continue;
      const auto blocks = wanted / type.elements;
      const auto packed = at::randint(0, 256, {blocks * type.bytes}, at::kByte);
      add(type.name, speed_of(dtype, blocks * type.elements, [&](const at::Tensor& to) {
            return decode_seconds(type, packed, to);
          }));
    }
    for (const auto& small : kSmall) {
      const auto codes = at::randint(0, 256, {wanted}, at::kByte);
      const auto factors = at::ones({small.run ? wanted / small.run : 1});
      add(small.name, speed_of(dtype, wanted, [&](const at::Tensor& to) {
            return decode_seconds(small, codes, factors, to);
          }));
    }
  }
  results.write();
  return 0;
}
