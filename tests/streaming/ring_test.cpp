#include "distorch/streaming/ring.h"

#include <doctest/doctest.h>

#include <set>

#include "distorch/device/device.h"
#include "tests/streaming/toy_model.h"
#include "tests/support/devices.h"
#include "tests/support/faults.h"
#include "tests/support/poison.h"

using namespace distorch;
using namespace distorch::streaming;
using placement::How;

TEST_CASE(
    "a ring is back where it stood after a few steps and fetches nothing twice, whatever the sizes "
    "of "
    "its blocks") {
  sim::install(test::small_rig());
  // Rows of 64 float32 values; as unlike as those of a UNet.
  const std::vector<std::vector<std::int64_t>> cases = {
      {40, 7, 7, 90, 13, 13, 200, 30, 30, 260, 260, 180, 180, 120, 60, 60, 20, 20, 5},
      {40, 7, 7, 90, 13, 13, 200, 30, 30, 260, 260, 180, 180, 120, 60, 60, 20, 20},
      {260, 5, 5, 5, 260},
      {1, 300, 2, 300, 3, 300, 4},
      {64, 64, 64, 64, 64},
      {64, 64, 64, 64}};
  for (const auto& rows : cases) {
    weights::Manifest manifest;
    weights::Scope root(manifest);
    for (std::size_t i = 0; i < rows.size(); ++i)
      (root / "blocks" / static_cast<int>(i)).block().weight("weight", {rows[i], 64});
    toy::Folder folder;
    StreamedModel model(manifest, folder.write(manifest, 64, at::kFloat),
                        {.name = "toy", .compute = "sim:0"});
    for (double slots : {1., 1.25, 1.5, 2., 3., 4.}) {
      std::vector<RingBlock> blocks;
      for (std::size_t i = 0; i < rows.size(); ++i)
        blocks.push_back({static_cast<int>(i), &model.layout(static_cast<int>(i)), {}, {}});
      RingOptions options;
      options.compute = device::to_torch("sim:0");
      options.slots = slots;
      options.registered = false;
      auto ring = make_ring(blocks, options);
      std::vector<std::string> seen;
      constexpr int settled = 4, steps = 24;
      std::int64_t copied = 0, unforeseen = 0;
      for (int step = 0; step < steps; ++step) {
        if (step == settled) {
          copied = ring->copied_bytes();
          unforeseen = ring->unforeseen_bytes();
        }
        for (std::size_t i = 0; i < rows.size(); ++i) auto lease = ring->pin(static_cast<int>(i));
        auto at = ring->position();
        std::string text = std::to_string(at.last_filled) + " " + std::to_string(at.round);
        for (const auto& [index, offset] : at.fresh)
          text += " " + std::to_string(index) + "@" + std::to_string(offset);
        seen.push_back(text);
      }
      CAPTURE(slots);
      CAPTURE(rows.size());
      CHECK(std::set<std::string>(seen.begin() + settled, seen.end()).size() <= 2);
      // Every block once a step, none asked for before it was on its way.
      std::int64_t most = ring->capacity_bytes();
      CHECK(std::abs(ring->copied_bytes() - copied -
                     (steps - settled) * model.total_file_bytes()) <= most);
      CHECK(ring->unforeseen_bytes() == unforeseen);
    }
  }
}

namespace {

using Shape = std::vector<std::int64_t>;

/// A file of blocks, and a ring for them.
struct Subject {
  static constexpr std::int64_t rows = 16, width = 64;

  /// `count` equal blocks, two slots.
  Subject(int count, RingOptions options, Shape shape = {rows, width}, bool channels_last = false)
      : Subject(
            std::vector<Shape>(static_cast<std::size_t>(count), shape),
            [&] {
              options.slots = 2;
              return options;
            }(),
            channels_last) {}

  Subject(const std::vector<Shape>& shapes, RingOptions options, bool channels_last = false) {
    const auto count = static_cast<int>(shapes.size());
    weights::Scope root(manifest);
    for (int i = 0; i < count; ++i)
      (root / "blocks" / i).block().weight("weight", shapes[static_cast<std::size_t>(i)]);
    model = std::make_unique<StreamedModel>(
        manifest, folder.write(manifest, 64, at::kFloat),
        StreamedOptions{.name = "toy", .compute = device::name_of(options.compute)});
    for (int i = 0; i < count; ++i) {
      std::vector<int> items;
      if (channels_last) items.push_back(0);
      blocks.push_back({i, &model->layout(i), {}, items});
    }
    options.lane = "lane";
    ring = make_ring(blocks, options);
  }

  /// The block's values as they lie in the ring.
  at::Tensor values(const Lease& lease, int block) const {
    const auto& item = model->layout(block).items[0];
    if (!lease.places().empty())
      return at::from_blob(const_cast<std::byte*>(lease.places()[0]), item.stored.shape).clone();
    return view_item(lease.bytes(), item).cpu();
  }
  bool right(const Lease& lease, int block) const {
    return at::equal(values(lease, block),
                     weights::mapped_tensor(model->layout(block).items[0].stored));
  }

  weights::Manifest manifest;
  toy::Folder folder;
  std::unique_ptr<StreamedModel> model;
  std::vector<RingBlock> blocks;
  std::unique_ptr<Ring> ring;
};

RingOptions options_for(const std::string& compute, bool registered) {
  RingOptions options;
  options.compute = device::to_torch(compute);
  options.registered = registered;
  return options;
}

}  // namespace

TEST_CASE("a fill that failed does not count: the block is fetched again, what is wrong is told") {
  for (std::string compute : {"cpu", "sim:0"}) {
    CAPTURE(compute);
    sim::install(test::small_rig());
    int failed = 0;
    for (int nth = 1; nth < 40; ++nth) {
      Subject subject(6, options_for(compute, false));
      const auto unused = subject.ring->position();
      test::fail_call(test::Call::Read, nth);
      for (int step = 0; step < 3; ++step)
        for (int i = 0; i < 6; ++i) {
          try {
            auto lease = subject.ring->pin(i);
            CHECK(subject.right(lease, i));
          } catch (const Error& error) {
            CHECK(error.kind() == ErrorKind::Format);
            CHECK(error.where() == (subject.folder.path() / "toy.safetensors").string());
            CHECK(subject.ring->position().fresh.empty());
            CHECK(subject.ring->position().last_filled == unused.last_filled);
          }
        }
      if (!test::call_pending(test::Call::Read)) ++failed;
      test::fail_call(test::Call::Read, 0);
    }
    CHECK(failed >= 18);
    // What nobody needs yet may be out of order; what is needed must not be.
    Subject subject(6, options_for(compute, false));
    test::fail_call(test::Call::Read, 1);
    CHECK_THROWS_AS(auto lease = subject.ring->pin(3), Error);
  }
}

TEST_CASE("who comes after a fill that failed waits for what that one would have waited for") {
  // Of the third the front is free once the first is released, what the second has after that one;
  // the fourth goes to a place that the second has too.
  const std::vector<Shape> shapes{{10, 64}, {6, 64}, {6, 64}, {4, 64}};
  for (int nth = 1; nth < 40; ++nth) {
    CAPTURE(nth);
    sim::install(test::small_rig());
    auto options = options_for("sim:0", false);
    options.slots = 1;
    Subject subject(shapes, options);
    std::vector<std::pair<int, at::Tensor>> results;
    test::fail_call(test::Call::Read, nth);
    for (int step = 0; step < 4; ++step)
      for (int i : {0, 1, step % 2 ? 3 : 2, 3}) {
        try {
          auto lease = subject.ring->pin(i);
          // The host does not wait for the device here.
          results.emplace_back(i,
                               view_item(lease.bytes(), subject.model->layout(i).items[0]).mul(2));
        } catch (const Error& error) {
          CHECK(error.kind() == ErrorKind::Format);
        }
      }
    test::fail_call(test::Call::Read, 0);
    for (const auto& [i, result] : results)
      CHECK(at::equal(result.cpu(),
                      weights::mapped_tensor(subject.model->layout(i).items[0].stored).mul(2)));
  }
}

TEST_CASE("copies of a ring that fail are told or made good, and the next ones are right") {
  for (bool registered : {true, false})
    for (int nth = 1; nth < 20; ++nth) {
      sim::install(test::small_rig());
      Subject subject(6, options_for("sim:0", registered));
      sim::fail_copy(0, nth);
      int told = 0;
      for (int step = 0; step < 3; ++step)
        for (int i = 0; i < 6; ++i) {
          try {
            auto lease = subject.ring->pin(i);
            // Reading back is a copy, too, and may be the one that fails.
            bool right = subject.right(lease, i);
            CHECK(right);
          } catch (const c10::Error& error) {
            ++told;
            CHECK(std::string(error.what()).find("sim:0: a copy") == 0);
          }
        }
      CHECK(told <= 1);
      CHECK_FALSE(sim::fault_pending(0));
    }
}

TEST_CASE("a place is not overwritten while a block that was given up is laid out in it") {
  sim::install(test::small_rig());
  for (bool registered : {true, false}) {
    Subject subject(8, options_for("sim:0", registered), {8, 8, 3, 3}, true);
    CHECK_NOTHROW([&] {
      for (int step = 0; step < 4; ++step)
        for (int i : {0, 5, 2, 7, 1, 4}) auto lease = subject.ring->pin((i + 3 * step) % 8);
    }());
  }
}

TEST_CASE("a ring that is fed by a device has neither staging buffers nor a thread") {
  sim::install(test::small_rig());
  Subject subject(4, options_for("sim:0", true));
  for (auto& block : subject.blocks) {
    block.donor = at::empty({block.layout->slot_bytes},
                            at::TensorOptions().dtype(at::kByte).device(at::Device("sim:1")));
    block.donor.narrow(0, 0, block.layout->stretches[0].size_bytes)
        .copy_(weights::mapped_tensor(block.layout->items[0].stored).view(-1).view(at::kByte));
  }
  subject.ring.reset();
  auto threads = test::thread_count();
  auto registered = sim::registered_bytes();
  auto ring = make_ring(subject.blocks, options_for("sim:0", false));
  CHECK(sim::registered_bytes() == registered);
  CHECK(test::thread_count() == threads);
  for (int i = 0; i < 4; ++i) {
    auto lease = ring->pin(i);
    CHECK(subject.right(lease, i));
  }
}

TEST_CASE("a ring with more room than its odd number of blocks needs waits for who reads a place") {
  // Blocks of these widths: rings count in slots of the largest.
  const std::vector<std::int64_t> rows = {512, 64, 64, 64, 64, 64, 64};
  constexpr std::int64_t inner = 64;
  sim::install(toy::rig(1, std::int64_t{1} << 24), sim::Mode::Exec);
  weights::Manifest manifest;
  std::vector<std::pair<weights::Block, weights::Weight>> layers;
  weights::Scope root(manifest);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    auto scope = (root / "blocks" / static_cast<std::int64_t>(i)).block();
    layers.emplace_back(weights::Block(scope), scope.weight("weight", {rows[i], inner}));
  }
  toy::Folder folder;
  auto checkpoint = folder.write(manifest, inner, at::kFloat);
  StreamedModel streamed(manifest, checkpoint, {.name = "uneven", .compute = "sim:0"});
  auto run = [&](How how, const std::string& home, double slots) {
    streamed.load(std::vector<BlockHome>(rows.size(), {how, home}), {{home, slots}});
    auto x = at::ones({2048, inner}).to(at::Device("sim:0"));
    for (int step = 0; step < 5; ++step)
      for (const auto& [block, weight] : layers)
        x = block.run1({x}, [&, w = &weight](const weights::Tensors& in) {
          return at::tanh(at::linear(in[0], w->dense()).narrow(1, 0, inner));
        });
    return x.cpu();
  };
  auto wanted = run(How::Resident, "sim:0", 2);
  for (double slots = 1; slots <= 7; slots += 0.375)
    CHECK(at::equal(run(How::Streamed, "cpu", slots), wanted));
}
