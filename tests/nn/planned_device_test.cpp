#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include <algorithm>

#include "distorch/device/device.h"
#include "distorch/nn/attention.h"
#include "tests/support/devices.h"

using namespace distorch;

namespace {

const c10::Device kDevice(c10::DeviceType::PrivateUse1, 0);

std::vector<std::string> operations(const std::function<void()>& forward) {
  sim::trace(true);
  forward();
  sim::finish();
  std::vector<std::string> names;
  for (const auto& interval : sim::intervals()) names.push_back(interval.name);
  return names;
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

TEST_CASE("a dry run takes the path of the device that it plans for: attention") {
  c10::InferenceMode inference;
  const auto forward = [] {
    auto q = at::empty({1, 1024, 80}, at::TensorOptions().device(kDevice).dtype(at::kBFloat16));
    CHECK(nn::attention(q, q, q, {.heads = 2}).sizes() == q.sizes());
  };
  {
    sim::DryScope card(test::small_rig(1));
    CHECK_FALSE(device::computes_as_cpu(kDevice));
    CHECK(operations(forward) == std::vector<std::string>{"aten::scaled_dot_product_attention"});
  }
  sim::DryScope cpu(test::small_rig(1), {.plans_cpu = true});
  CHECK(device::computes_as_cpu(kDevice));
  CHECK(device::computes_as_cpu(at::kCPU));
  const auto names = operations(forward);
  CHECK(contains(names, "aten::addmm"));  // slice by slice
  CHECK(contains(names, "aten::_softmax"));
  CHECK_FALSE(contains(names, "aten::scaled_dot_product_attention"));
}
