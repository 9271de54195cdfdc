// The UNet of Stable Diffusion 1.5 in float16, a CFG pair (batch 2), beside diffusers on the same
// weights and inputs.
//   bench_gpu_sd15 --folder DIR [--device cuda:0] [--out FOLDER] [--tiny 1] [--rig FILE]
// DIR holds what peer_sd15.py left: unet.safetensors, case_512.safetensors (x, timestep, context,
// out), ..., peer.json. Writes sd15.json (results), calibration_sd15.json (what was measured for
// the fit) and rig.yaml: fitted to this model and, where calibration_flux.json is in FOLDER, to
// that.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "bench/gpu/calibration.h"
#include "bench/gpu/placed.h"
#include "distorch/base/atomic_file.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/sim/sim.h"
#include "distorch/device/streams.h"
#include "distorch/formats/tensor_file.h"
#include "distorch/models/catalog.h"
#include "distorch/placement/timeline.h"
#include "distorch/streaming/trace.h"

namespace {

using namespace distorch;
using namespace distorch::bench;

struct Step {
  std::string name;  // "512"
  models::Inputs input;
  at::Tensor wanted;
  double issued_s = 0;    // every block resident, operation by operation
  double resident_s = 0;  // the same, recorded
  std::string bits;
};

weights::Checkpoint open(const std::filesystem::path& path) {
  return weights::Checkpoint(
      std::make_shared<formats::TensorFile>(formats::open_tensor_file(path)));
}

Step read_step(const std::filesystem::path& folder, const std::string& name, c10::Device device) {
  auto file = open(folder / ("case_" + name + ".safetensors"));
  auto get = [&](const char* key) { return weights::mapped_tensor(*file.find(key)).to(device); };
  Step step;
  step.name = name;
  step.input = {
      {"x", get("x")}, {"timestep", get("timestep").to(at::kFloat)}, {"context", get("context")}};
  step.wanted = get("out").cpu().to(at::kFloat);
  return step;
}

double relative_error(const at::Tensor& got, const at::Tensor& wanted) {
  auto a = got.cpu().to(at::kDouble), b = wanted.to(at::kDouble);
  return ((a - b).norm() / b.norm()).item().toDouble();
}

/// The same input as shapes on another device.
models::Inputs shapes_of(const models::Inputs& input, c10::Device device) {
  models::Inputs copy;
  for (const auto& [name, tensor] : input.tensors())
    copy.set(name, at::empty(tensor.sizes(), tensor.options().device(device)));
  return copy;
}

/// What bench_gpu_streaming has measured in the same folder, to be fitted together with this model;
/// without it, the device is measured here.
Calibration measured_before(const std::filesystem::path& folder, const std::string& device,
                            const Link& link) {
  const auto path = folder / "calibration_flux.json";
  if (std::filesystem::exists(path)) return read_calibration(path);
  return {rig_of(measure_device(device), link), {}};
}

/// Host seconds to issue a run, the device idle before: the median of a few.
double issue_seconds(c10::Device device, const std::function<void()>& forward) {
  std::vector<double> seconds;
  for (int round = 0; round < 5; ++round) seconds.push_back(time_issue(device, 1, forward));
  return median(seconds);
}

/// Blocks and steps of the resident model as the fit wants them.
std::vector<streaming::StepTarget> measure_targets(streaming::StreamedModel& model,
                                                   const models::Family& family,
                                                   models::Network& unet, c10::Device device,
                                                   const std::vector<Step>& steps) {
  std::vector<streaming::StepTarget> targets;
  for (const auto& step : steps) {
    auto forward = [&] { unet.apply(step.input); };
    auto fresh = family.make_network();
    auto operations = streaming::operations_of(
        model, fresh->manifest(), [&](at::Device on) { fresh->apply(shapes_of(step.input, on)); });
    targets.push_back(streaming::make_target("sd15 " + step.name, step.resident_s, operations,
                                             time_blocks(model, device, 9, forward),
                                             model.manifest().blocks()));
  }
  return targets;
}

/// A step as users' steps run: recorded where all weights are resident.
at::Tensor step_of(streaming::StreamedModel& model, models::Network& unet,
                   const models::Inputs& input) {
  return model.step(models::in_order(unet.inputs(), input), [&](const std::vector<at::Tensor>& in) {
    return unet.apply(models::from_order(unet.inputs(), in, input));
  });
}

int run(const Args& args) {
  std::filesystem::path folder = args.get("--folder"), out = args.get("--out", ".");
  auto name = args.get("--device", "cuda:0");
  device::list_devices();
  auto device = device::to_torch(name);
  Results results(out / "sd15.json");
  Json peer;
  std::ifstream(folder / "peer.json") >> peer;

  auto family = models::detect_family(open(folder / "unet.safetensors"));
  const auto& checkpoint = family->diffusion();
  auto unet = family->make_network();
  streaming::StreamedOptions options;
  options.name = "sd15";
  options.compute = name;
  options.dtype = device.is_cuda() ? at::kHalf : at::kFloat;
  options.channels_last = true;
  streaming::StreamedModel model(unet->manifest(), checkpoint, options);
  model.load(
      std::vector<streaming::BlockHome>(model.block_count(), {placement::How::Resident, name}));
  device::synchronize(device);

  std::vector<Step> steps;
  for (const auto& size : peer.at("sizes")) steps.push_back(read_step(folder, size, device));
  for (auto& step : steps) {
    auto result = unet->apply(step.input);
    step.bits = result_bits(step.name, result);
    step.issued_s = time_calls(device, {.warm_ups = 3, .calls = 8, .rounds = 5},
                               [&] { unet->apply(step.input); });
    model.record_steps(true);
    for (int i = 0; i < 3; ++i) result = step_of(model, *unet, step.input);
    results.add("bits of the recorded step equal to the issued one, SD 1.5 " + step.name + " px",
                result_bits(step.name, result) == step.bits ? 1 : 0, 1, "");
    step.resident_s = time_calls(device, {.warm_ups = 3, .calls = 8, .rounds = 5},
                                 [&] { step_of(model, *unet, step.input); });
    fmt::print("recordings hold {:.1f} MB\n",
               static_cast<double>(model.device_bytes(name) - model.total_file_bytes()) / 1e6);
    model.record_steps(false);
    auto eager = peer.at("eager").at(step.name).get<double>();
    results.add("SD 1.5 step, recorded / issued one by one, " + step.name + " px", step.resident_s,
                step.issued_s, "s");
    results.add(fmt::format("SD 1.5 step, {} px, batch 2 / diffusers eager", step.name),
                step.resident_s, eager, "s",
                {{"relative_difference", relative_error(result, step.wanted)}});
    fmt::print("relative difference to diffusers: {:.2e}\n", relative_error(result, step.wanted));
    results.add("SD 1.5 step issued by the host / step, " + step.name + " px",
                time_issue(device, 1, [&] { unet->apply(step.input); }), step.issued_s, "s");
  }
  device::synchronize(device);
  device::empty_cache(device);
  for (auto& step : steps) unet->apply(step.input);
  device::synchronize(device);
  std::int64_t given_bytes = 0;
  for (const auto& step : steps)
    given_bytes +=
        static_cast<std::int64_t>(step.input["x"].nbytes() + step.input["context"].nbytes() + 512);
  auto library_bytes = device::memory_use(device).in_use - model.device_bytes(name) - given_bytes;
  auto link = measure_link(model, device);

  auto profile = [&](const Step& step, const RigDevice& rig) {
    auto fresh = family->make_network();
    return streaming::profile_model(model, fresh->manifest(), rig, [&](at::Device on) {
      fresh->apply(shapes_of(step.input, on));
    });
  };
  auto targets = measure_targets(model, *family, *unet, device, steps);
  auto before = measured_before(out, name, link);
  auto& speeds = before.rig.devices[0];
  const auto& first = steps.front();
  speeds.issue_s = issue_seconds(device, [&] { unet->apply(first.input); }) /
                   static_cast<double>(profile(first, speeds).operations);
  write_calibration(out / "calibration_sd15.json", {before.rig, targets});
  targets.insert(targets.begin(), before.steps.begin(), before.steps.end());
  fit_and_tell(speeds, targets);
  write_file(out / "rig.yaml", rig_text(before.rig));
  for (const auto& target : targets)
    results.add("predicted / measured step on the device, " + target.name,
                streaming::predict(speeds, target), target.seconds, "s",
                {{"calibrated_on_this", true}});
  for (const auto& step : steps)
    results.add("predicted / measured step, resident, SD 1.5 " + step.name,
                profile(step, speeds).total_s, step.resident_s, "s",
                {{"calibrated_on_this", true}});

  auto system = machine(name, roomy_budget(name), link);
  for (const auto& step : steps)
    for (double share : {1.0, 0.5}) {
      const auto profiled = profile(step, speeds);
      const auto other_bytes = library_bytes + given_bytes -
                               static_cast<std::int64_t>(step.input["x"].nbytes() +
                                                         step.input["context"].nbytes() + 512);
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
        Case one{fmt::format("SD 1.5 {} px, {:.0f} % offloaded{}", step.name, share * 100,
                             recorded == chosen ? ""
                             : recorded         ? ", recorded instead"
                                                : ", issued instead"),
                 step.resident_s,
                 step.bits,
                 {.warm_ups = 6, .calls = 12, .rounds = 5},
                 [&] { return step_of(model, *unet, step.input); },
                 recorded == chosen};
        model.record_steps(recorded);
        measure(one, model, system, described(recorded), placement, results);
      }
      model.record_steps(false);
      load(model, system, placement);
      for (int i = 0; i < 4; ++i) unet->apply(step.input);
      device::synchronize(device);
      streaming::Trace trace;
      for (int i = 0; i < 2; ++i) unet->apply(step.input);
      write_file(out / fmt::format("trace_sd15_{}_{:.0f}.json", step.name, share * 100),
                 trace.to_json());
    }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  c10::InferenceMode inference;
  try {
    Args args(argc, argv);
    if (auto rig = args.get("--rig"); !rig.empty()) sim::install(read_rig(rig), sim::Mode::Exec);
    return run(args);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_gpu_sd15: {}\n", error.what());
    return 1;
  }
}
