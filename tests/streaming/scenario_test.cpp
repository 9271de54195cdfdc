// Random sets of models, LoRAs, devices, budgets and orders of prompts, on simulated devices, against the
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
  std::int64_t rank = 0;  // of its LoRA
  std::vector<LoraUse> lora;
  std::map<std::pair<std::int64_t, bool>, at::Tensor> answers;  // by rows and LoRA, from the CPU
  std::map<std::pair<std::int64_t, bool>, std::int64_t> activations;
  /// A block at most: its LoRA's factors begin where a vector may.
  std::int64_t block_bytes(bool with_lora) const {
    return known->block_bytes() + (with_lora ? 2 * rank * known->size.width * 4 + 512 : 0);
  }
  std::int64_t bytes(bool with_lora) const { return block_bytes(with_lora) * known->size.blocks; }
  RunNeeds needs(std::int64_t rows, bool with_lora) {
    auto needs = known->needs(rows);
    if (with_lora) needs.loras = lora;
    return needs;
  }
};

/// One use of an actor in a prompt.
struct Part {
  Actor* actor = nullptr;
  std::int64_t rows = 0;
  bool lora = false;
  Engine::Wanted wanted() const { return {actor->known->weights, actor->needs(rows, lora)}; }
  std::int64_t activations() const { return actor->activations.at({rows, lora}); }
  std::int64_t least() const { return actor->block_bytes(lora); }
};

constexpr std::int64_t some_rows[] = {3, 40, 400};

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
        std::vector<Part> parts{pick()};
        if (auto inner = pick(); random_.chance(0.2) && inner.actor != parts[0].actor)
          parts.insert(parts.begin(), inner);
        run(parts);
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
    actor.rank = random_.whole(1, 24);
    actor.lora = {{"lora of " + name,
                   folder_.write_lora(plain.model, actor.rank, name + " lora.safetensors"),
                   random_.real(0.2, 1)}};
    for (bool lora : {false, true}) {
      auto uses = lora ? actor.lora : std::vector<LoraUse>();
      plain.weights->set_loras(uses);
      plain.weights->load(
          std::vector<BlockHome>(plain.weights->block_count(), {How::Resident, "cpu"}));
      actor.known->weights->set_loras(uses);
      for (auto rows : some_rows) {
        actor.answers[{rows, lora}] = plain.run(rows);
        auto profile = actor.known->needs(rows).profile(engine_->speeds(actor.device));
        actor.activations[{rows, lora}] = profile.peak_activation_bytes;
      }
    }
    actors_.push_back(std::move(actor));
  }

  Part pick() {
    auto& actor = actors_[random_.whole(0, static_cast<int>(actors_.size()) - 1)];
    return {&actor, some_rows[random_.whole(0, 2)], random_.chance(0.3)};
  }

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
                       const std::vector<Part>& parts, const std::string& device) {
    std::int64_t needed = activations_of(parts), partners = 0, stay = 0, stay_others = 0;
    std::set<const Actor*> own;
    bool partnered = false;
    for (const auto& part : parts) {
      needed += part.actor->bytes(part.lora);
      own.insert(part.actor);
      partnered = partnered || (part.actor->many_steps && !part.actor->allocated);
    }
    auto is_partner = [&](const Actor& actor) {
      return partnered && !own.count(&actor) && actor.many_steps && !actor.allocated &&
             actor.device == device;
    };
    for (const auto& actor : actors_)
      if (is_partner(actor)) partners += actor.bytes(true);
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

  static std::int64_t activations_of(const std::vector<Part>& parts) {
    std::int64_t most = 0;
    for (const auto& part : parts) most = std::max(most, part.activations());
    return most;
  }

  void run_and_check(const Part& part) {
    auto before = loaded(part.actor->device);
    CHECK(at::equal(part.actor->known->run(part.rows),
                    part.actor->answers.at({part.rows, part.lora})));
    // The plan was good: nobody had to make room while it ran.
    for (const auto& [other, bytes] : before) CHECK(other->known->loaded());
    streamed += part.actor->known->count(How::Streamed) > 0 ? 1 : 0;
  }

  void check_peaks() {
    for (const auto& [device, bytes] : engine_->options().budgets)
      CHECK(sim::memory(device.back() - '0').peak <= bytes);
  }

  /// One block of each with its LoRA, and the activations of one: so much has to be enough where
  /// nobody asks for a certain split.
  bool has_to_fit(const std::vector<Part>& parts) const {
    std::int64_t needed = activations_of(parts);
    for (const auto& part : parts) {
      if (part.actor->allocated || part.actor->device != parts[0].actor->device) return false;
      needed += part.least();
    }
    return needed <= budget(parts[0].actor->device);
  }

  /// The last runs within the others' steps.
  void run(const std::vector<Part>& parts) {
    const auto& device = parts[0].actor->device;
    auto before = loaded(device);
    bool prepared = false;
    try {
      std::vector<Engine::Wanted> wanted;
      for (const auto& part : parts) wanted.push_back(part.wanted());
      auto uses = engine_->prepare(wanted);
      prepared = true;
      for (const auto& part : parts) CHECK(part.actor->known->loaded());
      bool free = std::all_of(parts.begin(), parts.end(), [&](const Part& part) {
        return !part.actor->allocated && part.actor->device == device;
      });
      if (free) check_evictions(before, parts, device);
      for (int step = 0; step < 2; ++step)
        for (const auto& part : parts) run_and_check(part);
      ++completed;
    } catch (const Error& error) {
      INFO(error.what());
      CHECK(error.kind() == ErrorKind::OutOfMemory);
      CHECK_FALSE(prepared);
      CHECK_FALSE(has_to_fit(parts));
      if (parts.size() == 1)
        for (const auto& [other, bytes] : before) CHECK(other->known->loaded());
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
