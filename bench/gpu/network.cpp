// The diffusion network of a model at full size, beside diffusers on the same weights and inputs.
//   bench_gpu_network --folder DIR --label sdxl [--device cuda:0] [--out FOLDER] [--both 0]
//                     [--rig FILE] [--kernels 1] [--weights FILE --form NAME]
// --weights: the same model in another form (distorch convert), called by that name.
// --both 0: steps are timed as the engine would run them, not the other way (recorded or not).
// Where a step takes seconds (a video's) fewer are timed, and those as with --both 0.
// --kernels 1: besides, which kernels a resident step consists of (kernels_LABEL_SIZE.json), and
// nothing more.
// DIR holds what peer_network.py left: weights.safetensors, case_1024.safetensors (the network's
// inputs by name, "out"), ..., peer.json (title, dtype, sizes, seconds of a step). Writes LABEL.json
// (results), calibration_LABEL.json (what was measured for the fit) and rig.yaml: fitted to this
// model and, where calibration_flux.json is in FOLDER, to that.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "bench/gpu/calibration.h"
#include "bench/gpu/kernels.h"
#include "bench/gpu/network_step.h"
#include "bench/gpu/placed.h"
#include "distorch/base/atomic_file.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/streams.h"
#include "distorch/formats/tensor_file.h"
#include "distorch/models/catalog.h"
#include "distorch/placement/timeline.h"
#include "distorch/streaming/trace.h"

namespace {

using namespace distorch;
using namespace distorch::bench;

/// What the inputs of a call take on the device, as its allocator rounds.
std::int64_t bytes_of(const models::Inputs& input) {
  std::int64_t bytes = 0;
  for (const auto& [name, tensor] : input.tensors())
    bytes += (static_cast<std::int64_t>(tensor.nbytes()) + 511) / 512 * 512;
  return bytes;
}

constexpr Rounds kResident{.warm_ups = 3, .calls = 8, .rounds = 5};
constexpr Rounds kOffloaded{.warm_ups = 6, .calls = 12, .rounds = 5};
constexpr double kMost_s = 15;  // of timing one thing

double relative_error(const at::Tensor& got, const at::Tensor& wanted) {
  auto a = got.cpu().to(at::kDouble), b = wanted.to(at::kDouble);
  return ((a - b).norm() / b.norm()).item().toDouble();
}

/// What bench_gpu_streaming has measured in the same folder, to be fitted together with this model;
/// without it, the device is measured here.
Calibration measured_before(const std::filesystem::path& folder, const std::string& device,
                            const Link& link) {
  const auto path = folder / "calibration_flux.json";
  if (std::filesystem::exists(path)) return read_calibration(path);
  return {rig_of(measure_device(device), link), {}};
}

int run(const Args& args) {
  std::filesystem::path folder = args.get("--folder"), out = args.get("--out", ".");
  auto name = args.get("--device", "cuda:0");
  device::list_devices();
  auto device = device::to_torch(name);
  Results results(out / (args.get("--label") + ".json"));
  Json peer;
  std::ifstream(folder / "peer.json") >> peer;

  const auto label = args.get("--label"), form = args.get("--form");
  const auto title = peer.at("title").get<std::string>() + (form.empty() ? "" : " " + form);
  const auto weights_file = args.get("--weights", (folder / "weights.safetensors").string());
  auto family = models::detect_family(open(weights_file));
  const auto& checkpoint = family->diffusion();
  auto network = family->make_network();
  streaming::StreamedOptions options;
  options.name = label;
  options.compute = name;
  options.dtype = peer.at("dtype") == "float32"    ? at::kFloat
                  : peer.at("dtype") == "bfloat16" ? at::kBFloat16
                                                   : at::kHalf;
  options.channels_last = true;
  streaming::StreamedModel model(network->manifest(), checkpoint, options);
  model.load(
      std::vector<streaming::BlockHome>(model.block_count(), {placement::How::Resident, name}));
  device::synchronize(device);

  std::vector<Step> steps;
  for (const auto& size : peer.at("sizes")) steps.push_back(read_step(folder, size, device));
  for (auto& step : steps) {
    auto result = network->apply(step.input);
    step.bits = result_bits(step.name, result);
    auto eager = peer.at("eager").at(step.name).get<double>();
    step.issued_s =
        time_calls(device, kResident.within(kMost_s, eager), [&] { network->apply(step.input); });
    model.record_steps(true);
    for (int i = 0; i < 3; ++i) result = step_of(model, *network, step.input);
    results.add(
        fmt::format("bits of the recorded step equal to the issued one, {} {}", title, step.size()),
        result_bits(step.name, result) == step.bits ? 1 : 0, 1, "");
    step.resident_s = time_calls(device, kResident.within(kMost_s, step.issued_s),
                                 [&] { step_of(model, *network, step.input); });
    fmt::print("recordings hold {:.1f} MB\n",
               static_cast<double>(model.device_bytes(name) - model.total_file_bytes()) / 1e6);
    model.record_steps(false);
    results.add(fmt::format("{} step, recorded / issued one by one, {}", title, step.size()),
                step.resident_s, step.issued_s, "s");
    results.add(fmt::format("{} step, {}, batch {} / diffusers eager", title, step.size(),
                            step.input["x"].size(0)),
                step.resident_s, eager, "s",
                {{"relative_difference", relative_error(result, step.wanted)}});
    fmt::print("relative difference to diffusers: {:.2e}\n", relative_error(result, step.wanted));
    results.add(fmt::format("{} step issued by the host / step, {}", title, step.size()),
                time_issue(device, 1, [&] { network->apply(step.input); }), step.issued_s, "s");
  }
  device::synchronize(device);
  if (args.get("--kernels") == "1") {
    for (auto& step : steps)
      write_kernels(out / fmt::format("kernels_{}_{}.json", label, step.name), 3, [&] {
        network->apply(step.input);
        device::synchronize(device);
      });
    return 0;
  }
  device::empty_cache(device);
  for (auto& step : steps) network->apply(step.input);
  device::synchronize(device);
  std::int64_t given_bytes = 0;
  for (const auto& step : steps) given_bytes += bytes_of(step.input);
  auto library_bytes = device::memory_use(device).in_use - model.device_bytes(name) - given_bytes;
  auto link = measure_link(model, device);

  auto profile = [&](const Step& step, const RigDevice& rig) {
    auto fresh = family->make_network();
    return streaming::profile_model(model, fresh->manifest(), rig, [&](at::Device on) {
      fresh->apply(shapes_of(step.input, on));
    });
  };
  auto targets = measure_targets(model, *family, *network, device, label, steps);
  auto before = measured_before(out, name, link);
  auto& speeds = before.rig.devices[0];
  const auto& first = steps.front();
  speeds.issue_s = issue_seconds(
                       device, [&] { network->apply(first.input); }, first.is_long() ? 1 : 5) /
                   static_cast<double>(profile(first, speeds).operations);
  write_calibration(out / ("calibration_" + label + ".json"), {before.rig, targets});
  targets.insert(targets.begin(), before.steps.begin(), before.steps.end());
  fit_and_tell(speeds, targets);
  write_file(out / "rig.yaml", rig_text(before.rig));
  for (const auto& target : targets)
    results.add("predicted / measured step on the device, " + target.name,
                streaming::predict(speeds, target), target.seconds, "s",
                {{"calibrated_on_this", true}});
  for (const auto& step : steps)
    results.add(fmt::format("predicted / measured step, resident, {} {}", title, step.name),
                profile(step, speeds).total_s, step.resident_s, "s",
                {{"calibrated_on_this", true}});

  auto system = machine(name, roomy_budget(name), link);
  for (const auto& step : steps)
    for (double share : {1.0, 0.5}) {
      const auto profiled = profile(step, speeds);
      const auto other_bytes = library_bytes + given_bytes - bytes_of(step.input);
      const auto described = [&](bool recorded) {
        return describe(model, recorded ? profiled : streaming::host_bound(profiled), other_bytes);
      };
      // As the engine plans and runs it, then the other way.
      const bool records = streaming::recording_pays(profiled.issue_s, profiled.total_s);
      const auto planned = described(records);
      const auto placement = offload(system, planned, share);
      placement::Timeline clock(system, planned);
      const bool chosen =
          records && streaming::recording_pays(profiled.issue_s, clock.report(placement, 0).step_s);
      for (bool recorded : {chosen, !chosen}) {
        if (recorded != chosen && (step.is_long() || args.get("--both", "1") == "0")) continue;
        using Compares = Case::Compares;
        Case one{fmt::format("{} {}, {:.0f} % offloaded{}", title, step.size(), share * 100,
                             recorded == chosen ? ""
                             : recorded         ? ", recorded instead"
                                                : ", issued instead"),
                 step.resident_s,
                 step.bits,
                 kOffloaded.within(kMost_s, step.resident_s),
                 [&] { return step_of(model, *network, step.input); },
                 step.is_long()       ? Compares::Never
                 : recorded == chosen ? Compares::Always
                                      : Compares::WhereItIsTheBound};
        model.record_steps(recorded);
        measure(one, model, system, described(recorded), placement, results);
      }
      model.record_steps(false);
      load(model, system, placement);
      for (int i = 0; i < (step.is_long() ? 1 : 4); ++i) network->apply(step.input);
      device::synchronize(device);
      streaming::Trace trace;
      for (int i = 0; i < (step.is_long() ? 1 : 2); ++i) network->apply(step.input);
      write_file(out / fmt::format("trace_{}_{}_{:.0f}.json", label, step.name, share * 100),
                 trace.to_json());
    }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return distorch::bench::run_program("bench_gpu_network", argc, argv, run);
}
