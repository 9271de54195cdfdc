// Blocks that rest in part: some weights on the compute device, the others through a ring.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "distorch/placement/timeline.h"
#include "tests/streaming/known_models.h"

using namespace distorch;
using namespace distorch::streaming;
using placement::How;

namespace {

constexpr int blocks = 9;
constexpr std::int64_t width = 64;

/// Every block has two parts: its matrix (1) and its bias (2).
struct Toy {
  explicit Toy(toy::Folder& folder, std::int64_t memory = std::int64_t{1} << 22,
               std::int64_t upload_from = std::int64_t{1} << 30)
      : model(blocks, width) {
    sim::install(toy::rig(2, memory), sim::Mode::Exec);
    streamed = std::make_unique<StreamedModel>(
        model.manifest(), folder.write(model),
        StreamedOptions{.name = "toy", .compute = "sim:0", .upload_from_bytes = upload_from});
  }
  at::Tensor run() {
    auto x = at::ones({5, width}).to(at::Device("sim:0"));
    return model.forward(model.forward(x)).cpu();
  }
  toy::Model model;
  std::unique_ptr<StreamedModel> streamed;
};

std::vector<BlockHome> all(How how, const std::string& device, std::uint64_t rests = 0) {
  return std::vector<BlockHome>(blocks, {how, device, rests});
}

std::vector<BlockHome> mixed() {
  const BlockHome kinds[] = {{How::Resident, "sim:0"},    {How::Streamed, "cpu", 1},
                             {How::Streamed, "sim:1", 2}, {How::Streamed, "cpu", 2},
                             {How::OnDonor, "sim:1"},     {How::Streamed, "cpu"},
                             {How::Streamed, "disk", 1}};
  std::vector<BlockHome> homes;
  for (int i = 0; i < blocks; ++i) homes.push_back(kinds[i % 7]);
  return homes;
}

weights::Stored stored(std::int64_t offset, std::int64_t bytes) {
  weights::Stored stored;
  stored.dtype = formats::DType::U8;
  stored.shape = {bytes};
  stored.offset_bytes = offset;
  stored.size_bytes = bytes;
  return stored;
}

}  // namespace

TEST_CASE("parts: a part of a block keeps its tensors' order and distance from aligned places") {
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    std::vector<weights::Stored> tensors;
    std::int64_t offset = 0;
    for (int i = 0; i < 8; ++i) {
      const auto bytes = static_cast<std::int64_t>(16 * (1 + random() % 60));
      tensors.push_back(stored(offset, bytes));
      offset += bytes + (random() % 3 == 0 ? 1024 : 0);
    }
    auto whole = lay_out(tensors);
    std::vector<bool> kept, others;
    for (int i = 0; i < 8; ++i) {
      kept.push_back(random() % 2 == 0);
      others.push_back(!kept.back());
    }
    std::int64_t bytes = 0;
    for (const auto& choice : {kept, others}) {
      auto [layout, indices, items] = part_of(whole, choice);
      REQUIRE(layout.items.size() == indices.size());
      std::int64_t end = 0;
      for (std::size_t i = 0; i < indices.size(); ++i) {
        const auto& item = layout.items[i];
        const auto& before = whole.items[items[i]];
        CHECK(choice[indices[i]]);
        CHECK(before.index == indices[i]);
        CHECK(item.index == static_cast<int>(i));
        CHECK(item.slot_offset % 256 == before.slot_offset % 256);
        CHECK(item.slot_offset >= end);
        end = item.slot_offset + item.stored.size_bytes;
        bytes += item.stored.size_bytes;
      }
      CHECK(layout.slot_bytes == end);
      // Every item lies where a stretch brings it to.
      for (const auto& item : layout.items)
        CHECK(std::any_of(layout.stretches.begin(), layout.stretches.end(), [&](const auto& s) {
          return item.slot_offset >= s.slot_offset &&
                 item.slot_offset + item.stored.size_bytes <= s.slot_offset + s.size_bytes &&
                 item.stored.offset_bytes - s.file_offset == item.slot_offset - s.slot_offset;
        }));
    }
    CHECK(bytes == std::accumulate(tensors.begin(), tensors.end(), std::int64_t{0},
                                   [](auto sum, const auto& t) { return sum + t.size_bytes; }));
  }
}

TEST_CASE("parts: every placement of weights gives the bits of the resident one, LoRAs and all") {
  toy::Folder folder;
  for (std::int64_t upload_from : {std::int64_t{1} << 30, std::int64_t{0}}) {
    for (std::int64_t registration_limit : {-1, 0}) {
      for (bool lora : {false, true}) {
        CAPTURE(upload_from);
        CAPTURE(registration_limit);
        CAPTURE(lora);
        Toy toy(folder, std::int64_t{1} << 22, upload_from);
        sim::refuse_registration_after(registration_limit);
        if (lora) toy.streamed->set_loras({{"a", folder.write_lora(toy.model, 8), 0.7}});
        toy.streamed->load(all(How::Resident, "sim:0"));
        const auto wanted = toy.run();
        for (const auto& homes :
             {all(How::Streamed, "cpu", 1), all(How::Streamed, "cpu", 2),
              all(How::Streamed, "disk", 2), all(How::Streamed, "sim:1", 1), mixed()}) {
          toy.streamed->load(homes);
          CHECK(at::equal(toy.run(), wanted));
        }
        // LoRAs come and go while weights rest in part.
        toy.streamed->set_loras({});
        toy.streamed->load(mixed());
        const auto without = toy.run();
        toy.streamed->load(all(How::Resident, "sim:0"));
        CHECK(at::equal(toy.run(), without));
      }
    }
  }
  sim::refuse_registration_after(-1);
}

TEST_CASE("parts: slots hold only what streams, the rest is on the device, to the byte") {
  toy::Folder folder;
  Toy toy(folder);
  constexpr std::int64_t matrix = width * width * 4, bias = width * 4;
  toy.streamed->load(all(How::Streamed, "cpu", 1), {{"cpu", 2}});
  toy.run();
  // An allocation is a multiple of 512 bytes.
  CHECK(toy.streamed->device_bytes("sim:0") == blocks * matrix + 2 * bias);
  const auto before = toy.streamed->streamed_bytes();
  toy.run();
  CHECK(toy.streamed->streamed_bytes() - before == 2 * blocks * bias);
  toy.streamed->load(all(How::Streamed, "cpu", 2), {{"cpu", 2}});
  CHECK(toy.streamed->device_bytes("sim:0") == blocks * bias + 2 * matrix);
}

TEST_CASE("parts: each wait is needed: the race check catches its removal") {
  toy::Folder folder;
  auto run = [&](sim::Waits lost, bool registered) {
    Toy toy(folder);
    sim::refuse_registration_after(registered ? -1 : 4 * width * width * 4);
    sim::lose_waits(lost);
    toy.streamed->load(all(How::Streamed, "cpu", 2));
    toy.run();
  };
  for (bool registered : {true, false}) {
    CHECK_NOTHROW(run(sim::Waits::None, registered));
    for (auto lost : {sim::Waits::OfComputeForOthers, sim::Waits::OfOthersForCompute})
      CHECK_THROWS_WITH(run(lost, registered), doctest::Contains("a race"));
  }
  sim::refuse_registration_after(-1);
}

TEST_CASE("parts: shrinking moves out what is asked for, a weight at a time, and changes no bit") {
  toy::Folder folder;
  Toy toy(folder);
  toy.streamed->load(all(How::Resident, "sim:0"));
  const auto wanted = toy.run();
  constexpr std::int64_t matrix = width * width * 4;
  auto held = toy.streamed->device_bytes("sim:0");
  const auto whole = held;
  for (std::int64_t bytes : {std::int64_t{1}, matrix / 2, 2 * matrix, 3 * matrix, 100 * matrix}) {
    const auto freed = toy.streamed->shrink(bytes);
    const auto now = toy.streamed->device_bytes("sim:0");
    CHECK(freed == held - now);
    if (bytes < 100 * matrix) {
      CHECK(freed >= bytes);
      CHECK(freed <= bytes + matrix);
    }
    held = now;
    CHECK(at::equal(toy.run(), wanted));
  }
  CHECK(held < whole / 4);
}

TEST_CASE("parts: where steps have a price, weights go that cost little and come that gain much") {
  toy::Folder folder;
  Toy toy(folder);
  toy.streamed->load(all(How::Resident, "sim:0"));
  const auto wanted = toy.run();
  constexpr std::int64_t matrix = width * width * 4;
  constexpr std::size_t special = 7;
  // Seconds of each block whose matrix streams.
  const auto price = [&](double others, double one) {
    return [others, one](const std::vector<BlockHome>& homes) {
      double sum = 0;
      for (std::size_t i = 0; i < homes.size(); ++i)
        if (homes[i].how == How::Streamed && !(homes[i].rests & 1))
          sum += i == special ? one : others;
      return sum;
    };
  };
  CHECK(toy.streamed->shrink(2 * matrix, price(1, 0.5)) >= 2 * matrix);
  CHECK(toy.streamed->homes()[special].how == How::Streamed);
  CHECK(at::equal(toy.run(), wanted));
  CHECK(toy.streamed->grow(matrix, price(1, 2)).value_or(0) > 0);
  CHECK(toy.streamed->homes()[special].how == How::Resident);
  CHECK(at::equal(toy.run(), wanted));
}

TEST_CASE("parts: weights that were to come back and find no room leave all as it was") {
  toy::Folder folder;
  std::int64_t upload_from = 0;  // with and without threads that bring them in pieces
  SUBCASE("in pieces") {}
  SUBCASE("at once") { upload_from = std::int64_t{1} << 30; }
  Toy toy(folder, std::int64_t{1} << 22, upload_from);
  const auto before = all(How::Streamed, "cpu");
  toy.streamed->load(before);
  const auto wanted = toy.run();
  constexpr std::int64_t room = 3 * width * width * 4;
  int refused = 0;
  for (int nth = 1;; ++nth) {
    REQUIRE(nth < 50);
    toy.streamed->load(before);
    const auto held = toy.streamed->device_bytes("sim:0");
    sim::fail_allocation(0, nth);
    const auto taken = toy.streamed->grow(room);
    if (sim::fault_pending(0)) break;
    if (taken) {
      CHECK(*taken > 0);
    } else {
      ++refused;
      CHECK((toy.streamed->homes() == before));
      CHECK(toy.streamed->device_bytes("sim:0") == held);
    }
    CHECK(at::equal(toy.run(), wanted));
  }
  CHECK(refused > 0);
}

TEST_CASE("parts: weights that are spread anew and find no room leave all as it was") {
  toy::Folder folder;
  Toy toy(folder, std::int64_t{1} << 22, 0);
  auto before = all(How::Streamed, "cpu"), after = before;
  for (std::size_t i = 0; i < before.size(); i += 2) before[i] = {How::Resident, "sim:0"};
  for (std::size_t i = 1; i < after.size(); i += 2) after[i] = {How::Resident, "sim:0"};
  toy.streamed->load(before, {{"cpu", 3}});
  const auto wanted = toy.run();
  int refused = 0;
  for (int nth = 1;; ++nth) {
    REQUIRE(nth < 80);
    toy.streamed->load(before, {{"cpu", 3}});
    const auto held = toy.streamed->device_bytes("sim:0");
    sim::fail_allocation(0, nth);
    const bool moved = toy.streamed->rearrange(after, {{"cpu", 2}});
    if (sim::fault_pending(0)) break;
    refused += !moved;
    CHECK((toy.streamed->homes() == (moved ? after : before)));
    CHECK(toy.streamed->slots() == (moved ? 2 : 3));
    if (!moved) CHECK(toy.streamed->device_bytes("sim:0") == held);
    CHECK(at::equal(toy.run(), wanted));
  }
  sim::fail_allocation(0, 1 << 20);
  CHECK(refused > 0);
  CHECK((toy.streamed->homes() == after));
  CHECK(at::equal(toy.run(), wanted));
}

TEST_CASE("parts: a weight that finds no room to stay streams, too") {
  toy::Folder folder;
  Toy toy(folder);
  toy.streamed->load(all(How::Resident, "sim:0"));
  const auto wanted = toy.run();
  int struck = 0;
  for (int nth = 1; nth < 12; ++nth) {
    toy.streamed->load(all(How::Resident, "sim:0"));
    sim::fail_allocation(0, nth);
    CHECK(toy.streamed->shrink(width * width * 8) > 0);
    if (sim::fault_pending(0)) break;
    ++struck;
    CHECK(at::equal(toy.run(), wanted));
  }
  CHECK(struck > 1);
}

TEST_CASE("parts: an engine fills its budget to the last weight and keeps it") {
  toy::Folder folder;
  for (std::int64_t kib : {900, 1300, 1850, 2400}) {
    CAPTURE(kib);
    const auto budget = kib * 1024;
    toy::Known::Size size{40, 128};
    Engine engine(toy::engine_options(toy::rig(1, std::int64_t{64} << 20), {{"sim:0", budget}}));
    toy::Known known(engine, folder, "filled", size);
    sim::reset_peak(0);
    const auto result = known.prepare_and_run();
    CHECK(sim::memory(0).peak <= budget);
    const auto* plan = engine.placement_of(*known.weights);
    CHECK(plan->peak_bytes() <= budget);
    CHECK(plan->peak_bytes() >= budget - 65536 - 512);
    toy::Known plain(engine, folder, "plain", size, {.compute = "cpu"});
    CHECK(at::equal(result, plain.prepare_and_run()));
  }
}
