#include "distorch/quant/fp8_operators.h"

#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>

#include "distorch/device/cuda/numbers.h"
#include "distorch/quant/fp8_cuda.h"
#include "tests/support/devices.h"

using namespace distorch;
using at::Tensor;

namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kHalf, at::kBFloat16};

/// Every code in each of three rows.
Tensor codes() { return at::arange(256, at::kByte).repeat({3}).view({3, 256}); }

std::vector<Tensor> scales() {
  auto rows = at::tensor({0.7f, 3e-4f, 1.0f}).view({3, 1});
  return {Tensor(), rows.narrow(0, 1, 1), at::full({}, 250.0f).to(at::kHalf), rows};
}

/// By torch's own two operations.
Tensor by_torch(const Tensor& bytes, const Tensor& scale, bool wide, at::ScalarType dtype) {
  auto numbers = bytes.view(wide ? at::kFloat8_e5m2 : at::kFloat8_e4m3fn).to(dtype);
  return scale.defined() ? numbers.mul_(scale.to(dtype)) : numbers;
}

/// Equal bits, but for those of NaN.
bool same(const Tensor& got, const Tensor& wanted) {
  auto bits = [](const Tensor& t) {
    auto numbers = at::where(t.isnan(), at::zeros_like(t), t).contiguous();
    return numbers.view(t.element_size() == 4 ? at::kInt : at::kShort);
  };
  return got.scalar_type() == wanted.scalar_type() && at::equal(got.isnan(), wanted.isnan()) &&
         at::equal(bits(got), bits(wanted));
}

}  // namespace

TEST_CASE("float8: every code is decoded to the bits of torch's two operations") {
  for (bool wide : {false, true})
    for (auto dtype : kTypes)
      for (const auto& scale : scales()) {
        CAPTURE(wide);
        CAPTURE(c10::toString(dtype));
        CHECK(same(quant::decode_float8(codes(), scale, wide, dtype),
                   by_torch(codes(), scale, wide, dtype)));
      }
  // Rows of kernels, other lengths than vectors have, a type that no loop writes, nothing.
  auto generator = at::make_generator<at::CPUGeneratorImpl>(3);
  auto kernels = at::randint(0, 0x78, {5, 7, 3, 3}, generator, at::kByte);
  auto by_row = at::rand({5}, generator);
  CHECK(same(quant::decode_float8(kernels, by_row, false, at::kFloat),
             by_torch(kernels, by_row.view({5, 1, 1, 1}), false, at::kFloat)));
  CHECK(at::equal(quant::decode_float8(codes().narrow(1, 0, 120), by_row[0], false, at::kDouble),
                  by_torch(codes().narrow(1, 0, 120).contiguous(), by_row[0], false, at::kDouble)));
  auto nothing = quant::decode_float8(codes().narrow(0, 0, 0), {}, true, at::kHalf);
  CHECK((nothing.sizes() == at::IntArrayRef{0, 256}));
}

TEST_CASE("float8: plain values are cast as torch casts them") {
  for (auto small : {at::kFloat8_e4m3fn, at::kFloat8_e5m2})
    for (auto dtype : kTypes) {
      auto values = codes().view(small);
      CHECK(same(quant::numbers_in(values, dtype), values.to(dtype)));
      CHECK(same(quant::numbers_in(values.t(), dtype), values.t().to(dtype)));
      CHECK(same(quant::numbers_in(values[1][7], dtype), values[1][7].to(dtype)));
    }
  auto wide = at::arange(5, at::kFloat);
  CHECK(same(quant::numbers_in(wide, at::kHalf), wide.to(at::kHalf)));
}

TEST_CASE("float8: inputs are divided by the scale, kept within 448 and rounded to even") {
  auto x = at::tensor({0.0f, 1.0f, -17.0f, 500.0f, -1e9f, 464.0f, 1.0f / 1024, 3.0f / 1024, 1e-9f,
                       std::numeric_limits<float>::infinity()});
  auto wanted =
      at::tensor({0.0f, 1.0f, -16.0f, 448.0f, -448.0f, 448.0f, 0.0f, 4.0f / 1024, 0.0f, 448.0f});
  auto [values, used] = quant::to_float8(x, {});
  CHECK((values.scalar_type() == at::kFloat8_e4m3fn));
  CHECK(at::equal(values.to(at::kFloat), wanted));
  CHECK(at::equal(used, at::ones({1})));
  auto halved = quant::to_float8(x * 2, at::full({}, 2.0f).to(at::kBFloat16));
  CHECK(at::equal(halved.first.to(at::kFloat), wanted));
  CHECK(at::equal(halved.second, at::full({1}, 2.0f)));
  auto strange = at::full({1}, std::numeric_limits<float>::quiet_NaN());
  CHECK(quant::to_float8(strange, {}).first.to(at::kFloat).isnan().all().item<bool>());
}

TEST_CASE("any device: numbers of 8 bits become and are made as on the CPU, to the bit") {
  const auto device = test::test_device();
  auto there = [&](const Tensor& t) { return t.defined() ? t.to(device) : t; };
  for (const auto& bytes : {codes(), codes().narrow(1, 0, 255).contiguous(), codes().flatten()})
    for (bool wide : {false, true})
      for (auto dtype : kTypes)
        for (const auto& scale : scales()) {
          if (scale.defined() && scale.numel() > 1 && bytes.dim() == 1) continue;
          CAPTURE(wide);
          CAPTURE(c10::toString(dtype));
          CHECK(same(quant::decode_float8(there(bytes), there(scale), wide, dtype).cpu(),
                     quant::decode_float8(bytes, scale, wide, dtype)));
        }
  const auto bits = at::arange(65536, at::kInt).to(at::kShort);
  for (auto dtype : {at::kHalf, at::kBFloat16})
    for (const auto& scale : {Tensor(), at::full({}, 0.37), at::full({1}, 1.0)})
      for (std::int64_t count : {65536, 65535, 40001}) {
        auto x = bits.narrow(0, 65536 - count, count).view(dtype);
        auto got = quant::to_float8(there(x), there(scale)), wanted = quant::to_float8(x, scale);
        CHECK(same(got.first.cpu().to(at::kFloat), wanted.first.to(at::kFloat)));
        CHECK(at::equal(got.second.cpu(), wanted.second));
      }
}

TEST_CASE("CUDA kernels of numbers of 8 bits compile for every architecture and type") {
  if (!device::cuda::has_compiler()) {
    MESSAGE("NVRTC is not there");
    return;
  }
  for (const auto& [source, defines] : quant::cuda::float8_sources())
    for (const char* target : {"sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"})
      for (auto dtype : kTypes) {
        CAPTURE(source->name);
        CAPTURE(target);
        CHECK_NOTHROW(
            device::cuda::try_compile(*source, target, device::cuda::define_of(dtype) + defines));
      }
}
