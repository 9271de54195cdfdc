#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/device/memory.h"
#include "tests/streaming/toy_model.h"
#include "tests/support/devices.h"
#include "tests/support/plain_source.h"

// What every accelerator has to keep, the simulated and the real: DISTORCH_TEST_DEVICE=cuda:0
// streaming_test
using namespace distorch;
using namespace distorch::streaming;
using placement::How;

namespace {

constexpr int blocks = 11;
constexpr std::int64_t width = 128;
constexpr std::int64_t block_bytes = (width * width + width) * 4;

at::Tensor input() {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(3);
  return at::randn({7, width}, generator);
}

/// The test's device in a state that earlier tests left nothing in.
std::string fresh_device() {
  auto name = test::test_device_name();
  if (name.rfind("sim", 0) == 0) sim::install(test::small_rig());
  return name;
}

struct Subject {
  Subject(const std::string& device, at::ScalarType stored, at::ScalarType dtype)
      : model(blocks, width),
        streamed(model.manifest(), folder.write(model, stored),
                 {.name = "toy", .compute = device, .dtype = dtype}),
        x(input().to(dtype).to(device::to_torch(device))) {}

  /// Three steps, so that the ring goes round.
  at::Tensor run() { return model.forward(model.forward(model.forward(x))).cpu(); }

  toy::Folder folder;
  toy::Model model;
  StreamedModel streamed;
  at::Tensor x;
};

std::vector<BlockHome> homes(const std::string& device, const std::function<How(int)>& how,
                             const std::string& donor) {
  std::vector<BlockHome> list;
  for (int i = 0; i < blocks; ++i) {
    auto chosen = how(i);
    list.push_back({chosen, chosen == How::Resident ? device : donor});
  }
  return list;
}

}  // namespace

TEST_CASE(
    "any device: every placement gives the bits of the resident one, in the file's dtype and in "
    "others") {
  auto device = fresh_device();
  for (auto [stored, dtype] : {std::pair(at::kFloat, at::kFloat), std::pair(at::kHalf, at::kFloat),
                               std::pair(at::kBFloat16, at::kBFloat16)}) {
    Subject subject(device, stored, dtype);
    subject.streamed.load(homes(device, [](int) { return How::Resident; }, "cpu"));
    auto resident = subject.run();
    CHECK(resident.isfinite().all().item().toBool());
    for (std::string donor : {"cpu", "disk"})
      for (double slots : {1., 1.375, 2., 3.}) {
        subject.streamed.load(
            homes(device, [](int) { return How::Streamed; }, donor), {{donor, slots}});
        CHECK(at::equal(subject.run(), resident));
        subject.streamed.load(
            homes(
                device, [](int i) { return i % 3 ? How::Resident : How::Streamed; }, donor),
            {{donor, slots}});
        CHECK(at::equal(subject.run(), resident));
      }
  }
}

TEST_CASE("any device: what several threads bring is what one copies, used while more is coming") {
  auto device = fresh_device();
  for (auto [stored, dtype] :
       {std::pair(at::kFloat, at::kFloat), std::pair(at::kHalf, at::kFloat)}) {
    Subject subject(device, stored, dtype);
    subject.streamed.load(homes(device, [](int) { return How::Resident; }, "cpu"));
    auto resident = subject.run();
    toy::Model model(blocks, width);
    StreamedModel brought(
        model.manifest(), subject.streamed.checkpoint(),
        {.name = "toy", .compute = device, .dtype = dtype, .upload_from_bytes = 0});
    auto run = [&] { return model.forward(model.forward(model.forward(subject.x))).cpu(); };
    for (int round = 0; round < 3; ++round) {
      brought.load(homes(device, [](int) { return How::Resident; }, "cpu"));
      CHECK(brought.device_bytes(device) == subject.streamed.device_bytes(device));
      CHECK(at::equal(run(), resident));
      CHECK(brought.device_bytes(device) == subject.streamed.device_bytes(device));
      brought.load(
          homes(device, [](int i) { return i % 3 ? How::Resident : How::Streamed; }, "cpu"));
      CHECK(at::equal(run(), resident));
      if (round == 1) brought.unload();  // while blocks are on their way
    }
    brought.load(homes(device, [](int) { return How::Resident; }, "cpu"));
    CHECK(brought.shrink(brought.device_bytes(device) / 2) > 0);
    CHECK(at::equal(run(), resident));
  }
}

TEST_CASE("any device: what comes free with a recorded step does not stand for weights") {
  auto device = fresh_device();
  Subject subject(device, at::kFloat, at::kFloat);
  subject.streamed.load(homes(device, [](int) { return How::Resident; }, "cpu"));
  subject.streamed.record_steps(true);
  const auto step = [&] {
    return subject.streamed
        .step({subject.x},
              [&](const std::vector<at::Tensor>& in) { return subject.model.forward(in[0]); })
        .cpu();
  };
  const auto wanted = step();
  for (int i = 0; i < 3; ++i) CHECK(at::equal(step(), wanted));
  CHECK(subject.streamed.shrink(block_bytes) >= block_bytes);
  const auto& after = subject.streamed.homes();
  CHECK(std::any_of(after.begin(), after.end(),
                    [](const BlockHome& home) { return home.how == How::Streamed; }));
  CHECK(at::equal(step(), wanted));
}

TEST_CASE("any device: a file cut short while its blocks are brought is an error, not zeros") {
  auto device = fresh_device();
  Subject subject(device, at::kFloat, at::kFloat);
  toy::Model model(blocks, width);
  StreamedModel brought(
      model.manifest(), subject.streamed.checkpoint(),
      {.name = "toy", .compute = device, .dtype = at::kFloat, .upload_from_bytes = 0});
  std::filesystem::resize_file(subject.folder.path() / "toy.safetensors", 100'000);
  CHECK_THROWS_WITH_AS(
      [&] {
        brought.load(homes(device, [](int) { return How::Resident; }, "cpu"));
        model.forward(subject.x).cpu();
      }(),
      doctest::Contains("was truncated or replaced while in use"), Error);
}

TEST_CASE("any device: a recorded step gives the bits of the issued one, and makes way") {
  auto device = fresh_device();
  Subject subject(device, at::kFloat, at::kFloat);
  subject.streamed.load(homes(device, [](int) { return How::Resident; }, "cpu"));
  subject.streamed.record_steps(true);
  int issued = 0;
  auto step = [&](const at::Tensor& x) {
    return subject.streamed.step({x, at::Tensor()}, [&](const std::vector<at::Tensor>& in) {
      ++issued;
      CHECK(!in[1].defined());
      return subject.model.forward(in[0]);
    });
  };
  auto all = [&] {
    for (int i = 0; i < 4; ++i)
      for (double scale : {1.0, 0.5}) {
        auto x = subject.x * scale, tall = at::cat({x, x}, 0);
        CHECK(at::equal(step(x).cpu(), subject.model.forward(x).cpu()));
        CHECK(at::equal(step(tall).cpu(), subject.model.forward(tall).cpu()));
      }
  };
  all();
  if (device.rfind("cuda", 0) == 0) CHECK(issued == 4);  // two shapes, once as it is, once recorded
  // A changed strength is recorded anew.
  auto adapters = subject.folder.write_lora(subject.model, 1);
  for (double strength : {0.5, 1.0}) {
    subject.streamed.set_loras({{"lora", adapters, strength}});
    subject.streamed.load(subject.streamed.homes());
    all();
  }
  CHECK(subject.streamed.shrink(subject.streamed.device_bytes(device) / 2) > 0);
  all();
}

TEST_CASE("any device: resident weights make way where the ring finds no room") {
  auto device = fresh_device();
  auto torch_device = device::to_torch(device);
  if (device.rfind("sim", 0) != 0) return;  // a real device's holes cannot be arranged
  Subject subject(device, at::kFloat, at::kFloat);
  subject.streamed.load(homes(device, [](int) { return How::Resident; }, "cpu"));
  auto resident = subject.run();
  subject.streamed.unload();
  auto how = [](int i) { return i < 3 ? How::Streamed : How::Resident; };
  auto room = device::memory_use(torch_device).free;
  auto block = (width * width + width) * 4;
  // Room for the eight resident blocks and a little, not for a block in the ring beside them.
  auto other = at::empty({room - 8 * block - block / 2},
                         at::TensorOptions().dtype(at::kByte).device(torch_device));
  subject.streamed.load(homes(device, how, "cpu"), {{"cpu", 2}});
  auto left = std::count_if(subject.streamed.homes().begin(), subject.streamed.homes().end(),
                            [](const BlockHome& home) { return home.how == How::Resident; });
  CHECK(left > 0);
  CHECK(left < 8);
  other = at::Tensor();
  CHECK(at::equal(subject.run(), resident));
}

TEST_CASE("any device: a recorded step streams, whatever streams and whatever comes between") {
  auto device = fresh_device();
  Subject subject(device, at::kFloat, at::kFloat);
  subject.streamed.load(homes(device, [](int) { return How::Resident; }, "cpu"));
  auto tall = at::cat({subject.x, subject.x}, 0);
  auto want = subject.model.forward(subject.x).cpu(), want_tall = subject.model.forward(tall).cpu();
  subject.streamed.record_steps(true);
  int issued = 0;
  auto step = [&](const at::Tensor& x) {
    return subject.streamed
        .step({x},
              [&](const std::vector<at::Tensor>& in) {
                ++issued;
                return subject.model.forward(in[0]);
              })
        .cpu();
  };
  const std::vector<std::function<How(int)>> ways = {
      [](int) { return How::Streamed; },  // an odd number: places alternate
      [](int i) { return i == 4 ? How::Resident : How::Streamed; },
      [](int i) { return i % 3 ? How::Resident : How::Streamed; },
      [](int i) { return i % 3 == 1 ? How::Streamed : How::Resident; }};
  for (const auto& how : ways)
    for (double slots : {1., 1.375, 2., 3.}) {
      subject.streamed.load(homes(device, how, "cpu"), {{"cpu", slots}});
      issued = 0;
      for (int i = 0; i < 12; ++i) CHECK(at::equal(step(subject.x), want));
      if (device.rfind("cuda", 0) == 0) CHECK(issued <= 6);
      // Steps of another shape, and one issued past the recordings, in between.
      for (int i = 0; i < 3; ++i) {
        CHECK(at::equal(step(tall), want_tall));
        CHECK(at::equal(step(subject.x), want));
        CHECK(at::equal(subject.model.forward(subject.x).cpu(), want));
        CHECK(at::equal(step(subject.x), want));
      }
    }
}

TEST_CASE("any device: convolutions are laid out where they come to rest, streamed or not") {
  auto device = fresh_device();
  constexpr int count = 5;
  constexpr std::int64_t channels = 24;
  // Blocks of a convolution each, and a matrix whose values must stay as they are.
  weights::Manifest manifest;
  struct Layer {
    weights::Block block;
    weights::Weight image, matrix;
  };
  std::vector<Layer> layers;
  weights::Scope root(manifest);
  for (int i = 0; i < count; ++i) {
    auto scope = (root / "blocks" / i).block();
    layers.push_back({weights::Block(scope), scope.weight("image", {channels, channels, 3, 3}),
                      scope.weight("matrix", {channels, channels})});
  }
  toy::Folder folder;
  auto checkpoint = folder.write(manifest, channels * 9, at::kFloat);
  constexpr auto layout = at::MemoryFormat::ChannelsLast;
  const bool accelerator = device != "cpu";
  auto forward = [&](at::Tensor x) {
    for (const auto& layer : layers)
      x = layer.block.run1({x}, [&](const weights::Tensors& in) {
        if (accelerator) CHECK(layer.image.dense().is_contiguous(layout));
        auto y = at::conv2d(in[0].contiguous(layout), layer.image.dense(), {}, {1, 1}, {1, 1});
        return at::tanh(y + at::matmul(layer.matrix.dense(), y.flatten(2)).view(y.sizes()));
      });
    return x;
  };
  auto generator = at::make_generator<at::CPUGeneratorImpl>(3);
  auto x = at::randn({1, channels, 6, 5}, generator);
  at::Tensor plain;
  {
    test::PlainSource source(manifest, [&](const weights::Declared& weight) {
      auto value = weights::mapped_tensor(*checkpoint.find(weight.name));
      return accelerator && value.dim() == 4 ? value.contiguous(layout) : value;
    });
    plain = forward(x);
  }
  StreamedModel streamed(manifest, checkpoint,
                         {.name = "toy", .compute = device, .channels_last = true});
  auto there = x.to(device::to_torch(device));
  auto all = [&](How how) {
    return std::vector<BlockHome>(count, {how, how == How::Resident ? device : "cpu"});
  };
  streamed.load(all(How::Resident));
  auto resident = forward(there).cpu();
  CHECK((resident - plain).abs().max().item<double>() < 1e-5);
  streamed.record_steps(true);
  for (double slots : {1., 1.375, 2., 3.}) {
    auto homes = all(How::Streamed);
    for (bool some : {false, true}) {
      if (some) homes[1] = homes[2] = {How::Resident, device};
      streamed.load(homes, {{"cpu", slots}});
      for (int i = 0; i < 3; ++i) CHECK(at::equal(forward(there).cpu(), resident));
      for (int i = 0; i < 6; ++i)
        CHECK(at::equal(
            streamed
                .step({there}, [&](const std::vector<at::Tensor>& in) { return forward(in[0]); })
                .cpu(),
            resident));
    }
  }
}

TEST_CASE("any device: a recorded step that is broken off leaves the model usable") {
  auto device = fresh_device();
  Subject subject(device, at::kFloat, at::kFloat);
  subject.streamed.load(homes(device, [](int) { return How::Streamed; }, "cpu"));
  subject.streamed.record_steps(true);
  auto step = [&] {
    return subject.streamed
        .step({subject.x},
              [&](const std::vector<at::Tensor>& in) { return subject.model.forward(in[0]); })
        .cpu();
  };
  auto want = subject.model.forward(subject.x).cpu();
  for (int before = 0; before < 6; ++before) {
    for (int i = 0; i < before; ++i) CHECK(at::equal(step(), want));
    {
      RunScope stopped(std::make_shared<RunToken>());
      current_run()->interrupt();
      CHECK_THROWS_AS(step(), Error);
    }
    for (int i = 0; i < 3; ++i) CHECK(at::equal(step(), want));
  }
}

TEST_CASE("any device: a block that fails while its step is recorded leaves the model usable") {
  // Stands in front of a model; lets one block of the second step fail in its middle.
  struct Failing final : weights::WeightSource {
    explicit Failing(StreamedModel& model) : model(model) { model.manifest().attach(this); }
    ~Failing() override { model.manifest().attach(&model); }
    weights::Tensors run(int block, const weights::Tensors& inputs,
                         const weights::Body& body) override {
      calls += block == 0 ? 1 : 0;
      return model.run(block, inputs, [&](const weights::Tensors& in) {
        auto results = body(in);
        if (calls == 2 && block == blocks / 2 && std::exchange(armed, false)) fail();
        return results;
      });
    }
    StreamedModel& model;
    std::function<void()> fail;
    int calls = 0;
    bool armed = true;
  };
  for (bool ours : {true, false}) {
    auto device = fresh_device();
    Subject subject(device, at::kFloat, at::kFloat);
    subject.streamed.load(homes(device, [](int) { return How::Streamed; }, "cpu"));
    auto want = subject.model.forward(subject.x).cpu();
    subject.streamed.record_steps(true);
    Failing failing(subject.streamed);
    failing.fail = [ours] {
      if (ours) throw Error(ErrorKind::Format, "a file", "was cut short");
      throw std::runtime_error("out of something");
    };
    int failed = 0;
    auto step = [&] {
      return subject.streamed
          .step({subject.x},
                [&](const std::vector<at::Tensor>& in) { return subject.model.forward(in[0]); })
          .cpu();
    };
    for (int i = 0; i < 6; ++i) {
      try {
        auto got = step();
        CHECK(at::equal(got, want));
      } catch (const std::exception&) {
        ++failed;  // where a recorder met it, the step was issued anew instead
      }
    }
    CHECK_FALSE(failing.armed);
    CHECK(failed <= 1);
    if (ours) CHECK(failed == 1);
  }
}

TEST_CASE("any device: the result is near the CPU's") {
  auto device = fresh_device();
  Subject there(device, at::kFloat, at::kFloat), here("cpu", at::kFloat, at::kFloat);
  there.streamed.load(homes(device, [](int) { return How::Streamed; }, "cpu"));
  here.streamed.load(homes("cpu", [](int) { return How::Resident; }, "cpu"));
  auto wanted = here.run();
  CHECK((there.run() - wanted).abs().max().item().toDouble() <=
        1e-4 * wanted.abs().max().item().toDouble());
}

TEST_CASE("any device: a model holds what it says, and gives it back") {
  auto device = fresh_device();
  auto torch_device = device::to_torch(device);
  Subject subject(device, at::kFloat, at::kFloat);
  subject.streamed.load(homes(device, [](int) { return How::Resident; }, "cpu"));
  subject.run();
  auto with_resident = device::memory_use(torch_device).in_use;
  auto resident_bytes = subject.streamed.device_bytes(device);
  CHECK(resident_bytes >= subject.streamed.total_file_bytes());
  subject.streamed.load(homes(device, [](int) { return How::Streamed; }, "cpu"));
  subject.run();
  auto with_ring = device::memory_use(torch_device).in_use;
  auto ring_bytes = subject.streamed.device_bytes(device);
  constexpr std::int64_t rounding = 512 * (blocks + 2);
  CHECK(std::abs((with_resident - with_ring) - (resident_bytes - ring_bytes)) <= rounding);
  subject.streamed.unload();
  CHECK(std::abs((with_ring - device::memory_use(torch_device).in_use) - ring_bytes) <= rounding);
}

TEST_CASE("any device: shrinking moves resident weights out and changes no bit") {
  auto device = fresh_device();
  Subject subject(device, at::kFloat, at::kFloat);
  subject.streamed.load(homes(device, [](int) { return How::Resident; }, "cpu"));
  auto resident = subject.run();
  auto before = subject.streamed.device_bytes(device);
  auto freed = subject.streamed.shrink(before / 2);
  CHECK(freed > 0);
  CHECK(subject.streamed.device_bytes(device) == before - freed);
  CHECK(at::equal(subject.run(), resident));
}

TEST_CASE("any device: the ring foresees every block but the first, cyclic over steps") {
  auto device = fresh_device();
  Subject subject(device, at::kFloat, at::kFloat);
  subject.streamed.load(homes(device, [](int) { return How::Streamed; }, "cpu"));
  subject.run();
  // Two slots: what was copied is what was used, and at most two blocks ahead.
  CHECK(subject.streamed.streamed_bytes() >= 3 * blocks * block_bytes);
  CHECK(subject.streamed.streamed_bytes() <= (3 * blocks + 2) * (block_bytes + 512));
  CHECK(subject.streamed.device_bytes(device) <= 2 * (block_bytes + 512));
}

TEST_CASE(
    "any device: LoRA on streamed weights: the merged result, only the factors in memory, strength "
    "changed without reload") {
  auto device = fresh_device();
  toy::Folder folder;
  toy::Model model(blocks, width);
  auto checkpoint = folder.write(model);
  auto adapters = folder.write_lora(model, 4);
  constexpr std::int64_t factor_bytes = 2 * 4 * width * 4;
  auto merged = [&](double strength) {
    toy::Model plain(blocks, width);
    test::PlainSource source(plain.manifest(), [&](const weights::Declared& weight) {
      auto value = weights::mapped_tensor(*checkpoint.find(weight.name)).clone();
      for (const auto& named : *adapters) {
        if (named.weight != weight.name) continue;
        auto lora = weights::read_adapter(named, at::kCPU);
        value += at::mm(lora.part(weights::Part::Up), lora.part(weights::Part::Down)) * strength;
      }
      return value;
    });
    return plain.forward(input());
  };
  StreamedModel streamed(model.manifest(), checkpoint, {.name = "toy", .compute = device});
  streamed.load(homes(device, [](int) { return How::Streamed; }, "cpu"));
  auto before = streamed.device_bytes(device);
  auto x = input().to(device::to_torch(device));
  auto homes_now = streamed.homes();
  for (double strength : {1.0, -0.7}) {
    streamed.set_loras({{"a", adapters, strength}});
    streamed.load(homes_now);
    auto copied = streamed.streamed_bytes();
    auto wanted = merged(strength);
    CHECK((model.forward(x).cpu() - wanted).norm().item<double>() <
          1e-5 * wanted.norm().item<double>());
    CHECK(streamed.streamed_bytes() - copied <= (blocks + 2) * (block_bytes + factor_bytes + 1024));
  }
  // What a LoRA adds streams with its block.
  CHECK(streamed.device_bytes(device) - before <= 2 * (factor_bytes + 512));
  streamed.set_loras({});
  streamed.load(homes_now);
  CHECK(streamed.device_bytes(device) == before);
}

TEST_CASE(
    "any device: out of memory while loading names block and device and leaves nothing behind") {
  auto device = fresh_device();
  auto torch_device = device::to_torch(device);
  // Large enough that an allocator's rounding does not matter.
  constexpr std::int64_t wide = 2048, wide_bytes = (wide * wide + wide) * 4;
  constexpr int few = 5;
  toy::Folder folder;
  toy::Model model(few, wide);
  StreamedModel streamed(model.manifest(), folder.write(model), {.name = "toy", .compute = device});
  device::empty_cache(torch_device);
  auto before = device::memory_use(torch_device);
  device::limit_memory(torch_device, before.reserved + 3 * wide_bytes);
  try {
    streamed.load(std::vector<BlockHome>(few, {How::Resident, device}));
    FAIL("5 blocks fitted into 3");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::OutOfMemory);
    CHECK(error.where() == device);
    CHECK(error.sentence().find("of toy") != std::string::npos);
  }
  device::limit_memory(torch_device, 0);
  CHECK(device::memory_use(torch_device).in_use == before.in_use);
  CHECK_FALSE(streamed.loaded());
  streamed.load(std::vector<BlockHome>(few, {How::Resident, device}));
  CHECK(streamed.loaded());
}
