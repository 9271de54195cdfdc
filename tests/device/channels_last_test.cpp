#include "distorch/device/channels_last.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/device/memory.h"
#include "distorch/device/streams.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::device;

namespace {

constexpr auto layout = at::MemoryFormat::ChannelsLast;

at::Tensor random(at::IntArrayRef shape, at::ScalarType dtype) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
  return at::randn(shape, generator).to(dtype);
}

/// A tensor of the device whose memory begins `offset` values after an aligned address.
at::Tensor placed(const at::Tensor& values, c10::Device device, std::int64_t offset) {
  auto room = at::empty({values.numel() + offset}, values.options().device(device));
  auto weight = room.narrow(0, offset, values.numel()).view(values.sizes());
  weight.copy_(values);
  return weight;
}

}  // namespace

TEST_CASE("any device: convolution weights laid out in place hold the same values") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  const std::vector<std::vector<std::int64_t>> shapes = {
      {8, 16, 3, 3},    {320, 4, 3, 3},  {5, 7, 3, 3}, {4, 32, 5, 5},
      {3, 6, 2, 4},     {2, 2560, 3, 3},  // a filter that float32 needs more than 48 KiB for
      {2, 20000, 3, 3},                   // one that no multiprocessor's memory holds
      {16, 8, 1, 1},    {1, 1, 3, 3},    {2, 3, 7, 7}};
  for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16, at::kByte, at::kDouble})
    for (const auto& shape : shapes)
      for (std::int64_t offset : {0, 1, 8}) {
        CAPTURE(shape);
        CAPTURE(offset);
        auto values = random(shape, at::kFloat).mul(40).abs().to(dtype);
        auto weight = placed(values, device, offset);
        to_channels_last_in_place(weight, current_stream(device));
        auto laid = as_channels_last(weight);
        CHECK(laid.const_data_ptr() == weight.const_data_ptr());
        CHECK(laid.is_contiguous(layout));
        CHECK(at::equal(laid.cpu(), values));
      }
}

TEST_CASE("any device: laying out follows its stream, and takes no memory where it is a kernel") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  auto values = random({64, 128, 3, 3}, at::kFloat);
  auto stream = new_stream(device);
  auto weight = placed(values, device, 0);
  synchronize(device);
  empty_cache(device);
  reset_peak(device);
  const auto before = memory_use(device).in_use;
  Event done(device);
  to_channels_last_in_place(weight, stream);
  done.record(stream);
  done.block(current_stream(device));
  CHECK(memory_use(device).peak == before);
  CHECK(at::equal(as_channels_last(weight).cpu(), values));
  synchronize(device);
}

TEST_CASE("channels last: only whole convolution weights are laid out") {
  auto weight = at::zeros({4, 4, 3, 3});
  const auto stream = current_stream(at::kCPU);
  CHECK_THROWS_AS(to_channels_last_in_place(weight.transpose(0, 1), stream), Error);
  CHECK_THROWS_AS(to_channels_last_in_place(weight.view({4, 36}), stream), Error);
  auto values = random({6, 5, 3, 3}, at::kFloat);
  auto here = values.clone();
  to_channels_last_in_place(here, stream);
  CHECK(at::equal(as_channels_last(here), values));
}

TEST_CASE("channels last: the simulator reads and writes every value once") {
  c10::InferenceMode inference;
  sim::DryScope dry(test::small_rig(1));
  const c10::Device device(c10::DeviceType::PrivateUse1, 0);
  auto weight = at::empty({64, 32, 3, 3}, at::TensorOptions().device(device));
  const auto before = sim::memory(0).allocations;
  sim::trace(true);
  to_channels_last_in_place(weight, new_stream(device));
  sim::finish();
  const auto work = sim::intervals();
  REQUIRE(work.size() == 1);
  CHECK(work[0].name == "distorch::to_channels_last_");
  CHECK(work[0].bytes == 2 * static_cast<std::int64_t>(weight.nbytes()));
  CHECK(sim::memory(0).allocations == before);
}
