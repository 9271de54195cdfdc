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
        auto y = group_norm(there, w, b, {c.groups, 1e-5, silu});
        if (!y.defined()) {
          CHECK(c.channels / c.groups > 128);  // left to torch: groups this wide
          continue;
        }
        CHECK(y.is_contiguous(layout));
        CHECK((y.scalar_type() == dtype));
        CHECK(relative(y.cpu(), wanted) < (far ? 1e-4 : tolerance));
        CHECK(at::equal(group_norm(there, w, b, {c.groups, 1e-5, silu}).cpu(), y.cpu()));
      }
}

TEST_CASE("any device: a group norm is left to torch where its kernel is not for the tensors") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  auto x = at::ones({1, 8, 4, 4}, at::TensorOptions().device(device));
  auto weight = at::ones({8}, x.options());
  CHECK(!group_norm(x, weight, weight, {4}).defined());  // not channels-last
  auto image = x.contiguous(layout);
  CHECK(!group_norm(image, weight.to(at::kHalf), weight, {4}).defined());
  CHECK(!group_norm(image, at::Tensor(), weight, {4}).defined());
  CHECK(!group_norm(image, weight, weight, {3}).defined());
  CHECK(!group_norm(x.view({1, 8, 16}), weight, weight, {4}).defined());
}
