#include "bench/gpu/network_step.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <sstream>

#include "distorch/base/error.h"
#include "distorch/device/streams.h"
#include "distorch/formats/tensor_file.h"
#include "distorch/models/modulated.h"

namespace distorch::bench {

namespace {

/// A latent's sizes, of a video's too, for a size in pixels as read_step() takes it.
std::vector<std::int64_t> sizes_of(const std::string& name, std::vector<std::int64_t> latent) {
  constexpr std::int64_t kPixels = 8, kFrames = 4;  // that make one of a latent
  std::vector<std::int64_t> numbers;
  std::istringstream parts(name);
  for (std::string part; std::getline(parts, part, 'x');)
    numbers.push_back(std::all_of(part.begin(), part.end(), ::isdigit) && part.size() < 7
                          ? std::atoll(part.c_str())
                          : 0);
  const bool video = latent.size() == 5;
  if (numbers.empty() || numbers.size() > (video ? 3 : 2) ||
      *std::min_element(numbers.begin(), numbers.end()) < 1)
    throw Error(ErrorKind::Usage, name,
                fmt::format("is no size: give pixels of a side, WIDTHxHEIGHT{}",
                            video ? " or WIDTHxHEIGHTxFRAMES" : ""));
  if (numbers.size() == 1) numbers.push_back(numbers[0]);
  const auto last = latent.size() - 1;
  latent[last] = numbers[0] / kPixels;
  latent[last - 1] = numbers[1] / kPixels;
  if (numbers.size() == 3) latent[last - 2] = (numbers[2] - 1) / kFrames + 1;
  return latent;
}

}  // namespace

std::string Step::size() const { return name.find('x') == std::string::npos ? name + " px" : name; }

weights::Checkpoint open(const std::filesystem::path& path) {
  return weights::Checkpoint(
      std::make_shared<formats::TensorFile>(formats::open_tensor_file(path)));
}

Step read_step(const std::filesystem::path& folder, const std::string& name, c10::Device device) {
  auto path = folder / ("case_" + name + ".safetensors");
  const bool other = !std::filesystem::exists(path);
  if (other) {
    Json peer;
    std::ifstream(folder / "peer.json") >> peer;
    path = folder / ("case_" + peer.at("sizes").back().get<std::string>() + ".safetensors");
  }
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
    step.input.set(key, seeded(sizes_of(name, stored.shape), 17, get("x").scalar_type(), device));
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

void expect_modulations(const models::Network& network, Step& step) {
  const auto* modulated = dynamic_cast<const models::Modulated*>(&network);
  const auto numbers = modulated ? modulated->modulation_numbers(step.input) : 0;
  if (numbers == 0) return;
  step.input.set(models::kModulations, at::zeros({numbers}, step.input["x"].options()));
}

double make_modulations(streaming::StreamedModel& model, const models::Network& network, Step& step,
                        int levels) {
  const auto& modulated = dynamic_cast<const models::Modulated&>(network);
  const auto& own = step.input["timestep"];
  std::vector<at::Tensor> timesteps;
  for (int i = 0; i < levels; ++i) timesteps.push_back(own * (1 - static_cast<double>(i) / levels));
  timesteps[0] = own;
  device::synchronize(own.device());
  const auto start = std::chrono::steady_clock::now();
  const auto made = model.aside([&] { return modulated.modulations(step.input, timesteps); });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  step.input.set(models::kModulations, made[0].to(own.device()));
  return seconds.count();
}

at::Tensor step_of(streaming::StreamedModel& model, models::Network& network,
                   const models::Inputs& input) {
  return model.step(models::in_order(network.inputs(), input),
                    [&](const std::vector<at::Tensor>& in) {
                      return network.apply(models::from_order(network.inputs(), in, input));
                    });
}

double issue_seconds(c10::Device device, const std::function<void()>& forward, int rounds) {
  std::vector<double> seconds;
  for (int round = 0; round < rounds; ++round) seconds.push_back(time_issue(device, 1, forward));
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
    targets.push_back(streaming::make_target(
        label + " " + step.name, step.resident_s, operations,
        time_blocks(model, device, step.is_long() ? 1 : 9, forward), model.manifest().blocks()));
  }
  return targets;
}

}  // namespace distorch::bench
