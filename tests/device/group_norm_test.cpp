#include "distorch/device/group_norm.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include "distorch/device/streams.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::device;

namespace {

constexpr auto layout = at::MemoryFormat::ChannelsLast;

struct Case {
  std::int64_t n, channels, height, width, groups;
  double mean = 0.3;
};

double relative(const at::Tensor& got, const at::Tensor& wanted) {
  auto a = got.to(at::kDouble), b = wanted.to(at::kDouble);
  return ((a - b).norm() / b.norm()).item<double>();
}

}  // namespace

TEST_CASE("any device: a group norm of channels-last images, with and without SiLU") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  auto generator = at::make_generator<at::CPUGeneratorImpl>(5);
  const std::vector<Case> cases = {
      {2, 320, 64, 64, 32}, {2, 960, 17, 9, 32},     {1, 2560, 8, 8, 32}, {3, 64, 5, 7, 32},
      {1, 128, 96, 80, 32}, {1, 24, 3, 3, 4},        {2, 12, 6, 6, 6},    {1, 512, 1, 1, 32},
      {1, 512, 31, 33, 2},  {2, 64, 40, 40, 32, 300}};
  for (const auto& c : cases)
    for (auto [dtype, tolerance] :
         {std::pair(at::kFloat, 1e-5), std::pair(at::kHalf, 1e-3), std::pair(at::kBFloat16, 8e-3)})
      for (bool silu : {false, true}) {
        // torch's kernel loses digits where the mean is far from the values' spread; ours does not.
        const bool far = c.mean > 1;
        if (far && (dtype != at::kFloat || !device.is_cuda())) continue;
        CAPTURE(c.channels);
        CAPTURE(c10::toString(dtype));
        CAPTURE(silu);
        auto x = (at::randn({c.n, c.channels, c.height, c.width}, generator) + c.mean).to(dtype);
        auto weight = (at::randn({c.channels}, generator) * 0.5 + 1).to(dtype);
        auto bias = at::randn({c.channels}, generator).to(dtype);
        auto wanted = at::group_norm(x.to(at::kDouble), c.groups, weight.to(at::kDouble),
                                     bias.to(at::kDouble), 1e-5);
        if (silu) wanted = at::silu(wanted);
        auto there = x.contiguous(layout).to(device);
        auto w = weight.to(device), b = bias.to(device);
        const bool own = !device.is_cpu() && c.channels / c.groups % 2 == 0;
        CHECK(has_group_norm_kernel(there, w, b, c.groups) == own);
        auto y = group_norm(there, w, b, {c.groups, 1e-5, silu});
        if (own) CHECK(y.is_contiguous(layout));
        CHECK((y.scalar_type() == dtype));
        CHECK(relative(y.cpu(), wanted) < (far ? 1e-4 : tolerance));
        CHECK(at::equal(group_norm(there, w, b, {c.groups, 1e-5, silu}).cpu(), y.cpu()));
      }
}

TEST_CASE(
    "any device: a group norm is torch's where the kernel of our own is not for the tensors") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  auto x = at::randn({2, 8, 4, 4}).to(device);
  auto weight = at::rand({8}).to(device), none = at::Tensor();
  auto image = x.contiguous(layout);
  const auto check = [&](const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         std::int64_t groups) {
    CHECK(!has_group_norm_kernel(x, weight, bias, groups));
    const auto here = [](const at::Tensor& tensor) {
      return tensor.defined() ? std::optional(tensor.to(at::kCPU, at::kDouble)) : std::nullopt;
    };
    auto wanted = at::silu(at::group_norm(*here(x), groups, here(weight), here(bias)));
    auto y = group_norm(x, weight, bias, {groups, 1e-5, true});
    CHECK(relative(y.cpu(), wanted) < 1e-5);
  };
  check(x, weight, weight, 4);  // not channels-last
  check(image, none, none, 4);
  check(x.view({2, 8, 16}), weight, weight, 4);
  check(image, weight, weight, 8);  // groups of an odd number of channels
  CHECK(!has_group_norm_kernel(image, weight.to(at::kHalf), weight, 4));
  CHECK(!has_group_norm_kernel(image, weight, weight, 3));
  if (!device.is_cpu()) CHECK(has_group_norm_kernel(image, weight, weight, 4));
}

TEST_CASE("group norm: a dry run sees the operator, and none where it plans for a CPU") {
  c10::InferenceMode inference;
  const c10::Device device(c10::DeviceType::PrivateUse1, 0);
  const auto names = [&] {
    auto x = at::empty({1, 64, 16, 16}, at::TensorOptions().device(device).memory_format(layout));
    auto weight = at::empty({64}, x.options().memory_format(std::nullopt));
    sim::trace(true);
    auto y = group_norm(x, weight, weight, {.groups = 32, .silu = true});
    CHECK(y.sizes() == x.sizes());
    CHECK(y.is_contiguous(layout));
    sim::finish();
    std::vector<std::string> names;
    for (const auto& interval : sim::intervals()) names.push_back(interval.name);
    return names;
  };
  {
    sim::DryScope accelerator(test::small_rig(1));
    CHECK(names() == std::vector<std::string>{"distorch::group_norm_silu"});
    // Both passes over the values in one kernel: x in, y out, weight and bias.
    const auto work = *sim::intervals().front().kernel;
    CHECK(work.kind == KernelKind::Normalization);
    CHECK(work.bytes == 2 * 64 * 256 * 4 + 2 * 64 * 4);
  }
  sim::DryScope cpu(test::small_rig(1), {.plans_cpu = true});
  CHECK(names() == std::vector<std::string>{"aten::native_group_norm", "aten::silu"});
}
