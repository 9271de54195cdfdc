// Linear layers of FLUX's shapes in every form of weights: right, and how long beside bfloat16's.
//   bench_gpu_packed_products [--form fp8] [--device cuda:0] [--out FOLDER] [--kernels 1] [--tiny 1]
// Form "decodes" is every type of GGUF blocks, decoded alone.
// One form, or all one after the other: a form that fails is told and does not stop the others; one
// that spoils the device does, so that run_all.sh starts a process a form. Exit code 1: something
// failed.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <fstream>

#include "bench/gpu/harness.h"
#include "bench/gpu/kernels.h"
#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/formats/gguf_types.h"
#include "distorch/quant/bf16_planes.h"
#include "distorch/quant/fp8.h"
#include "distorch/quant/fp8_operators.h"
#include "distorch/quant/gguf.h"
#include "distorch/quant/gguf_decode.h"
#include "distorch/quant/quantize.h"
#include "distorch/quant/scaled_inputs.h"

namespace {

using namespace distorch;
using namespace distorch::bench;
using at::Tensor;
using quant::Packed;

/// A layer, for how many rows of inputs it is called, and how often in a step at 1024 x 1024.
struct Layer {
  std::int64_t out = 0, in = 0;
  std::vector<std::pair<std::int64_t, int>> calls;  // rows, times
};
const std::vector<Layer>& flux_layers() {
  static const std::vector<Layer> list = {{9216, 3072, {{4096, 19}, {512, 19}, {1, 38}}},
                                          {3072, 3072, {{4096, 19}, {512, 19}}},
                                          {12288, 3072, {{4096, 19}, {512, 19}}},
                                          {3072, 12288, {{4096, 19}, {512, 19}}},
                                          {21504, 3072, {{4608, 38}}},
                                          {3072, 15360, {{4608, 38}}},
                                          {18432, 3072, {{1, 38}}}};
  return list;
}
/// Nothing of FLUX: a matrix that is decoded in parts, which are written into columns.
const Layer kInParts{43008, 3072, {{4608, 0}}};

/// A form of weights, made of float32 numbers on the device.
struct Form {
  std::string name;
  std::function<Packed(const Tensor&)> make;
  bool eight_bit_inputs = false;  // where the device has products of 8-bit numbers
};

Packed float8(const Tensor& w, double input_scale) {
  auto packed = quant::to_float8(w.cpu(), at::kFloat8_e4m3fn);
  if (input_scale != 0) packed.parts[1] = at::full({}, input_scale);
  return packed;
}

Packed float8_as(const quant::Encoding& encoding, Packed packed) {
  packed.encoding = &encoding;
  return packed;
}

/// Each row by its own scale.
Packed float8_by_row(const Tensor& w) {
  auto scale = w.abs().amax({1}, true) / 448;
  return {&quant::float8_e4m3fn(),
          (w / scale).to(at::kFloat8_e4m3fn),
          {scale, Tensor()},
          w.sizes().vec()};
}

/// As weight_dtype "fp8_e4m3fn_fast" keeps plain numbers.
Packed float8_plain(const Tensor& w) {
  return {&quant::float8_e4m3fn(), w.to(at::kFloat8_e4m3fn), {Tensor(), Tensor()}, w.sizes().vec()};
}

/// Random blocks of GGUF's with scales of a size that makes numbers like the weights'.
Packed blocks(const char* name, const Tensor& w, std::int64_t bytes, std::int64_t numbers,
              std::vector<std::pair<std::int64_t, double>> scales) {
  const auto rows = w.size(0), each = w.size(1) / numbers;
  auto values = at::randint(0, 256, {rows, each, bytes}, w.options().dtype(at::kByte));
  for (auto [place, scale] : scales) {
    auto half = at::full({1}, scale, w.options().dtype(at::kHalf)).view(at::kByte);
    values.narrow(2, place, 2).copy_(half.expand({rows, each, 2}));
  }
  return {quant::encoding_named(name), values.view({rows, -1}), {}, w.sizes().vec()};
}

std::vector<Form> forms() {
  return {
      {"fp8", [](const Tensor& w) { return float8(w, 0); }, true},
      {"fp8_input_scale", [](const Tensor& w) { return float8(w, 0.01); }, true},
      {"fp8_fast", float8_plain, true},
      {"fp8_decoded",
       [](const Tensor& w) { return float8_as(quant::float8_e4m3fn_decoded(), float8(w, 0)); }},
      {"fp8_by_row", float8_by_row},
      {"e5m2", [](const Tensor& w) { return quant::to_float8(w.cpu(), at::kFloat8_e5m2); }},
      {"Q8_0", [](const Tensor& w) { return blocks("Q8_0", w, 34, 32, {{0, 2.5e-4}}); }},
      {"Q4_K",
       [](const Tensor& w) { return blocks("Q4_K", w, 144, 256, {{0, 1.2e-4}, {2, 9e-4}}); }},
      {"packed",
       [](const Tensor& w) {
         auto packed = quant::pack_bf16(w.to(at::kBFloat16).cpu());
         if (!packed) throw Error(ErrorKind::Internal, "packed", "bf16 weights were not worth it");
         return *packed;
       }},
      {"nvfp4", [](const Tensor& w) { return quant::to_nvfp4(w.cpu()); }},
      {"mxfp8", [](const Tensor& w) { return quant::to_mxfp8(w.cpu()); }},
      {"int8", [](const Tensor& w) { return quant::to_int8(w.cpu(), true, 0); }},
      {"int8_convrot", [](const Tensor& w) { return quant::to_int8(w.cpu(), true, 256); }},
  };
}

Tensor call(const Packed& weight, const Tensor& x, const Tensor& bias) {
  auto y = weight.encoding->product(x, weight, bias);
  return y.defined() ? y : quant::linear(x, weight, bias);
}

double difference(const Tensor& got, const Tensor& wanted) {
  const auto a = got.to(at::kFloat), b = wanted.to(at::kFloat);
  return ((a - b).norm() / b.norm()).item<double>();
}

class Failures {
 public:
  void check(const std::string& what, double got, double most) {
    const bool right = got <= most;  // not NaN either
    if (!right) ++count_;
    fmt::print("{:<6} {:<58} {:>10.3g} (<= {:.3g})\n", right ? "ok" : "WRONG", what, got, most);
    std::fflush(stdout);
  }
  void check_same(const std::string& what, const Tensor& got, const Tensor& wanted) {
    const auto a = got.cpu().to(at::kFloat), b = wanted.cpu().to(at::kFloat);
    const auto different = at::logical_not(a.eq(b).logical_or(a.isnan().logical_and(b.isnan())));
    check(what + ": numbers that differ", static_cast<double>(different.sum().item<std::int64_t>()),
          0);
  }
  void fail(const std::string& what, const std::string& why) {
    ++count_;
    fmt::print("FAILED {}: {}\n", what, why.substr(0, why.find('\n')));
    std::fflush(stdout);
  }
  int count() const { return count_; }

 private:
  int count_ = 0;
};

/// Kernels for numbers of 8 bits against the CPU's: all codes, all halves.
void check_eight_bits(c10::Device device, Failures& failures) {
  const auto codes = at::arange(256, at::kByte).repeat({3}).view({3, 256});
  const auto scales = at::tensor({0.7f, 3e-4f, 1.0f}).view({3, 1});
  for (bool wide : {false, true})
    for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16})
      for (const auto& scale : {Tensor(), scales.narrow(0, 1, 1), scales})
        failures.check_same(
            fmt::format("decode {} to {}", wide ? "e5m2" : "e4m3", c10::toString(dtype)),
            quant::decode_float8(codes.to(device), scale.defined() ? scale.to(device) : scale, wide,
                                 dtype),
            quant::decode_float8(codes, scale, wide, dtype));
  const auto bits = at::arange(65536, at::kInt).to(at::kShort);
  for (auto dtype : {at::kHalf, at::kBFloat16})
    for (const auto& scale : {Tensor(), at::full({}, 0.37)}) {
      const auto x = bits.view(dtype);
      const auto there = scale.defined() ? scale.to(device) : scale;
      failures.check_same(
          fmt::format("encode {}{}", c10::toString(dtype), scale.defined() ? " by a scale" : ""),
          quant::to_float8(x.to(device), there).first, quant::to_float8(x, scale).first);
    }
}

/// Inputs of block-scaled products against the CPU's.
void check_blocks(c10::Device device, Failures& failures) {
  const auto wide = at::randn({40, 1}).mul(6).exp();
  for (auto dtype : {at::kHalf, at::kBFloat16})
    for (const auto& whole : {Tensor(), at::full({1}, 0.01)}) {
      auto x = (at::randn({40, 320}) * wide.clamp_max(500)).to(dtype);
      x.narrow(1, 32, 64).zero_();
      const auto there = whole.defined() ? whole.to(device) : whole;
      const auto got = quant::scaled_inputs(x.to(device), there),
                 wanted = quant::scaled_inputs(x, whole);
      const auto name =
          fmt::format("inputs {} as {}", c10::toString(dtype), whole.defined() ? "nvfp4" : "mxfp8");
      failures.check_same(name, got.values.view(at::kByte), wanted.values.view(at::kByte));
      failures.check_same(name + ", scales", got.scales.view(at::kByte),
                          wanted.scales.view(at::kByte));
    }
  for (bool four : {false, true})
    fmt::print("products of {}: {}\n", four ? "nvfp4" : "mxfp8",
               quant::has_block_products(device, four) ? "yes" : "no");
}

/// What one form is measured with.
class Measured {
 public:
  Measured(const Form& form, c10::Device device, const Args& args, Failures& failures)
      : form_(form),
        device_(device),
        tiny_(args.number("--tiny", 0) > 0),
        kernels_(args.number("--kernels", 0) > 0),
        folder_(args.get("--out", ".")),
        results_(folder_ / ("products_" + form.name + ".json")),
        failures_(failures) {}

  void run() {
    for (auto layer : flux_layers()) measure(layer);
    results_.add(form_.name + ": products of a FLUX step", 1e3 * ours_, 1e3 * theirs_, "ms");
    measure(kInParts);
  }

 private:
  void measure(Layer layer) {
    if (tiny_) layer = {layer.out / 16 / 32 * 32, layer.in / 12, {{24, layer.calls[0].second}}};
    const auto options = at::TensorOptions().device(device_).dtype(at::kFloat);
    const auto w = at::randn({layer.out, layer.in}, options) * 0.02;
    const auto plain = w.to(at::kBFloat16),
               bias = at::randn({layer.out}, options).to(at::kBFloat16);
    const auto packed = form_.make(w).to(device_);
    check_decode(packed, layer);
    for (auto [rows, times] : layer.calls) {
      const auto x = at::randn({1, rows, layer.in}, options).to(at::kBFloat16);
      check_product(packed, x, bias, layer, rows);
      const auto seconds = time([&] { call(packed, x, bias); });
      const auto dense = time([&] { at::linear(x, plain, bias); });
      ours_ += times * seconds;
      theirs_ += times * dense;
      results_.add(fmt::format("{} {}x{} rows {}", form_.name, layer.out, layer.in, rows),
                   1e3 * seconds, 1e3 * dense, "ms");
      if (rows == layer.calls[0].first) parts(packed, x, layer, rows);
    }
  }

  /// What a call consists of, for layers with many rows.
  void parts(const Packed& packed, const Tensor& x, const Layer& layer, std::int64_t rows) {
    const auto name = fmt::format("{} {}x{}", form_.name, layer.out, layer.in);
    const auto bytes = static_cast<double>(packed.values.nbytes()) + 2.0 * layer.out * layer.in;
    const auto decoding = time([&] { quant::decode(packed, at::kBFloat16); });
    results_.add(name + " decode, GB/s (to 1000)", 1e-9 * bytes / decoding, 1000, "GB/s");
    if (form_.eight_bit_inputs && quant::has_products(device_)) {
      const auto scale = packed.parts[1];
      const auto encode = time([&] { quant::to_float8(x, scale); });
      results_.add(name + " inputs to 8 bits, GB/s (to 1000)",
                   3e-9 * static_cast<double>(x.numel()) / encode, 1000, "GB/s");
      const auto [values, used] = quant::to_float8(x.view({rows, -1}), scale);
      Tensor sums[2];
      double bare[2] = {0, 0};
      for (bool fast : {false, true}) {
        auto multiply = [&] {
          return at::_scaled_mm(values, packed.values.t(), used, used, {}, {}, at::kBFloat16, fast);
        };
        sums[fast] = multiply();
        bare[fast] = time(multiply);
      }
      results_.add(name + " bare product, fast sums / exact", 1e3 * bare[1], 1e3 * bare[0], "ms",
                   {{"difference", difference(sums[1], sums[0])}});
      fmt::print("       fast sums differ by {:.3g}\n", difference(sums[1], sums[0]));
    }
    if (kernels_ && device_.is_cuda() && layer.out > 20000) print_kernels(packed, x);
  }

  void print_kernels(const Packed& packed, const Tensor& x) {
    const auto path = folder_ / ("kernels_products_" + form_.name + ".json");
    const auto bias = at::zeros({packed.shape[0]}, x.options());
    write_kernels(path, 3, [&] { call(packed, x, bias); });
    std::ifstream file(path);
    const auto list = Json::parse(file);
    for (std::size_t i = 0; i < std::min<std::size_t>(list.size(), 6); ++i)
      fmt::print("       {:>8.4f} ms x {:<4.3g} {}\n", 1e3 * list[i]["seconds"].get<double>(),
                 list[i]["calls"].get<double>(), list[i]["name"].get<std::string>().substr(0, 110));
  }

  /// Some rows on the device are those on the CPU, to the bit where the kernels say so.
  void check_decode(const Packed& packed, const Layer& layer) {
    const auto some = packed.rows(layer.out / 3, 48);
    const bool rotated = form_.name == "int8_convrot";
    for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
      const auto got = quant::decode(some, dtype), wanted = quant::decode(some.to(at::kCPU), dtype);
      const auto what = fmt::format("{} {}x{} decode to {}", form_.name, layer.out, layer.in,
                                    c10::toString(dtype));
      if (rotated)
        failures_.check(what, difference(got.cpu(), wanted), 1e-2);
      else
        failures_.check_same(what, got, wanted);
    }
  }

  /// Against the decoded weight and the inputs as the product takes them, in float32.
  void check_product(const Packed& packed, const Tensor& x, const Tensor& bias, const Layer& layer,
                     std::int64_t rows) {
    const auto count = std::min<std::int64_t>(rows, 256);
    const auto first = (rows - count) / 2;
    const auto inputs = x[0].narrow(0, first, count).to(at::kFloat);
    auto taken = inputs;
    const bool eight = form_.eight_bit_inputs && quant::has_products(device_);
    if (eight) {
      const auto [values, used] = quant::to_float8(x[0].narrow(0, first, count), packed.parts[1]);
      taken = values.to(at::kFloat) * used;
    }
    const auto weight = quant::decode(packed, at::kFloat);
    const auto got = call(packed, x, bias)[0].narrow(0, first, count);
    const auto what = fmt::format("{} {}x{} rows {}", form_.name, layer.out, layer.in, rows);
    const bool whole = form_.name.starts_with("int8");  // rounds the inputs by itself
    failures_.check(what, difference(got, at::linear(taken, weight, bias.to(at::kFloat))),
                    whole ? 2e-2 : 6e-3);
    if (eight)
      failures_.check(what + ", inputs as they are",
                      difference(got, at::linear(inputs, weight, bias.to(at::kFloat))), 6e-2);
  }

  double time(const std::function<void()>& work) const {
    return time_calls(device_, {.warm_ups = 3, .calls = tiny_ ? 1 : 10, .rounds = tiny_ ? 1 : 5},
                      work);
  }

  const Form& form_;
  c10::Device device_;
  bool tiny_, kernels_;
  std::filesystem::path folder_;
  Results results_;
  Failures& failures_;
  double ours_ = 0, theirs_ = 0;  // seconds of a step
};

/// How fast each type of GGUF blocks is decoded into bfloat16 (as plain numbers and as ComfyUI-GGUF computes them), beside a
/// copy of as many bytes within the device.
void measure_decodes(c10::Device device, const Args& args, Failures& failures) {
  const bool tiny = args.number("--tiny", 0) > 0;
  const std::int64_t count = tiny ? 256 * 32 : 21504 * 3072;
  Results results(std::filesystem::path(args.get("--out", ".")) / "products_decodes.json");
  const auto source = at::empty({2 * count}, at::TensorOptions().device(device).dtype(at::kByte));
  auto target = at::empty_like(source);
  const Rounds often{.warm_ups = 3, .calls = tiny ? 1 : 10, .rounds = tiny ? 1 : 5};
  const auto copy = 4.0 * count / time_calls(device, often, [&] { target.copy_(source); });
  for (const auto* encoding : quant::gguf_encodings()) {
    const auto* type = formats::block_type_named(encoding->name());
    const auto total = count / type->elements * type->bytes;
    auto values = at::randint(0, 256, {total}, source.options());
    const auto some = values.narrow(0, 16 * type->bytes, 64 * type->bytes);
    const auto id = static_cast<int>(type->id);
    for (bool half : {false, true}) {
      const auto* form = half ? quant::gguf_in_half(encoding) : encoding;
      if (!form) continue;
      const Packed packed{form, values, {}, {count}};
      const auto what = fmt::format("{}{}", type->name, half ? " in half" : "");
      if (!half)
        failures.check_same(what, quant::decode_blocks(some, id, at::kBFloat16),
                            quant::decode_blocks(some.cpu(), id, at::kBFloat16));
      const auto seconds = time_calls(device, often, [&] { quant::decode(packed, at::kBFloat16); });
      results.add(what + " decode, GB/s beside a copy's",
                  1e-9 * (static_cast<double>(total) + 2.0 * count) / seconds, 1e-9 * copy, "GB/s");
    }
  }
}

int run(const Args& args) {
  const auto device = device::to_torch(args.get("--device", "cuda:0"));
  device::list_devices();  // loads torch's CUDA half
  at::globalContext().setAllowTF32CuBLAS(false);
  Failures failures;
  const auto only = args.get("--form");
  if (only.empty() || only == "fp8") check_eight_bits(device, failures);
  if (only.empty() || only == "nvfp4") check_blocks(device, failures);
  bool known = only == "decodes";
  if (known) measure_decodes(device, args, failures);
  for (const auto& form : forms()) {
    if (!only.empty() && form.name != only) continue;
    known = true;
    try {
      Measured(form, device, args, failures).run();
    } catch (const std::exception& error) {
      failures.fail(form.name, error.what());
    }
  }
  if (!known) throw Error(ErrorKind::Usage, "--form", fmt::format("'{}' is none", only));
  fmt::print("{}: {} wrong\n", only.empty() ? "all forms" : only, failures.count());
  return failures.count() ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  return distorch::bench::run_program("packed_products", argc, argv, run);
}
