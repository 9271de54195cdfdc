#include "distorch/streaming/described_model.h"
#include "tests/streaming/known_models.h"

// Blocks that no call of a step runs: they rest where everything does, else they are brought for each
// of their runs and let go.
using namespace distorch;
using namespace toy;

namespace {

at::Tensor step(Known& known, const at::Tensor& x) {
  return known.weights->step({x}, [&](const std::vector<at::Tensor>& in) {
    return known.model.forward(in[0], known.idle);
  });
}

at::Tensor aside(Known& known, const at::Tensor& x) {
  return known.weights->aside([&] { return known.model.forward(x, 0, known.idle); });
}

at::Tensor ones_on_device() { return at::ones({5, 128}).to(at::Device("sim:0")); }

/// What a device that holds all of it gives: the blocks before a step, then two steps.
at::Tensor wanted(Folder& folder) {
  Engine engine(engine_options(rig(1, std::int64_t{1} << 30)));
  Known known(engine, folder, "wanted");
  known.idle = 4;
  auto use = known.prepare();
  CHECK(known.count(How::Resident) == 10);
  return step(known, step(known, aside(known, ones_on_device()))).cpu();
}

}  // namespace

TEST_CASE("aside: idle blocks rest where all has room, else they leave it to the others") {
  Folder folder;
  const auto result = wanted(folder);
  const std::int64_t block = (128 * 128 + 128) * 4;
  for (std::int64_t room : {8, 6}) {
    CAPTURE(room);
    Engine engine(engine_options(rig(1, std::int64_t{1} << 30), {{"sim:0", room * block}}));
    Known known(engine, folder, "known");
    known.idle = 4;
    auto use = known.prepare();
    CHECK(known.count(How::Aside) == 4);
    CHECK((known.count(How::Resident) == 6) == (room == 8));
    const auto& placement = *engine.placement_of(*known.weights);
    CHECK(placement.all_resident() == (room == 8));
    CHECK(placement.activation_bytes >= block);  // one of them is there at a time
    CHECK(placement.peak_bytes() <= room * block);
    const auto held = known.weights->device_bytes("sim:0");
    auto x = aside(known, ones_on_device());
    CHECK(known.weights->device_bytes("sim:0") == held);
    for (int i = 0; i < 2; ++i) x = step(known, x);
    CHECK(at::equal(x.cpu(), result));
  }
}

TEST_CASE("aside: a step that runs such blocks after all has the same bits, recorded or not") {
  Folder folder;
  const auto result = wanted(folder);
  for (bool recorded : {false, true}) {
    CAPTURE(recorded);
    Engine engine(engine_options(rig(1, std::int64_t{1} << 30),
                                 {{"sim:0", std::int64_t{9} * (128 * 128 + 128) * 4}}));
    Known known(engine, folder, "known");
    known.idle = 4;
    auto use = known.prepare();
    REQUIRE(known.count(How::Aside) == 4);
    known.weights->record_steps(recorded);
    auto whole = [&](const at::Tensor& x) {
      return known.weights->step(
          {x}, [&](const std::vector<at::Tensor>& in) { return known.model.forward(in[0]); },
          "whole");
    };
    const auto first = whole(ones_on_device()).cpu();
    for (int i = 0; i < 4; ++i) {
      CHECK(at::equal(whole(ones_on_device()).cpu(), first));
      // What brings them is let go, and a recording must not read where it lay.
      const auto x = step(known, step(known, aside(known, ones_on_device())));
      CHECK(at::equal(x.cpu(), result));
    }
  }
}

TEST_CASE("aside: LoRAs of such blocks count, and what was planned before them is planned again") {
  Folder folder;
  Engine engine(engine_options(rig(1, std::int64_t{1} << 30),
                               {{"sim:0", std::int64_t{8} * (128 * 128 + 128) * 4}}));
  Known known(engine, folder, "known");
  known.idle = 4;
  const auto lora = folder.write_lora(known.model, 2);
  auto run = [&](double strength) {
    auto needs = known.needs();
    needs.key += strength == 0 ? "" : " with LoRA";
    if (strength != 0) needs.loras = {{"a", lora, strength}};
    auto use = engine.prepare(known.weights, needs);
    CHECK(known.count(How::Aside) == 4);
    return aside(known, ones_on_device()).cpu();
  };
  const auto plain = run(0), with = run(0.8), weaker = run(0.4);
  CHECK_FALSE(at::equal(plain, with));
  CHECK_FALSE(at::equal(with, weaker));
  CHECK(at::equal(run(0.8), with));
  CHECK(at::equal(run(0), plain));
}
