#include "bench/gpu/network_step.h"

#include <ATen/ATen.h>

#include "distorch/formats/tensor_file.h"

namespace distorch::bench {

weights::Checkpoint open(const std::filesystem::path& path) {
  return weights::Checkpoint(
      std::make_shared<formats::TensorFile>(formats::open_tensor_file(path)));
}

Step read_step(const std::filesystem::path& folder, const std::string& name, c10::Device device) {
  auto path = folder / ("case_" + name + ".safetensors");
  const bool other = !std::filesystem::exists(path);
  if (other) path = folder / "case_1024.safetensors";
  auto file = open(path);
  auto get = [&](const char* key) { return weights::mapped_tensor(*file.find(key)).to(device); };
  Step step;
  step.name = name;
  for (const auto& [key, stored] : file.tensors()) {
    if (key == "out") continue;
    if (stored.shape.empty())
      step.input.set_number(key, get(key.c_str()).item<double>());
    else
      step.input.set(key, get(key.c_str()));
    if (key != "x" || !other) continue;
    auto sizes = stored.shape;
    const auto side = std::stoll(name) / 8;
    sizes[sizes.size() - 2] = sizes[sizes.size() - 1] = side;
    step.input.set(key, seeded(sizes, 17, get("x").scalar_type(), device));
  }
  if (!other) step.wanted = get("out").cpu().to(at::kFloat);
  return step;
}

models::Inputs shapes_of(const models::Inputs& input, c10::Device device) {
  models::Inputs copy;
  for (const auto& [name, tensor] : input.tensors())
    copy.set(name, at::empty(tensor.sizes(), tensor.options().device(device)));
  for (const auto& [name, number] : input.numbers()) copy.set_number(name, number);
  return copy;
}

at::Tensor step_of(streaming::StreamedModel& model, models::Network& network,
                   const models::Inputs& input) {
  return model.step(models::in_order(network.inputs(), input),
                    [&](const std::vector<at::Tensor>& in) {
                      return network.apply(models::from_order(network.inputs(), in, input));
                    });
}

double issue_seconds(c10::Device device, const std::function<void()>& forward) {
  std::vector<double> seconds;
  for (int round = 0; round < 5; ++round) seconds.push_back(time_issue(device, 1, forward));
  return median(seconds);
}

std::vector<streaming::StepTarget> measure_targets(streaming::StreamedModel& model,
                                                   const models::Family& family,
                                                   models::Network& network, c10::Device device,
                                                   const std::string& label,
                                                   const std::vector<Step>& steps) {
  std::vector<streaming::StepTarget> targets;
  for (const auto& step : steps) {
    auto forward = [&] { network.apply(step.input); };
    auto fresh = family.make_network();
    auto operations = streaming::operations_of(
        model, fresh->manifest(), [&](at::Device on) { fresh->apply(shapes_of(step.input, on)); });
    targets.push_back(streaming::make_target(label + " " + step.name, step.resident_s, operations,
                                             time_blocks(model, device, 9, forward),
                                             model.manifest().blocks()));
  }
  return targets;
}

}  // namespace distorch::bench
