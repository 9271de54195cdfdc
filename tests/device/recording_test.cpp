#include "distorch/device/recording.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/device/streams.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::device;

TEST_CASE("any device: what is recorded computes at once, and again with what stands aside") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  const auto options = at::TensorOptions().device(device);
  auto input = at::ones({64}, options), changing = at::ones({64}, options);
  int asides = 0;
  auto body = [&] {
    aside([] {});  // nothing before it
    auto x = input * 2;
    aside([&] {
      ++asides;
      changing.fill_(asides);  // issued between the stretches, on their stream
    });
    aside([] {});  // nothing between
    auto y = x + changing;
    aside([] {});  // nothing after
    return y;
  };
  CHECK(body().eq(3).all().item<bool>());
  CHECK_FALSE(recording());
  auto made = record(device, [&] {
    CHECK(recording() == device.is_cuda());
    return body();
  });
  if (!made) return;  // this kind of device does not record
  CHECK(asides == 2);
  CHECK(made->result().eq(4).all().item<bool>());
  input.fill_(5);
  for (int i = 3; i < 6; ++i) {
    made->replay();
    CHECK(asides == i);
    CHECK(made->result().eq(10 + i).all().item<bool>());
  }
  // A second one beside it shares the memory.
  auto other = record(device, [&] { return at::mul(input, 3) + 1; }, made.get());
  REQUIRE(other);
  for (int i = 0; i < 3; ++i) {
    input.fill_(i);
    other->replay();
    CHECK(other->result().eq(3 * i + 1).all().item<bool>());
    made->replay();
    CHECK(made->result().eq(2 * i + asides).all().item<bool>());
  }
  synchronize(device);
}

TEST_CASE("any device: an error of what is recorded or stands aside is thrown on") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  auto input = at::ones({64}, at::TensorOptions().device(device));
  const auto fail = [] { throw Error(ErrorKind::Format, "a file", "was cut short"); };
  CHECK_THROWS_AS(record(device,
                         [&] {
                           auto x = input + 1;
                           fail();
                           return x;
                         }),
                  Error);
  CHECK_THROWS_AS(record(device,
                         [&] {
                           auto x = input + 1;
                           aside(fail);
                           return x;
                         }),
                  Error);
  CHECK_FALSE(recording());
  bool failing = false;
  auto made = record(device, [&] {
    auto x = input + 1;
    aside([&] {
      if (failing) fail();
    });
    return x * 2;
  });
  if (made) {
    failing = true;
    CHECK_THROWS_AS(made->replay(), Error);
    failing = false;
    made->replay();
    CHECK(made->result().eq(4).all().item<bool>());
  }
  CHECK((input + 1).eq(2).all().item<bool>());  // the device works on
}

TEST_CASE("any device: what a recorder cannot record is refused, and the device works on") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  if (!device.is_cuda()) return;
  auto input = at::ones({64}, at::TensorOptions().device(device));
  auto made = record(device, [&] {
    return input * input.sum().item<float>();  // waits for the device
  });
  CHECK(!made);
  CHECK((input + 1).eq(2).all().item<bool>());
  auto next = record(device, [&] { return input + 2; });
  REQUIRE(next);
  CHECK(next->result().eq(3).all().item<bool>());
}
