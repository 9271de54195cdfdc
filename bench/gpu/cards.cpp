// A diffusion model on two cards against one.
//   bench_gpu_cards --mode split --folder DIR --label sdxl [--devices cuda:0,cuda:1] [--side 1024]
//                   [--frames N] [--tokens 77] [--steps 20] [--pooled N] [--out FOLDER] [--rig FILE]
//   bench_gpu_cards --mode spread --folder DIR --label flux [--devices ...] [--side 1024] ...
// DIR holds weights.safetensors, as peer_network.py or a download left it. split: positive and
// negative of a step at the same time, as MultiGPU CFG Split has it, through the nodes' own team.
// spread: one model over the free memory of both cards (hold.py keeps the rest); what the plan
// chooses, and beside it without the second card, streaming from it alone, and a layer split.
// Predictions beside measurements; results of all ways compared.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "bench/gpu/harness.h"
#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/device/measure.h"
#include "distorch/device/memory.h"
#include "distorch/nodes/app.h"
#include "distorch/nodes/team.h"
#include "distorch/placement/alternatives.h"
#include "distorch/placement/auto_plan.h"
#include "distorch/placement/timeline.h"
#include "distorch/streaming/described_model.h"

namespace {

using namespace distorch;
using namespace distorch::bench;

constexpr Rounds kRounds{.warm_ups = 3, .calls = 3, .rounds = 5};
constexpr float kSigma = 0.7f;

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> list;
  std::istringstream stream(text);
  for (std::string one; std::getline(stream, one, ',');) list.push_back(one);
  return list;
}

streaming::EngineOptions engine_options(const Args& args, const std::string& device) {
  streaming::EngineOptions options;
  options.default_device = device;
  options.log_tables = false;
  if (auto rig = args.get("--rig"); !rig.empty()) options.rig = read_rig(rig);
  if (auto budget = args.number("--budget", 0); budget > 0)
    for (const auto& name : split_list(args.get("--devices", "cuda:0,cuda:1")))
      options.budgets[name] = static_cast<std::int64_t>(budget);
  return options;
}

class Bench {
 public:
  explicit Bench(const Args& args)
      : args_(args),
        devices_(split_list(args.get("--devices", "cuda:0,cuda:1"))),
        label_(args.get("--label", "model")),
        app_(nodes::Settings{}, {}, engine_options(args, devices_.front())),
        device_(device::to_torch(devices_.front())),
        results_(std::filesystem::path(args.get("--out", ".")) /
                 fmt::format("cards_{}_{}.json", args.get("--mode"), label_)) {
    if (devices_.size() < 2)
      throw Error(ErrorKind::Usage, "--devices", "wants two, for example cuda:0,cuda:1");
    for (const auto& name : devices_) device::find_device(name);
    device::save(device::measure(), device::default_link_file());
    model_.loaded =
        app_.models.diffusion(std::filesystem::path(args.get("--folder")) / "weights.safetensors",
                              {.compute = devices_.front()});
    const auto cells =
        static_cast<std::int64_t>(args.number("--side", 1024)) / model_.latent_format().downscale;
    latent_ = {1, model_.latent_format().channels, cells, cells};
    if (model_.latent_format().dimensions == 3)
      latent_.insert(latent_.begin() + 2, static_cast<std::int64_t>(args.number("--frames", 1)));
    positive_ = conditioning(1);
    negative_ = conditioning(2);
  }
  int run() { return args_.get("--mode") == "spread" ? spread() : split(); }

 private:
  /// A prompt of random numbers.
  sampling::Conditioning conditioning(int seed) const {
    sampling::ConditioningItem item;
    std::int64_t width = 0;
    for (const auto& spec : model_.loaded->network->inputs())
      for (std::size_t d = 0; d + 1 < spec.shape.size(); ++d)
        if (spec.shape[d].of == models::Extent::Of::Tokens)
          width = spec.shape.back().of == models::Extent::Of::Number ? spec.shape.back().value : 0;
    const auto tokens = static_cast<std::int64_t>(args_.number("--tokens", 77));
    if (width > 0) item.cross_attn = seeded({1, tokens, width}, seed, at::kFloat, at::kCPU);
    if (const auto pooled = static_cast<std::int64_t>(args_.number("--pooled", 0)); pooled > 0)
      item.pooled_output = seeded({1, pooled}, seed + 10, at::kFloat, at::kCPU);
    return {item};
  }

  nodes::RunShape shape(double cfg) const {
    return {.latent = latent_,
            .steps = static_cast<int>(args_.number("--steps", 20)),
            .cfg = cfg,
            .positive = positive_,
            .negative = negative_};
  }

  struct Timed {
    double step_s = 0;
    std::string bits;
    at::Tensor result;
  };
  /// A step of both conditionings, or of the positive one.
  Timed time_step(sampling::X0Model& model, bool both) {
    const auto x = seeded(latent_, 3, at::kFloat, device_);
    sampling::EncodeContext context;
    context.noise = context.latent_image = x;
    const auto prepared = sampling::prepare_conditioning(
        model, positive_, both ? negative_ : sampling::Conditioning(), context);
    std::vector<const std::vector<sampling::PreparedItem>*> lists{&prepared.positive};
    if (both) lists.push_back(&prepared.negative);
    at::Tensor result;
    Timed timed;
    timed.step_s = time_calls(device_, kRounds, [&] {
      result = at::cat(sampling::predict_each(model, lists, x, kSigma));
    });
    timed.result = result.cpu();
    timed.bits = fingerprint(timed.result);
    return timed;
  }

  int split() {
    const auto run = shape(2.0);
    Timed one, alone, two;
    {
      nodes::SampledModel own(model_);
      own.prepare(app_.engine, run);
      one = time_step(own, true);
      alone = time_step(own, false);
    }
    nodes::SampledModel own(model_);
    auto team = nodes::Team::make(own, run, app_.engine, devices_);
    if (!team) {
      fmt::print("{}: two cards are predicted not to pay\n", label_);
      return 0;
    }
    two = time_step(*team, true);
    results_.add("step, two cards / one, " + label_, two.step_s, one.step_s, "s",
                 {{"times_faster", one.step_s / two.step_s}});
    results_.add("step, two cards / one conditioning alone, " + label_, two.step_s, alone.step_s,
                 "s", {{"most_times_faster", one.step_s / alone.step_s}});
    const double error = (two.result - one.result).abs().max().item<double>() /
                         one.result.abs().max().item<double>();
    results_.add("largest difference of two cards from one, " + label_, error, 1, "",
                 {{"same_bits", one.bits == two.bits}});
    return 0;
  }

  // --- one model over two cards

  /// What the plan chooses, and what it could have done instead. Only those that fit.
  std::vector<placement::Alternative> ways(const placement::System& system) {
    nodes::SampledModel own(model_);
    const auto needs = own.wanted(app_.engine, shape(1.0)).front().needs;
    const auto profile = needs.profile(app_.engine.speeds(devices_.front()));
    const auto described = streaming::describe(
        *model_.loaded->weights, system, streaming::host_bound(profile), app_.engine.machine());
    const auto plan = placement::auto_plan(system, described);
    fmt::print("{}: {}\n", label_, placement::reason(system, described, plan));
    std::vector<placement::Alternative> ways{
        {"as planned", placement::Timeline(system, described).step_s(plan), plan}};
    for (auto& other : placement::alternatives(system, described)) {
      if (other.placement)
        ways.push_back(std::move(other));
      else
        fmt::print("{}: {}: no room\n", label_, other.name);
    }
    return ways;
  }

  Timed time_way(const placement::System& system, const placement::Alternative& way) {
    auto& weights = *model_.loaded->weights;
    std::vector<streaming::BlockHome> homes;
    for (const auto& home : way.placement->blocks)
      homes.push_back({home.how, system.devices[home.device].name, home.rests});
    std::map<std::string, double> slots;
    for (const auto& ring : way.placement->rings)
      slots[system.devices[ring.device].name] = ring.slots;
    weights.load(homes, slots);
    nodes::SampledModel own(model_);
    return time_step(own, false);
  }

  int spread() {
    double best = 0;
    std::string bits;
    model_.loaded->weights->before_step = nullptr;
    const auto system = app_.engine.system(devices_.front());
    for (const auto& way : ways(system)) {
      try {
        const auto timed = time_way(system, way);
        if (best == 0) best = timed.step_s, bits = timed.bits;
        results_.add(fmt::format("step of {}, as planned / {}", label_, way.name), best,
                     timed.step_s, "s");
        results_.add(fmt::format("predicted / measured step of {}, {}", label_, way.name),
                     way.step_s, timed.step_s, "s", {{"same_bits", timed.bits == bits}});
      } catch (const std::exception& error) {
        fmt::print("FAILED: {} {}: {}\n", label_, way.name, error.what());
      }
      model_.loaded->weights->unload();
      for (const auto& name : devices_) device::empty_cache(device::to_torch(name));
    }
    return 0;
  }

  Args args_;
  std::vector<std::string> devices_;
  std::string label_;
  nodes::App app_;
  c10::Device device_;
  Results results_;
  nodes::Model model_;
  std::vector<std::int64_t> latent_;
  sampling::Conditioning positive_, negative_;
};

}  // namespace

int main(int argc, char** argv) {
  return run_program("bench_gpu_cards", argc, argv,
                     [](const Args& args) { return Bench(args).run(); });
}
