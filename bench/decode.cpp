// How fast packed weights become numbers on the CPU: bytes of numbers a second for every type of GGUF
// blocks, beside a copy of as many bytes in the same run, with all threads.
//   bench_decode [--out FOLDER] [--mb MEGABYTES OF NUMBERS]
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstring>

#include "bench/bench.h"
#include "distorch/formats/gguf_types.h"
#include "distorch/quant/gguf_decode.h"

namespace {

using namespace distorch;

constexpr int kRounds = 7;

/// Copies with all threads, as decoding writes: seconds.
double copy_seconds(const at::Tensor& from, const at::Tensor& to) {
  const auto* source = static_cast<const char*>(from.const_data_ptr());
  auto* target = static_cast<char*>(to.mutable_data_ptr());
  const auto start = bench::now_s();
  at::parallel_for(0, static_cast<std::int64_t>(from.nbytes()), 1 << 20,
                   [&](std::int64_t begin, std::int64_t end) {
                     std::memcpy(target + begin, source + begin,
                                 static_cast<std::size_t>(end - begin));
                   });
  return bench::now_s() - start;
}

/// Gigabytes of numbers a second, the best of several rounds that take turns with copies.
struct Speed {
  double decode = 0, copy = 0;
};

Speed speed_of(const formats::BlockType& type, at::ScalarType dtype, std::int64_t bytes) {
  const auto element = static_cast<std::int64_t>(c10::elementSize(dtype));
  const auto blocks = bytes / element / type.elements;
  auto packed = at::randint(0, 256, {blocks * type.bytes}, at::kByte);
  auto from = at::ones({blocks * type.elements}, dtype), to = at::empty_like(from);
  const auto size = static_cast<double>(from.nbytes());
  Speed best;
  for (int round = 0; round < kRounds; ++round) {
    best.copy = std::max(best.copy, size / copy_seconds(from, to));
    const auto start = bench::now_s();
    auto numbers = quant::decode_blocks(packed, static_cast<int>(type.id), dtype);
    best.decode = std::max(best.decode, size / (bench::now_s() - start));
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr double giga = 1e9;
  const auto bytes = std::stoll(bench::option(argc, argv, "--mb", "256")) << 20;
  bench::Results results("decode", bench::out_folder(argc, argv));
  fmt::print("{} threads; peer: a copy of the numbers\n", at::get_num_threads());
  bench::Results::head();
  for (auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto& type : formats::block_types()) {
      if (type.plain) continue;
      const auto speed = speed_of(type, dtype, bytes);
      results.add(fmt::format("{} to {}", type.name, c10::toString(dtype)), speed.decode / giga,
                  speed.copy / giga, "GB/s");
    }
  results.write();
  return 0;
}
