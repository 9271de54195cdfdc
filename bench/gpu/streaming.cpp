// Offloaded weights on a real accelerator: a step of a FLUX-shaped model with 25, 50 and 100 % of
// its weights in the registered mapping of its file, over the larger of its resident step and bytes
// / link.
//   bench_gpu_streaming --file WEIGHTS [--device cuda:0] [--out FOLDER] [--seconds 200] [--tiny 1]
//   [--donors-only 1]
// Writes streaming.json (results), streaming_facts.json (for the peers), calibration_flux.json
// (what was measured for the fit) and rig.yaml (the calibrated machine).
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "bench/gpu/calibration.h"
#include "bench/gpu/flux_like.h"
#include "bench/gpu/placed.h"
#include "distorch/base/atomic_file.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/sim/sim.h"
#include "distorch/device/streams.h"
#include "distorch/formats/tensor_file.h"
#include "distorch/placement/auto_plan.h"
#include "distorch/streaming/profile.h"
#include "distorch/streaming/streamed_model.h"
#include "distorch/streaming/trace.h"

namespace {

using namespace distorch;
using namespace distorch::bench;
using placement::How;

struct Size {
  std::string name;
  std::int64_t image, text;
  int calls, rounds;  // steps back to back, and how often
  double resident_s = 0;
  std::string bits;  // of the resident step's result
};

class Bench {
 public:
  explicit Bench(const Args& args);
  int run();

 private:
  FluxInputs inputs(const Size& size, c10::Device device) const;
  streaming::Profile profile(const Size& size, const RigDevice& speeds);
  void measure_resident();
  void calibrate_speeds();
  void offloaded(double share);
  void from_donor(const std::string& donor);
  void small_budget(double bytes);
  void write_facts();
  Case make_case(const Size& size, const std::string& label);
  placement::Model described(const Size& size) {
    return describe(*model_, streaming::host_bound(profile(size, speeds_)), library_bytes_);
  }
  bool late() const { return now_s() - start_s_ > limit_s_; }

  double start_s_ = now_s();
  Args args_;
  std::filesystem::path out_;
  std::string name_;
  c10::Device device_;
  double limit_s_;
  bool tiny_;
  std::vector<Size> sizes_;
  Results results_;
  weights::Checkpoint checkpoint_;
  std::unique_ptr<FluxLike> flux_;
  std::unique_ptr<streaming::StreamedModel> model_;
  RigDevice speeds_;
  Link link_;
  std::int64_t library_bytes_ = 0;
  double resident_set_before_ = 0;
  Json facts_;
};

Bench::Bench(const Args& args)
    : args_(args),
      out_(args.get("--out", ".")),
      name_(args.get("--device", "cuda:0")),
      device_((device::list_devices(), device::to_torch(name_))),
      limit_s_(args.number("--seconds", 200)),
      tiny_(args.number("--tiny", 0) != 0),
      results_(out_ / "streaming.json") {
  if (tiny_)
    sizes_ = {{"512", 48, 16, 2, 2}, {"1024", 96, 16, 2, 2}, {"2048", 160, 16, 1, 2}};
  else
    sizes_ = {{"512", 1024, 512, 4, 5}, {"1024", 4096, 512, 4, 5}, {"2048", 16384, 512, 2, 3}};
  seeded({16}, 1, at::kBFloat16, device_).add_(1);  // brings the context up
  device::synchronize(device_);
  resident_set_before_ = resident_set_bytes();
  auto file = std::make_shared<formats::TensorFile>(formats::open_tensor_file(args.get("--file")));
  checkpoint_ = weights::Checkpoint(file);
  flux_ = std::make_unique<FluxLike>(checkpoint_);
  streaming::StreamedOptions options;
  options.name = "flux-like";
  options.compute = name_;
  options.dtype = at::kBFloat16;
  model_ = std::make_unique<streaming::StreamedModel>(flux_->manifest(), checkpoint_, options);
}

FluxInputs Bench::inputs(const Size& size, c10::Device device) const {
  auto width = flux_->width();
  auto options = at::TensorOptions().dtype(at::kBFloat16).device(device);
  if (sim::dry())
    return {at::empty({1, size.image, width}, options), at::empty({1, size.text, width}, options),
            at::empty({1, width}, options)};
  return {seeded({1, size.image, width}, 11, at::kBFloat16, device),
          seeded({1, size.text, width}, 12, at::kBFloat16, device),
          seeded({1, width}, 13, at::kBFloat16, device)};
}

streaming::Profile Bench::profile(const Size& size, const RigDevice& speeds) {
  FluxLike fresh(checkpoint_);
  return streaming::profile_model(*model_, fresh.manifest(), speeds,
                                  [&](at::Device device) { fresh.forward(inputs(size, device)); });
}

void Bench::measure_resident() {
  model_->load(std::vector<streaming::BlockHome>(model_->block_count(), {How::Resident, name_}));
  device::synchronize(device_);
  link_ = measure_link(*model_, device_);
  for (auto& size : sizes_) {
    auto given = inputs(size, device_);
    size.resident_s = time_calls(device_, {.warm_ups = 2, .calls = size.calls, .rounds = 5},
                                 [&] { flux_->forward(given); });
    size.bits = result_bits(size.name, flux_->forward(given));
    auto issue = time_issue(device_, 1, [&] { flux_->forward(given); });
    fmt::print("resident {:>5}: {:.4f} s; the host issues it in {:.4f} s\n", size.name,
               size.resident_s, issue);
    facts_["issue_s"][size.name] = issue;
  }
  device::synchronize(device_);
  // What libraries keep for themselves once they have run.
  library_bytes_ = device::memory_use(device_).in_use - model_->device_bytes(name_);
}

void Bench::calibrate_speeds() {
  speeds_ = measure_device(name_);
  fmt::print(
      "matmul bf16 {:.0f}, fp16 {:.0f}, fp32 {:.0f} TFLOP/s; memory {:.0f} GB/s; issue of one "
      "operation {:.2f} us; "
      "kept by libraries {:.1f} MB\n",
      speeds_.tflops["bfloat16"], speeds_.tflops["float16"], speeds_.tflops["float32"],
      speeds_.memory_bytes_per_s / 1e9, speeds_.issue_s * 1e6,
      static_cast<double>(library_bytes_) / 1e6);
  facts_["primitives"] = {{"bf16_tflops", speeds_.tflops["bfloat16"]},
                          {"fp16_tflops", speeds_.tflops["float16"]},
                          {"fp32_tflops", speeds_.tflops["float32"]},
                          {"memory_GBps", speeds_.memory_bytes_per_s / 1e9},
                          {"issue_us", speeds_.issue_s * 1e6}};
  for (const auto& size : sizes_)
    fmt::print("predicted from these alone, resident {}: {:.4f} s\n", size.name,
               profile(size, speeds_).total_s);
  speeds_.issue_s = facts_["issue_s"][sizes_[0].name].get<double>() /
                    static_cast<double>(profile(sizes_[0], speeds_).operations);
  auto rig = rig_of(speeds_, link_);
  std::vector<streaming::StepTarget> targets;
  for (const auto& size : sizes_) {
    auto given = inputs(size, device_);
    auto forward = [&] { flux_->forward(given); };
    auto seconds = device_seconds(device_, size.resident_s,
                                  facts_["issue_s"][size.name].get<double>(), forward);
    FluxLike fresh(checkpoint_);
    auto operations = streaming::operations_of(
        *model_, fresh.manifest(), [&](at::Device device) { fresh.forward(inputs(size, device)); });
    targets.push_back(streaming::make_target("flux " + size.name, seconds, operations,
                                             time_blocks(*model_, device_, 5, forward),
                                             model_->manifest().blocks()));
  }
  write_calibration(out_ / "calibration_flux.json", {rig, targets});
  fit_and_tell(speeds_, targets);
  write_file(out_ / "rig.yaml", rig_text(rig_of(speeds_, link_)));
  for (const auto& size : sizes_)
    results_.add("predicted / measured step, resident, " + size.name,
                 streaming::host_bound(profile(size, speeds_)).total_s, size.resident_s, "s",
                 {{"calibrated_on_this", true}});
}

Case Bench::make_case(const Size& size, const std::string& label) {
  return {size.name + " px, " + label,
          size.resident_s,
          size.bits,
          {.warm_ups = 2, .calls = size.calls, .rounds = size.rounds},
          [this, given = inputs(size, device_)] { return flux_->forward(given); }};
}

void Bench::offloaded(double share) {
  auto system = machine(name_, roomy_budget(name_), link_);
  for (const auto& size : sizes_) {
    if (late()) {
      fmt::print("left out for lack of time: {} px, {:.0f} %\n", size.name, share * 100);
      continue;
    }
    auto subject = make_case(size, fmt::format("{:.0f} % offloaded", share * 100));
    auto model = described(size);
    auto step = measure(subject, *model_, system, model, offload(system, model, share), results_);
    facts_["steps"].push_back({{"size", size.name}, {"share", share}, {"step_s", step}});
    if (size.name == "1024" && share == 0.25) {
      load(*model_, system, offload(system, model, share));
      for (int i = 0; i < 3; ++i) subject.step();
      device::synchronize(device_);
      streaming::Trace trace;
      for (int i = 0; i < 2; ++i) subject.step();
      write_file(out_ / "trace_flux_1024_25.json", trace.to_json());
    }
  }
}

/// Everything in the memory of another accelerator.
void Bench::from_donor(const std::string& donor) {
  auto link = link_;
  link.bytes_per_s = 100e9;  // for the plan; what it is compared with is measured
  auto system = machine(name_, roomy_budget(name_), link, donor);
  for (const auto& size : sizes_) {
    if (late()) return;
    auto subject = make_case(size, "100 % offloaded to " + donor);
    subject.compares = Case::Compares::Always;  // the link is only guessed yet
    try {
      auto model = described(size);
      measure(subject, *model_, system, model, offload(system, model, 1), results_);
    } catch (const std::exception& error) {
      fmt::print("FAILED: {}: {}\n", subject.name, error.what());
    }
  }
  model_->unload();
}

/// The whole model under a budget that holds a fraction of it: the allocator itself refuses more.
void Bench::small_budget(double bytes) {
  auto limit = static_cast<std::int64_t>(bytes);
  model_->load(std::vector<streaming::BlockHome>(model_->block_count(), {How::Streamed, "cpu"}),
               {{"cpu", 1}});
  device::synchronize(device_);
  device::empty_cache(device_);
  device::limit_memory(device_, limit);
  // As the engine does it.
  model_->make_room = [this](const std::string&, std::int64_t wanted) {
    device::empty_cache(device_);
    return model_->shrink(wanted) > 0;
  };
  // What the allocator loses to rounding and to holes between tensors of different sizes; where it is
  // more, weights make way.
  auto budget = static_cast<std::int64_t>(bytes - std::max(64.0 * (1 << 20), 0.01 * bytes));
  for (const auto& size : sizes_) {
    if (size.name == "2048") continue;
    auto label = fmt::format("budget {:.2g} GB", bytes / 1e9);
    device::empty_cache(device_);  // pieces of what an earlier size kept would be holes
    try {
      auto system = machine(name_, budget, link_);
      auto model = described(size);
      measure(make_case(size, label), *model_, system, model, placement::auto_plan(system, model),
              results_);
      auto use = device::memory_use(device_);
      results_.add(fmt::format("held from the system / budget, {} px", size.name),
                   static_cast<double>(use.reserved) / 1e9, bytes / 1e9, "GB");
    } catch (const std::exception& error) {
      fmt::print("FAILED: {} px, {}: {}\n", size.name, label, error.what());
    }
  }
  model_->unload();
  device::limit_memory(device_, 0);
}

void Bench::write_facts() {
  facts_["link_bytes_per_s"] = link_.bytes_per_s;
  facts_["file_bytes"] = model_->total_file_bytes();
  for (const auto& size : sizes_) facts_["resident_s"][size.name] = size.resident_s;
  write_file(out_ / "streaming_facts.json", facts_.dump(1) + "\n");
}

int Bench::run() {
  fmt::print("{} blocks, {:.2f} GB; columns: ours, compared with, unit, ratio\n",
             model_->block_count(), static_cast<double>(model_->total_file_bytes()) / 1e9);
  measure_resident();
  calibrate_speeds();
  write_facts();
  for (const auto& info : device::list_devices()) {
    if (!info.accelerator || info.name == name_) continue;
    from_donor(info.name);
    break;
  }
  if (args_.number("--donors-only", 0) != 0) return 0;
  for (double share : {1.0, 0.5, 0.25}) {
    offloaded(share);
    write_facts();
    if (share == 1.0) {
      auto grown = resident_set_bytes() - resident_set_before_;
      results_.add("host memory / file", grown / 1e9,
                   static_cast<double>(model_->total_file_bytes()) / 1e9, "GB");
    }
  }
  small_budget(args_.number("--budget", 2e9));
  write_facts();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return distorch::bench::run_program("bench_gpu_streaming", argc, argv,
                                      [](const Args& args) { return Bench(args).run(); });
}
