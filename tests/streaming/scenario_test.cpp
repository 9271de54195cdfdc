// Random sets of models, devices, budgets and orders of prompts, on simulated devices, against the
// engine's promises. A size oracle knows what has to fit.
#include <doctest/doctest.h>

#include <ctime>
#include <random>
#include <set>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "tests/streaming/known_models.h"

using namespace distorch;
using namespace distorch::streaming;
using placement::How;
using toy::Known;

namespace {

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  int whole(int from, int to) { return std::uniform_int_distribution<int>(from, to)(engine_); }
  double real(double from, double to) {
    return std::uniform_real_distribution<double>(from, to)(engine_);
  }
  bool chance(double p) { return real(0, 1) < p; }

 private:
  std::mt19937_64 engine_;
};

/// A model of the scenario and what the oracle knows of it.
struct Actor {
  std::unique_ptr<Known> known;
  std::string device;
  bool many_steps = false, eject = true, allocated = false;
  std::map<std::int64_t, at::Tensor> answers;        // by rows, from the CPU
  std::map<std::int64_t, std::int64_t> activations;  // by rows
  std::int64_t bytes() const { return known->block_bytes() * known->size.blocks; }
};

constexpr std::int64_t most_rows[] = {3, 40, 400};

class Scenario {
 public:
  explicit Scenario(std::uint64_t seed) : random_(seed) {
    int devices = random_.whole(1, 2);
    auto rig = toy::rig(devices, std::int64_t{64} << 20);
    std::map<std::string, std::int64_t> budgets;
    for (int i = 0; i < devices; ++i)
      budgets["sim:" + std::to_string(i)] = random_.whole(150, 2500) * 1024;
    auto options = toy::engine_options(rig, budgets);
    engine_ = std::make_unique<Engine>(options);
    for (int i = random_.whole(2, 5); i > 0; --i) add(devices);
  }

  void run() {
    for (int prompt = random_.whole(2, 4); prompt > 0; --prompt) {
      RunScope scope(std::make_shared<RunToken>());
      for (int use = random_.whole(1, 5); use > 0; --use) {
        auto& actor = pick();
        auto rows = most_rows[random_.whole(0, 2)];
        auto* partner = random_.chance(0.2) ? &pick() : nullptr;
        if (partner && partner != &actor)
          run_both(actor, *partner, rows);
        else
          run_one(actor, rows);
      }
    }
  }

  int completed = 0, refused = 0, evicted = 0, streamed = 0;

 private:
  void add(int devices) {
    Actor actor;
    actor.device = "sim:" + std::to_string(random_.whole(0, devices - 1));
    actor.many_steps = random_.chance(0.5);
    actor.eject = random_.chance(0.8);
    actor.allocated = random_.chance(0.15);
    PlacementRequest request{.compute = actor.device, .eject = actor.eject};
    if (actor.allocated) request.allocation = actor.device + ",50%;cpu,50%";
    Known::Size size{random_.whole(1, 5), random_.whole(1, 3) * 64};
    auto name = "model" + std::to_string(actors_.size());
    actor.known = std::make_unique<Known>(*engine_, folder_, name, size, request, actor.many_steps);
    Known plain(*engine_, folder_, name + " on the CPU", size, {.compute = "cpu"}, false);
    plain.weights->load(
        std::vector<BlockHome>(plain.weights->block_count(), {How::Resident, "cpu"}));
    for (auto rows : most_rows) {
      actor.answers[rows] = plain.run(rows);
      auto profile = actor.known->needs(rows).profile(engine_->speeds(actor.device));
      actor.activations[rows] = profile.peak_activation_bytes;
    }
    actors_.push_back(std::move(actor));
  }

  Actor& pick() { return actors_[random_.whole(0, static_cast<int>(actors_.size()) - 1)]; }

  std::int64_t budget(const std::string& device) const {
    return engine_->options().budgets.at(device);
  }

  /// What is loaded, and what it holds on a device.
  std::map<const Actor*, std::int64_t> loaded(const std::string& device) const {
    std::map<const Actor*, std::int64_t> list;
    for (const auto& actor : actors_)
      if (actor.known->loaded()) list[&actor] = actor.known->weights->device_bytes(device);
    return list;
  }

  /// Nobody went who could have stayed beside the prepared ones, all of them resident.
  void check_evictions(const std::map<const Actor*, std::int64_t>& before,
                       const std::set<const Actor*>& own, std::int64_t activations,
                       const std::string& device) {
    std::int64_t needed = activations, partners = 0, stay = 0;
    bool partnered = false;
    for (const auto* actor : own) {
      needed += actor->bytes();
      partnered = partnered || (actor->many_steps && !actor->allocated);
    }
    auto is_partner = [&](const Actor& actor) {
      return partnered && !own.count(&actor) && actor.many_steps && !actor.allocated &&
             actor.device == device;
    };
    for (const auto& actor : actors_)
      if (is_partner(actor)) partners += actor.bytes();
    std::int64_t stay_others = 0;
    for (const auto& [actor, bytes] : before)
      if (!own.count(actor) && actor->known->loaded()) {
        stay += bytes;
        if (!is_partner(*actor)) stay_others += bytes;
      }
    for (const auto& [actor, bytes] : before) {
      if (own.count(actor) || actor->known->loaded()) continue;
      ++evicted;
      bool in_the_way = needed + stay + bytes > budget(device) ||
                        needed + partners + stay_others + bytes > budget(device);
      CHECK(in_the_way);
    }
  }

  void run_and_check(Actor& actor, std::int64_t rows) {
    auto before = loaded(actor.device);
    CHECK(at::equal(actor.known->run(rows), actor.answers[rows]));
    // The plan was good: nobody had to make room while it ran.
    for (const auto& [other, bytes] : before) CHECK(other->known->loaded());
    streamed += actor.known->count(How::Streamed) > 0 ? 1 : 0;
  }

  void check_peaks() {
    for (const auto& [device, bytes] : engine_->options().budgets) {
      auto index = device.back() - '0';
      CHECK(sim::memory(index).peak <= bytes);
      CHECK(sim::memory(index).in_use <= bytes);
    }
  }

  /// Alone on its device a model needs one block with its activations.
  static std::int64_t least(const Actor& actor) { return actor.known->block_bytes(); }

  void run_one(Actor& actor, std::int64_t rows) {
    auto before = loaded(actor.device);
    try {
      auto use = actor.known->prepare(rows);
      check_evictions(before, {&actor}, actor.activations[rows], actor.device);
      run_and_check(actor, rows);
      ++completed;
    } catch (const Error& error) {
      INFO(error.what());
      CHECK(error.kind() == ErrorKind::OutOfMemory);
      bool fits = least(actor) + actor.activations[rows] <= budget(actor.device);
      CHECK((actor.allocated || !fits));
      for (const auto& [other, bytes] : before) CHECK(other->known->loaded());
      ++refused;
    }
    check_peaks();
  }

  void run_both(Actor& outer, Actor& inner, std::int64_t rows) {
    auto before = loaded(outer.device);
    auto activations = std::max(outer.activations[rows], inner.activations[rows]);
    try {
      auto uses = engine_->prepare({{outer.known->weights, outer.known->needs(rows)},
                                    {inner.known->weights, inner.known->needs(rows)}});
      CHECK(outer.known->loaded());
      CHECK(inner.known->loaded());
      if (outer.device == inner.device && !outer.allocated && !inner.allocated)
        check_evictions(before, {&outer, &inner}, activations, outer.device);
      for (int step = 0; step < 2; ++step) {
        run_and_check(inner, rows);
        run_and_check(outer, rows);
      }
      ++completed;
    } catch (const Error& error) {
      INFO(error.what());
      CHECK(error.kind() == ErrorKind::OutOfMemory);
      bool fits = outer.device == inner.device &&
                  least(outer) + least(inner) + activations <= budget(outer.device);
      CHECK((outer.allocated || inner.allocated || !fits));
      ++refused;
    }
    check_peaks();
  }

  Random random_;
  toy::Folder folder_;
  std::unique_ptr<Engine> engine_;
  std::vector<Actor> actors_;
};

}  // namespace

TEST_CASE("scenarios: any models, budgets and orders of prompts keep the engine's promises") {
  int completed = 0, refused = 0, evicted = 0, streamed = 0;
  const std::clock_t start = std::clock();
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    Scenario scenario(seed);
    scenario.run();
    completed += scenario.completed;
    refused += scenario.refused;
    evicted += scenario.evicted;
    streamed += scenario.streamed;
  }
  MESSAGE(completed << " runs completed, " << streamed << " of them streamed, " << refused
                    << " refused, " << evicted << " evictions, "
                    << static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC
                    << " s of processor time");
  CHECK(completed > 200);
  CHECK(streamed > 30);
  CHECK(refused > 5);
  CHECK(evicted > 20);
}
