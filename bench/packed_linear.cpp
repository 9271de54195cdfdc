// A linear layer of FLUX's width on the CPU with packed weights beside the same in bfloat16: seconds a
// call at 1024 and 4096 rows, in turn, the medians.
//   bench_packed_linear [--out FOLDER] [--rounds 7]
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include "bench/bench.h"
#include "distorch/quant/gguf.h"
#include "distorch/quant/gguf_encode.h"
#include "distorch/quant/quantize.h"

namespace {

using namespace distorch;
using quant::Packed;

constexpr std::int64_t in = 3072, out = 3072;

at::Tensor call(const Packed& weight, const at::Tensor& x, const at::Tensor& bias) {
  auto y = weight.encoding->product(x, weight, bias);
  return y.defined() ? y : quant::linear(x, weight, bias);
}

Packed gguf(const at::Tensor& w, const std::string& name, int type) {
  const auto& all = quant::gguf_encodings();
  const auto at = std::ranges::find_if(all, [&](const auto* one) { return one->name() == name; });
  return {*at, quant::encode_blocks(w.flatten(), type).view({w.size(0), -1}), {}, w.sizes().vec()};
}

struct Contestant {
  std::string name;
  Packed weight;
};

}  // namespace

int main(int argc, char** argv) {
  c10::InferenceMode inference;
  const int rounds = std::stoi(bench::option(argc, argv, "--rounds", "7"));
  bench::Results results("packed_linear", bench::out_folder(argc, argv));
  bench::Results::head();
  auto w = at::randn({out, in}) / 55;
  auto plain = w.to(at::kBFloat16), bias = at::randn({out}).to(at::kBFloat16);
  const std::vector<Contestant> contestants = {
      {"Q8_0 (decoded)", gguf(w, "Q8_0", 8)},
      {"Q4_0 (decoded)", gguf(w, "Q4_0", 2)},
      {"Q4_K (decoded)", gguf(w, "Q4_K", 12)},
      {"int8", quant::to_int8(w, true, 0)},
      {"int8 with ConvRot", quant::to_int8(w, true, 256)},
      {"convrot_w4a4", quant::to_convrot_w4a4(w, 256)},
      {"nvfp4 (decoded)", quant::to_nvfp4(w)},
      {"mxfp8 (decoded)", quant::to_mxfp8(w)},
      {"float8_e4m3fn (decoded)", quant::to_float8(w, at::kFloat8_e4m3fn)}};
  for (std::int64_t rows : {1024, 4096}) {
    auto x = at::randn({rows, in}).to(at::kBFloat16);
    for (const auto& contestant : contestants) {
      std::vector<double> ours, theirs;
      for (int round = 0; round <= rounds; ++round) {
        auto start = bench::now_s();
        call(contestant.weight, x, bias);
        const double packed = bench::now_s() - start;
        start = bench::now_s();
        at::linear(x, plain, bias);
        const double dense = bench::now_s() - start;
        if (round == 0) continue;
        ours.push_back(packed);
        theirs.push_back(dense);
      }
      results.add(fmt::format("linear {}x{}, {} rows, {}", in, out, rows, contestant.name),
                  bench::median(ours), bench::median(theirs), "s a call, beside bfloat16",
                  {{"threads", at::get_num_threads()}});
    }
  }
  results.write();
}
