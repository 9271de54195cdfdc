// A diffusion network at full size through the engine, on a card whose memory another process holds
// but for some: what a user with a smaller card, or with other programs on his, gets.
//   bench_gpu_filled --folder DIR --label flux [--device cuda:0] [--out FOLDER] [--sizes 512,1024]
//                    [--resident 1] [--rig FILE] [--each 20] [--weights FILE --form NAME]
// DIR holds what peer_network.py left. With --resident 1 the whole card is free: resident steps are
// timed, and their bits noted (filled_LABEL.json). Without it hold.py runs beside: steps are compared
// with the larger of the resident one and the link's time for what streams, the memory in use with
// what was free before this process touched the card. FOLDER/rig.yaml predicts; where there is none,
// the resident run fits one. With --each so many more steps are timed one by one, with what rests
// on the card after each, and two are traced: for those who look for a step that waits.
// A step is given its modulations, where the network takes them; what it takes to make those of a run
// of 20 steps is timed apart.
// --weights: the same model in another form (distorch convert), called by that name.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "bench/gpu/calibration.h"
#include "bench/gpu/network_step.h"
#include "bench/gpu/placed.h"
#include "distorch/base/atomic_file.h"
#include "distorch/base/rig.h"
#include "distorch/device/device.h"
#include "distorch/device/measure.h"
#include "distorch/device/memory.h"
#include "distorch/device/sim/sim.h"
#include "distorch/device/workspace.h"
#include "distorch/models/modulated.h"
#include "distorch/placement/timeline.h"
#include "distorch/streaming/engine.h"
#include "distorch/streaming/trace.h"

namespace {

using namespace distorch;
using namespace distorch::bench;

constexpr int kLevels = 20;    // steps of a run
constexpr int kSettling = 16;  // steps after which the engine has found out what is free
constexpr Rounds kRounds{.warm_ups = 2, .calls = 4, .rounds = 3};

class Bench {
 public:
  explicit Bench(const Args& args);
  int run();

 private:
  void open_model();
  void each(const Step& step);
  void modulate(Step& step);
  streaming::Profile profile(const Step& step, const RigDevice& speeds) const;
  void resident(Step& step);
  void calibrate(const std::vector<Step>& steps);
  void filled(Step& step);
  void compare(const Step& step, const Link& link, double step_s, std::int64_t used_bytes,
               std::int64_t outside_bytes);
  placement::Placement placed(const placement::System& system,
                              const placement::Model& described) const;
  std::string called(const Step& step) const {
    return fmt::format("{} {}, {:.1f} GB free", title_, step.size(),
                       static_cast<double>(free_bytes_) / 1e9);
  }

  Args args_;
  std::filesystem::path folder_, out_, facts_path_;
  std::string label_, name_, title_;
  std::int64_t free_bytes_;  // before this process took any
  c10::Device device_;
  Results results_;
  Json peer_, facts_;
  std::shared_ptr<const models::Family> family_;
  std::unique_ptr<models::Network> network_;
  std::shared_ptr<streaming::StreamedModel> model_;
};

/// As the driver's management library says it, without a context of ours.
std::int64_t free_bytes(const std::string& device) {
  device::list_devices();
  return device::find_device(device).free_bytes;
}

std::string gigabytes(std::int64_t bytes) {
  return fmt::format("{:.0f}", static_cast<double>(bytes) / 1e9);
}

Bench::Bench(const Args& args)
    : args_(args),
      folder_(args.get("--folder")),
      out_(args.get("--out", ".")),
      facts_path_(out_ / ("filled_facts_" + args.get("--label") + ".json")),
      label_(args.get("--label")),
      name_(args.get("--device", "cuda:0")),
      free_bytes_(free_bytes(name_)),
      device_(device::to_torch(name_)),
      results_(out_ /
               fmt::format("filled_{}_{}.json", label_,
                           args.get("--resident").empty() ? gigabytes(free_bytes_) : "resident")) {
  std::ifstream(folder_ / "peer.json") >> peer_;
  title_ = peer_.at("title").get<std::string>();
  if (const auto form = args.get("--form"); !form.empty()) title_ += " " + form;
  if (std::filesystem::exists(facts_path_)) std::ifstream(facts_path_) >> facts_;
}

void Bench::open_model() {
  family_ = models::detect_family(
      open(args_.get("--weights", (folder_ / "weights.safetensors").string())));
  network_ = family_->make_network();
  const auto dtype = peer_.at("dtype").get<std::string>();
  streaming::StreamedOptions options;
  options.name = label_;
  options.compute = name_;
  options.dtype = dtype == "float32" ? at::kFloat : dtype == "bfloat16" ? at::kBFloat16 : at::kHalf;
  options.channels_last = true;
  model_ = std::make_shared<streaming::StreamedModel>(network_->manifest(), family_->diffusion(),
                                                      options);
}

streaming::Profile Bench::profile(const Step& step, const RigDevice& speeds) const {
  auto fresh = family_->make_network();
  auto profile = streaming::profile_model(*model_, fresh->manifest(), speeds, [&](at::Device on) {
    fresh->apply(shapes_of(step.input, on));
  });
  if (step.input.has(models::kModulations)) streaming::leave_idle(profile);
  return profile;
}

/// The first time with what a run before it does not leave, code that has to be loaded.
void Bench::modulate(Step& step) {
  if (!step.input.has(models::kModulations)) return;
  std::vector<double> seconds;
  for (int i = 0; i < 2; ++i)
    seconds.push_back(make_modulations(*model_, *network_, step, kLevels));
  fmt::print("modulations of {} levels, {}: {:.4f} s, then {:.4f} s\n", kLevels, called(step),
             seconds[0], seconds[1]);
  facts_["modulations_s"][step.name] = seconds;
}

void Bench::resident(Step& step) {
  modulate(step);
  for (bool recorded : {false, true}) {
    model_->record_steps(recorded);
    const auto seconds =
        time_calls(device_, kRounds, [&] { step_of(*model_, *network_, step.input); });
    auto& best = facts_["resident_s"][step.name];
    best = best.is_null() ? seconds : std::min(seconds, best.get<double>());
  }
  facts_["bits"][step.name] = result_bits(step.name, step_of(*model_, *network_, step.input));
  model_->record_steps(false);
  step.resident_s = facts_["resident_s"][step.name].get<double>();
  each(step);
  fmt::print("{} {}, resident: {:.4f} s\n", title_, step.size(), step.resident_s);
}

/// The rig that predicts, fitted to the resident steps.
void Bench::calibrate(const std::vector<Step>& steps) {
  if (steps.empty() || std::filesystem::exists(out_ / "rig.yaml")) return;
  auto speeds = measure_device(name_);
  speeds.issue_s = issue_seconds(device_, [&] { network_->apply(steps[0].input); }) /
                   static_cast<double>(profile(steps[0], speeds).operations);
  fit_and_tell(speeds, measure_targets(*model_, *family_, *network_, device_, label_, steps));
  write_file(out_ / "rig.yaml", rig_text(rig_of(speeds, measure_link(*model_, device_))));
}

/// What the model's weights are on now, for a machine of the bench.
placement::Placement Bench::placed(const placement::System& system,
                                   const placement::Model& described) const {
  std::vector<placement::Home> homes;
  for (const auto& home : model_->homes())
    homes.push_back({home.how == placement::How::Resident ? 0 : 1, home.how, home.rests});
  return placement::make_placement(system, described, std::move(homes), model_->slots());
}

void Bench::compare(const Step& step, const Link& link, double step_s, std::int64_t used_bytes,
                    std::int64_t outside_bytes) {
  std::int64_t streamed = 0;
  for (std::size_t i = 0; i < model_->homes().size(); ++i)
    if (const int block = static_cast<int>(i); model_->homes()[i].how == placement::How::Streamed)
      streamed += model_->file_bytes(block) - model_->resting_bytes(block);
  const double resident_s = facts_.at("resident_s").at(step.name).get<double>();
  const double link_s = static_cast<double>(streamed) / link.bytes_per_s;
  results_.add("step / bound, " + called(step), step_s, std::max(resident_s, link_s), "s",
               {{"resident_s", resident_s},
                {"link_s", link_s},
                {"link_GBps", link.bytes_per_s / 1e9},
                {"streamed_GB", static_cast<double>(streamed) / 1e9}});
  results_.add("memory in use / free before, " + called(step),
               static_cast<double>(used_bytes) / 1e9, static_cast<double>(free_bytes_) / 1e9, "GB");
  const auto rig_file = out_ / "rig.yaml";
  if (!std::filesystem::exists(rig_file)) return;
  const auto rig = read_rig(rig_file);
  const auto system = machine(name_, free_bytes_, link);
  const auto profiled = profile(step, rig.devices[0]);
  auto described = describe(*model_, profiled, device::workspace_bytes(device_));
  if (std::any_of(model_->homes().begin(), model_->homes().end(),
                  [](const auto& home) { return home.how == placement::How::Aside; }))
    described = placement::without_idle(described);
  const auto placement = placed(system, described);
  results_.add("predicted / measured step, " + called(step),
               placement::Timeline(system, described).step_s(placement), step_s, "s");
  results_.add("predicted / measured memory, " + called(step),
               static_cast<double>(placement.peak_bytes() + outside_bytes) / 1e9,
               static_cast<double>(used_bytes) / 1e9, "GB");
}

void Bench::each(const Step& step) {
  const int count = std::stoi(args_.get("--each", "0"));
  for (int i = 0; i < count; ++i) {
    const auto seconds = time_calls(device_, {.warm_ups = 0, .calls = 1, .rounds = 1},
                                    [&] { step_of(*model_, *network_, step.input); });
    const auto memory = device::memory_use(device_);
    fmt::print(
        "step {}: {:.4f} s, of the model {:.3f} GB here, reserved {:.3f}, in use at most {:.3f}, "
        "free {:.3f}\n",
        i, seconds, static_cast<double>(model_->device_bytes(name_)) / 1e9,
        static_cast<double>(memory.reserved) / 1e9, static_cast<double>(memory.peak) / 1e9,
        static_cast<double>(memory.free) / 1e9);
  }
  if (count == 0) return;
  streaming::Trace trace;
  for (int i = 0; i < 2; ++i) step_of(*model_, *network_, step.input);
  write_file(
      out_ / fmt::format("trace_filled_{}_{}_{}.json", label_, step.name, gigabytes(free_bytes_)),
      trace.to_json());
}

/// Each size has an engine of its own, as a program has that is started for it.
void Bench::filled(Step& step) {
  const auto link = measure_link(*model_, device_);
  device::empty_cache(device_);
  device::save({device::machine_id(), {{"cpu", name_, link.bytes_per_s / 1e9, 0, link.latency_s}}},
               device::default_link_file());
  streaming::EngineOptions options;
  options.log_tables = false;
  options.default_device = name_;
  streaming::Engine engine(options);
  engine.add(model_, {.compute = name_}, true);
  streaming::RunNeeds needs;
  needs.key = step.name;
  needs.steps = 20;
  needs.profile = [&](const RigDevice& speeds) { return profile(step, speeds); };
  auto use = engine.prepare(model_, needs);
  modulate(step);
  at::Tensor result;
  std::int64_t least_free = free_bytes_;
  const auto one = [&] {
    result = step_of(*model_, *network_, step.input);
    least_free = std::min(least_free, device::memory_use(device_).free);
  };
  for (int i = 0; i < kSettling; ++i) one();
  device::synchronize(device_);
  least_free = device::memory_use(device_).free;  // weights that moved have left nothing behind
  const bool same = result_bits(step.name, result) == facts_.at("bits").at(step.name);
  result = at::Tensor();
  const auto step_s = time_calls(device_, kRounds, one);
  const auto memory = device::memory_use(device_);
  const auto outside = free_bytes_ - memory.free - memory.reserved;
  compare(step, link, step_s, free_bytes_ - least_free, outside);
  results_.add("bits equal to resident, " + called(step), same ? 1 : 0, 1, "");
  each(step);
  use = {};
  model_->unload();
  model_->make_room = nullptr;
  model_->before_step = nullptr;
  device::empty_cache(device_);
}

int Bench::run() {
  open_model();
  std::istringstream sizes(args_.get("--sizes", "512,1024"));
  const bool whole = !args_.get("--resident").empty();
  if (whole)
    model_->load(std::vector<streaming::BlockHome>(model_->block_count(),
                                                   {placement::How::Resident, name_}));
  std::vector<Step> timed;
  for (std::string size; std::getline(sizes, size, ',');) {
    auto step = read_step(folder_, size, device_);
    expect_modulations(*network_, step);
    try {
      whole ? resident(step) : filled(step);
      if (whole) timed.push_back(std::move(step));
    } catch (const std::exception& error) {
      fmt::print("FAILED: {}: {}\n", called(step), error.what());
    }
  }
  if (!whole) return 0;
  write_file(facts_path_, facts_.dump(1) + "\n");
  calibrate(timed);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return distorch::bench::run_program("bench_gpu_filled", argc, argv,
                                      [](const Args& args) { return Bench(args).run(); });
}
