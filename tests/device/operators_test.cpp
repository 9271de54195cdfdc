#include "distorch/device/operators.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include "tests/support/devices.h"

using namespace distorch;

namespace {

using at::Tensor;

// [rows, inner] x [inner] -> [rows], by hand.
Tensor weighted(const Tensor& x, at::TensorList parts, double scale) {
  return (x * parts[0]).sum(-1).mul(scale);
}
Tensor weighted_shape(const Tensor& x, at::TensorList, double) {
  return at::empty({x.size(0)}, x.options());
}
KernelWork weighted_cost(c10::ArrayRef<c10::IValue> arguments) {
  const auto x = arguments[0].toTensor();
  return {.kind = KernelKind::Matmul,
          .bytes = 1e6,
          .flops = 2.0 * static_cast<double>(x.numel()) * arguments[2].toDouble(),
          .depth = static_cast<double>(x.size(1))};
}

// Bytes.
std::int64_t weighted_scratch(c10::ArrayRef<c10::IValue> arguments) {
  return (std::int64_t{1} << 20) * arguments[0].toTensor().size(0);
}

const auto& weighted_op() {
  static const auto op =
      device::define({.schema = "test_weighted(Tensor x, Tensor[] parts, float scale) -> Tensor",
                      .cpu = torch::CppFunction(&weighted),
                      .meta = torch::CppFunction(&weighted_shape),
                      .cost = weighted_cost,
                      .scratch = weighted_scratch})
          .typed<Tensor(const Tensor&, at::TensorList, double)>();
  return op;
}

Tensor call(const Tensor& x, const Tensor& part) {
  return weighted_op().call(x, std::vector<Tensor>{part}, 3.0);
}

}  // namespace

TEST_CASE("operators: one definition serves the CPU, the simulator, dry runs and shapes") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(1));
  const c10::Device device(c10::DeviceType::PrivateUse1, 0);
  auto x = at::arange(6).view({2, 3}).to(at::kFloat), part = at::ones({3});
  const auto wanted = at::tensor({9.0f, 36.0f});
  CHECK(at::equal(call(x, part), wanted));
  sim::trace(true);
  auto there = x.to(device), part_there = part.to(device);
  auto y = call(there, part_there);
  CHECK(at::equal(y.cpu(), wanted));
  CHECK(call(x.to(at::kMeta), part.to(at::kMeta)).sizes() == at::IntArrayRef{2});
  CHECK_THROWS_WITH(call(there, part), doctest::Contains("same device"));
  sim::finish();
  std::optional<KernelWork> priced;
  for (const auto& interval : sim::intervals())
    if (interval.name == "distorch::test_weighted") priced = interval.kernel;
  REQUIRE(priced);
  CHECK(*priced == KernelWork{.kind = KernelKind::Matmul,
                              .dtype = "float32",
                              .bytes = 1e6 + (6 + 3 + 2) * 4,
                              .flops = 36,
                              .depth = 3});
  sim::DryScope dry;
  auto shape = call(at::empty({5, 3}, there.options()), at::empty({3}, there.options()));
  CHECK(shape.sizes() == at::IntArrayRef{5});
  CHECK(shape.device() == device);
}

TEST_CASE("operators: what one holds while it runs counts in the peak, and only there") {
  c10::InferenceMode inference;
  sim::DryScope dry;
  const c10::Device device(c10::DeviceType::PrivateUse1, 0);
  auto x = at::empty({5, 3}, at::TensorOptions().device(device)),
       part = at::empty({3}, x.options());
  sim::finish();
  const auto before = sim::memory(0).in_use;
  sim::reset_peak(0);
  auto y = call(x, part);
  sim::finish();
  CHECK(sim::memory(0).peak - sim::memory(0).in_use == 5 << 20);
  CHECK(sim::memory(0).in_use - before < 1 << 20);
}

TEST_CASE("operators: torch's own have no cost of ours") {
  weighted_op();
  CHECK((device::operator_cost("distorch::test_weighted") == weighted_cost));
  CHECK((device::operator_cost("aten::add") == nullptr));
  CHECK((device::operator_scratch("distorch::test_weighted") == weighted_scratch));
  CHECK((device::operator_scratch("aten::add") == nullptr));
}
