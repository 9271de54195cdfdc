#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/device/registered.h"
#include "distorch/device/sim/timeline.h"
#include "distorch/device/streams.h"
#include "tests/support/devices.h"

using namespace distorch;
using doctest::Approx;

namespace {

constexpr std::int64_t kMB = 1000000;
const c10::Device kFirst(c10::DeviceType::PrivateUse1, 0), kSecond(c10::DeviceType::PrivateUse1, 1);

at::Tensor bytes(c10::Device device, std::int64_t n) {
  return at::empty({n}, at::TensorOptions().dtype(at::kByte).device(device));
}

LinkClock one_link(double bytes_per_s = 10e9, double latency_s = 0, bool duplex = true) {
  LinkSpec link;
  link.from = "cpu";
  link.to = "sim:0";
  link.bytes_per_s = bytes_per_s;
  link.latency_s = latency_s;
  link.full_duplex = duplex;
  return LinkClock({link}, {});
}

}  // namespace

TEST_CASE("timeline: kernels of one device run one at a time, those of two devices together") {
  sim::Timeline t(one_link(), 2);
  const int a = t.add_stream(0, "a"), b = t.add_stream(0, "b"), other = t.add_stream(1, "c");
  t.kernel(a, 1, {});
  t.kernel(b, 2, {});
  t.kernel(other, 2.5, {});
  CHECK(t.host_s() == 0);
  t.finish(a);
  CHECK(t.host_s() == Approx(1));
  t.finish(b);
  CHECK(t.host_s() == Approx(3));
  t.finish(other);
  CHECK(t.host_s() == Approx(3));
  CHECK(t.busy_s(0) == Approx(3));
}

TEST_CASE("timeline: an event orders streams, without it they overlap") {
  for (bool ordered : {false, true}) {
    sim::Timeline t(one_link(), 1);
    const int compute = t.add_stream(0, "compute"), copy = t.add_stream(0, "copy");
    const int route = t.route("cpu", "sim:0");
    t.transfer(copy, route, 10000000000, {});  // 1 s
    auto ready = t.record(copy);
    if (ordered) t.wait(compute, ready);
    t.kernel(compute, 2, {});
    t.finish_all();
    CHECK(t.host_s() == Approx(ordered ? 3 : 2));
    CHECK(ready->at_s == Approx(1));
  }
}

TEST_CASE("timeline: copies take the memory's time from kernels that run meanwhile") {
  for (bool busy : {true, false}) {
    sim::Timeline t(one_link(), 1);
    const int compute = t.add_stream(0, "compute"), copy = t.add_stream(0, "copy");
    const int route = t.route("cpu", "sim:0");
    t.transfer(copy, route, 10000000000, {}, {0, 0.1});  // 1 s
    if (!busy) t.wait(compute, t.record(copy));
    for (int i = 0; i < 3; ++i) {
      t.kernel(compute, 0.7, {});
      t.advance_host(1e-9);  // or they were one
    }
    t.finish_all();
    CHECK(t.host_s() == Approx(busy ? 2.2 : 3.1));
  }
}

TEST_CASE("timeline: what is issued later shares the link with what is in flight") {
  sim::Timeline t(one_link(10e9, 0.1), 1);
  const int first = t.add_stream(0, "1"), second = t.add_stream(0, "2"),
            compute = t.add_stream(0, "3");
  const int route = t.route("cpu", "sim:0");
  t.transfer(first, route, 20000000000, {});  // alone: 0.1 + 2 s
  t.kernel(compute, 1, {});
  t.finish(compute);  // the host is at 1 s; 9 GB have passed
  CHECK(t.host_s() == Approx(1));
  t.transfer(second, route, 5000000000,
             {});  // alone from 1 to 1.1 (latency), then half each for 1 s
  t.finish(second);
  CHECK(t.host_s() == Approx(2.1));
  t.finish(first);  // 20 - 9 - 1 - 5 = 5 GB left at 2.1 s
  CHECK(t.host_s() == Approx(2.6));
}

TEST_CASE("timeline: the host is not blocked, and nothing starts before it was issued") {
  sim::Timeline t(one_link(), 1);
  const int s = t.add_stream(0, "s");
  t.trace(true);
  t.kernel(s, 1, {});
  static const std::string name = "late";
  t.advance_host(5);
  t.kernel(s, 1, {&name});
  CHECK(t.host_s() == 5);
  CHECK_FALSE(t.idle(s));
  t.finish(s);
  REQUIRE(t.intervals().size() == 1);
  CHECK(t.intervals()[0].start_s == Approx(5));
  CHECK(t.host_s() == Approx(6));
  t.reset();
  CHECK(t.host_s() == 0);
}

TEST_CASE(
    "sim: the cost of a kernel is the larger of its arithmetic and its bytes, plus the launch") {
  c10::InferenceMode inference;
  auto rig = test::small_rig(1);
  rig.devices[0].launch_s = 1e-5;
  rig.devices[0].tflops = {{"float32", 1}, {"bfloat16", 4}};
  sim::DryScope scope(rig);
  const auto o = at::TensorOptions(kFirst);
  SUBCASE("bytes: 2 reads and 1 write of 4 MB at 100 GB/s") {
    auto x = at::empty({1000, 1000}, o), y = at::empty({1000, 1000}, o);
    sim::reset_clock();
    auto z = x + y;
    CHECK(sim::now() == 0);  // not waited for
    CHECK(sim::finish() == Approx(12e6 / 100e9 + 1e-5));
  }
  SUBCASE("arithmetic: 2 n^3 at the speed of the dtype") {
    auto x = at::empty({2048, 2048}, o);
    auto h = at::empty({2048, 2048}, o.dtype(at::kBFloat16));
    sim::reset_clock();
    auto y = at::mm(x, x);
    CHECK(sim::finish() == Approx(2.0 * 2048 * 2048 * 2048 / 1e12 + 1e-5));
    sim::reset_clock();
    auto g = at::mm(h, h);
    CHECK(sim::finish() == Approx(2.0 * 2048 * 2048 * 2048 / 4e12 + 1e-5));
  }
  SUBCASE("convolutions and attention") {
    auto x = at::empty({2, 64, 32, 32}, o), w = at::empty({128, 64, 3, 3}, o);
    auto y = at::conv2d(x, w, {}, 1, 1);
    CHECK(sim::work(0).flops == Approx(2.0 * 2 * 128 * 32 * 32 * 64 * 9));
    sim::reset_clock();
    auto q = at::empty({2, 8, 100, 64}, o), k = at::empty({2, 8, 77, 64}, o);
    auto a = at::scaled_dot_product_attention(q, k, k);
    CHECK(sim::work(0).flops == Approx(4.0 * 2 * 8 * 100 * 77 * 64));
  }
}

TEST_CASE("sim: an operation's kind, arithmetic and bytes are what the rig's cost is asked for") {
  c10::InferenceMode inference;
  auto rig = test::small_rig(1);
  rig.devices[0].tflops = {{"default", 1}, {"bfloat16", 4}};
  rig.devices[0].speed(KernelKind::Convolution) = {.compute = 0.5, .start_s = 1e-3};
  rig.devices[0].speed(KernelKind::Normalization) = {.memory = 0.25};
  sim::DryScope scope(rig);
  const auto o = at::TensorOptions(kFirst).dtype(at::kBFloat16);
  auto x = at::empty({2, 64, 32, 32}, o), w = at::empty({128, 64, 3, 3}, o),
       gain = at::empty({64}, o), q = at::empty({2, 8, 100, 40}, o), a = at::empty({50, 320}, o),
       b = at::empty({640, 320}, o), bias = at::empty({640}, o);
  sim::trace(true);
  const auto only = [](const at::Tensor&) {
    sim::finish();
    auto intervals = sim::intervals();
    REQUIRE(intervals.size() == 1);
    sim::trace(true);
    return std::pair(*intervals[0].kernel, intervals[0].end_s - intervals[0].start_s);
  };
  const auto [conv, conv_s] = only(at::conv2d(x, w, {}, 1, 1));
  CHECK(conv.kind == KernelKind::Convolution);
  CHECK(conv.dtype == "bfloat16");
  CHECK(conv.depth == 64 * 9);
  CHECK(conv.flops == 2.0 * 2 * 128 * 32 * 32 * 64 * 9);
  CHECK(conv.bytes == 2.0 * (2 * 64 * 1024 + 128 * 64 * 9 + 2 * 128 * 1024));
  CHECK(conv_s == Approx(conv.flops / 2e12 + 1e-3));
  const auto [norm, norm_s] = only(at::group_norm(x, 32, gain, gain));
  CHECK(norm.kind == KernelKind::Normalization);
  CHECK(norm_s == Approx(norm.bytes / 25e9));
  CHECK(only(at::layer_norm(a, {320})).first.kind == KernelKind::Normalization);
  CHECK(only(at::softmax(a, -1)).first.kind == KernelKind::Normalization);
  const auto attention = only(at::scaled_dot_product_attention(q, q, q)).first;
  CHECK(attention.kind == KernelKind::Attention);
  CHECK(attention.depth == 40);
  const auto linear = only(at::linear(a, b, bias)).first;
  CHECK(linear.kind == KernelKind::Matmul);
  CHECK(linear.depth == 320);
  CHECK(linear.flops == 2.0 * 50 * 320 * 640);
  CHECK(only(at::silu(a)).first.kind == KernelKind::Elementwise);
  // A third of each row: its own bytes count, not those between.
  const auto part = only(at::silu(b.narrow(1, 0, 80))).first;
  CHECK(part.bytes == 2.0 * (640 * 80) * 2);
  // Expanded: what is in memory counts.
  CHECK(only(at::add(b, bias.unsqueeze(1))).first.bytes == 2.0 * (640 * 320 * 2 + 640));
}

TEST_CASE("sim: a host that issues slower than the device computes is what a run takes") {
  c10::InferenceMode inference;
  auto rig = test::small_rig(1);
  rig.devices[0].issue_s = 1e-5;
  sim::DryScope scope(rig);
  auto small = at::empty({100}, at::TensorOptions(kFirst));      // 8 ns each way
  auto large = at::empty({1000000}, at::TensorOptions(kFirst));  // 80 us
  sim::reset_clock();
  for (int i = 0; i < 20; ++i) auto y = at::silu(small);
  CHECK(sim::finish() == Approx(20e-5).epsilon(0.01));
  sim::reset_clock();
  for (int i = 0; i < 20; ++i) auto y = at::silu(large);
  CHECK(sim::finish() == Approx(20 * 80e-6).epsilon(0.01));
}

TEST_CASE("sim: copies go over the rig's links; registered memory is faster and does not block") {
  c10::InferenceMode inference;
  sim::install(test::small_rig());
  const std::int64_t n = 10 * kMB;  // 1 ms at 10 GB/s
  auto target = bytes(kFirst, n);
  auto pageable = at::zeros({n}, at::kByte);
  device::HostBuffer locked(n, {kFirst});
  REQUIRE(locked.page_locked());
  auto stream = device::new_stream(kFirst);
  device::synchronize(kFirst);
  sim::reset_clock();
  device::copy_async(target, locked.tensor(), stream);
  CHECK(sim::now() == 0);
  device::synchronize(stream);
  CHECK(sim::now() == Approx(1e-3));
  device::copy_async(target, pageable, stream);
  CHECK(sim::now() == Approx(1e-3 + 1e-3 / 0.16));
  sim::reset_clock();
  // Both directions at once: the link is full duplex.
  auto other = bytes(kFirst, n);
  auto up = device::new_stream(kFirst);
  device::HostBuffer result(n, {kFirst});
  device::copy_async(target, locked.tensor(), stream);
  device::copy_async(result.tensor(), other, up);
  CHECK(sim::finish() == Approx(1e-3));
  CHECK(sim::work(0).bytes_in == n);
  CHECK(sim::work(0).bytes_out == n);
}

TEST_CASE("sim: between devices, and through a shared root") {
  c10::InferenceMode inference;
  auto rig = test::small_rig(2);
  const std::int64_t n = 10 * kMB;
  SUBCASE("the direct link") {
    sim::install(rig);
    auto from = bytes(kSecond, n).fill_(7), to = bytes(kFirst, n);
    sim::finish();
    sim::reset_clock();
    auto stream = device::new_stream(kFirst);
    device::copy_async(to, from, stream);
    device::synchronize(stream);
    CHECK(sim::now() == Approx(2e-3));
    CHECK(to.eq(7).all().item<bool>());
  }
  SUBCASE("two links of one root share its speed") {
    rig.roots.push_back({"root", 10e9});
    rig.links[0].root = rig.links[1].root = "root";
    sim::install(rig);
    device::HostBuffer a(n, {kFirst}), b(n, {kFirst});
    auto x = bytes(kFirst, n), y = bytes(kSecond, n);
    sim::finish();
    sim::reset_clock();
    auto s = device::new_stream(kFirst), t = device::new_stream(kSecond);
    device::copy_async(x, a.tensor(), s);
    device::copy_async(y, b.tensor(), t);
    device::synchronize(s);
    CHECK(sim::now() == Approx(2e-3));
  }
}

TEST_CASE("sim: transfers that the simulator cannot see, and the host's own time") {
  sim::install(test::small_rig(1));
  auto stream = device::new_stream(kFirst);
  sim::model_transfer(stream, "disk", "cpu", 10 * kMB);
  CHECK(sim::now() == 0);
  sim::advance_host(5e-4);
  CHECK(sim::now() == Approx(5e-4));
  device::synchronize(stream);
  CHECK(sim::now() == Approx(1e-3));
  CHECK_THROWS_WITH_AS(sim::model_transfer(stream, "moon", "cpu", 1),
                       doctest::Contains("no link from moon to cpu"), Error);
}

TEST_CASE("sim: the profile names operations, places and lanes") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(1));
  auto x = at::ones({1000}).to(kFirst);
  sim::finish();
  sim::reset_clock();
  sim::trace(true);
  {
    device::NamedScope place("UNet");
    auto y = at::softmax(x, 0);
  }
  auto z = x.cpu();
  auto all = sim::intervals();
  REQUIRE(all.size() == 2);
  CHECK(all[0].name == "UNet / aten::_softmax");
  CHECK(all[0].lane == "sim:0 compute");
  CHECK(all[0].bytes == 8000);
  CHECK(all[1].lane == "sim:0->cpu");
  CHECK(all[1].name == "copy to host");
  CHECK(all[1].start_s == Approx(all[0].end_s));
  sim::trace(false);
  CHECK(sim::intervals().empty());
}

TEST_CASE("sim: events give elapsed time and can be asked") {
  c10::InferenceMode inference;
  sim::install(test::small_rig(1));
  auto x = at::ones({25000}).to(kFirst);
  auto stream = device::current_stream(kFirst);
  c10::Event before(kFirst.type(), c10::EventFlag::BACKEND_DEFAULT),
      after(kFirst.type(), c10::EventFlag::BACKEND_DEFAULT);
  before.record(stream);
  x.add_(1);  // 100 kB read and written at 100 GB/s
  after.record(stream);
  CHECK_FALSE(after.query());
  sim::advance_host(1);
  CHECK(after.query());
  CHECK(before.elapsedTime(after) == Approx(200e3 / 100e9 * 1e3).epsilon(1e-6));
}

TEST_CASE("sim: dry and real runs of a ring take the same time on the same clock") {
  c10::InferenceMode inference;
  const auto ring = [] {
    const std::int64_t n = 4 * kMB;
    device::HostBuffer home(n, {kFirst});
    auto a = bytes(kFirst, n), b = bytes(kFirst, n);
    auto copy = device::new_stream(kFirst), compute = device::current_stream(kFirst);
    device::synchronize(kFirst);
    sim::reset_clock();
    std::vector<device::Event> ready, freed;
    for (int i = 0; i < 8; ++i) ready.emplace_back(kFirst), freed.emplace_back(kFirst);
    for (int i = 0; i < 8; ++i) {
      auto& slot = i % 2 ? b : a;
      if (i >= 2) freed[i - 2].block(copy);
      device::copy_async(slot, home.tensor(), copy);
      ready[i].record(copy);
      ready[i].block(compute);
      auto result = slot.bitwise_xor(slot);
      freed[i].record(compute);
    }
    return sim::finish();
  };
  sim::install(test::small_rig(1));
  const double real = ring();
  sim::DryScope scope;
  CHECK(ring() == real);
  // copies back to back, the last compute after them
  CHECK(real == Approx(8 * 4e6 / 10e9 + 12e6 / 100e9));
}
