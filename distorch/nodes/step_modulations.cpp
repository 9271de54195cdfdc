#include "distorch/nodes/step_modulations.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "distorch/device/device.h"
#include "distorch/device/registered.h"
#include "distorch/device/streams.h"

namespace distorch::nodes {

using at::Tensor;
using Told = KeptModulations::Told;

namespace {

// Bytes, for all conditionings of a model.
constexpr std::int64_t kMostKept = std::int64_t{1} << 29;
constexpr std::size_t kAtOnce = 64;  // levels

std::string bytes_of(const models::Inputs& call, const std::vector<std::string>& names) {
  std::string bytes;
  for (const auto& name : names) {
    bytes += name;
    if (!call[name].defined()) continue;
    const auto value = call[name].to(at::kCPU).contiguous();
    bytes.append(static_cast<const char*>(value.const_data_ptr()), value.nbytes());
  }
  return bytes;
}

bool same_loras(const std::vector<KeptModulations::Lora>& a,
                const std::vector<KeptModulations::Lora>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& one, const auto& other) {
    return one.second == other.second && !one.first.owner_before(other.first) &&
           !other.first.owner_before(one.first);
  });
}

/// The same numbers where a device reads them without help from the host.
Tensor page_locked(const Tensor& numbers, at::Device reader) {
  if (!device::has_streams(reader)) return numbers;
  auto buffer = std::make_shared<device::HostBuffer>(static_cast<std::int64_t>(numbers.nbytes()),
                                                     std::vector<c10::Device>{reader});
  auto copy = at::from_blob(buffer->data(), numbers.sizes(), [buffer](void*) {}, numbers.options());
  return copy.copy_(numbers);
}

}  // namespace

std::int64_t Told::bytes() const {
  std::int64_t sum = 0;
  for (const auto& [timestep, numbers] : by_timestep)
    sum += static_cast<std::int64_t>(numbers.nbytes());
  return sum;
}

StepModulations::StepModulations(const Model& model)
    : model_(model),
      network_(dynamic_cast<const models::Modulated*>(model.loaded->network.get())) {}

void StepModulations::plan(PlannedCall& call) {
  if (!network_) return;
  const auto blank =
      models::blank_inputs(model_.loaded->network->inputs(), call.sizes, at::kMeta, {}, call.known);
  const auto numbers = network_->modulation_numbers(blank);
  planned_ = numbers > 0;
  if (planned_) call.known.shapes[models::kModulations] = {numbers};
}

/// What is known of the conditionings of a call: since an earlier run, or nothing yet.
Told& StepModulations::told_of(const models::Inputs& call, const std::vector<const void*>& owners) {
  auto& told = told_[{owners, call["x"].size(0)}];
  if (told) return *told;
  auto& loaded = *model_.loaded;
  if (!loaded.modulations) loaded.modulations = std::make_shared<KeptModulations>();
  Told fresh{{}, call["x"].size(0), bytes_of(call, network_->modulating_inputs()), {}};
  for (const auto& lora : model_.loras) fresh.loras.emplace_back(lora.adapters, lora.strength);
  auto& all = loaded.modulations->all;
  const auto same = std::find_if(all.begin(), all.end(), [&](const auto& one) {
    return same_loras(one->loras, fresh.loras) && one->batch == fresh.batch &&
           one->inputs == fresh.inputs;
  });
  if (same != all.end())
    all.splice(all.begin(), all, same);
  else
    all.push_front(std::make_shared<Told>(std::move(fresh)));
  told = all.front();
  return *told;
}

/// A level, and where it is one of the run's all others of it that nothing is known of.
std::vector<float> StepModulations::sigmas_for(const Told& told, float sigma) const {
  std::vector<float> sigmas{sigma};
  if (std::find(sigmas_.begin(), sigmas_.end(), sigma) == sigmas_.end()) return sigmas;
  for (float other : sigmas_)
    if (other > 0 && std::find(sigmas.begin(), sigmas.end(), other) == sigmas.end() &&
        told.by_timestep.count(model_.noise_levels().timestep(other)) == 0)
      sigmas.push_back(other);
  if (sigmas.size() > kAtOnce) sigmas.resize(kAtOnce);
  return sigmas;
}

void StepModulations::make(Told& told, const models::Inputs& call,
                           const std::vector<float>& sigmas) {
  const auto& sampling = model_.noise_levels();
  const auto x = call["x"];
  const auto options = at::TensorOptions().dtype(at::kFloat).device(x.device());
  std::vector<Tensor> timesteps;
  for (float sigma : sigmas)
    timesteps.push_back(sampling.timestep(at::full({x.size(0)}, sigma, options)).to(at::kFloat));
  const auto made = page_locked(
      model_.loaded->weights->aside([&] { return network_->modulations(call, timesteps); }),
      x.device());
  for (std::size_t i = 0; i < sigmas.size(); ++i)
    told.by_timestep[sampling.timestep(sigmas[i])] = made.select(0, static_cast<std::int64_t>(i));
  // Those of this run stay as long as it lives.
  auto& all = model_.loaded->modulations->all;
  std::int64_t bytes = 0;
  for (auto one = all.begin(); one != all.end();) {
    bytes += (*one)->bytes();
    one = bytes > kMostKept ? all.erase(one) : std::next(one);
  }
}

void StepModulations::add_to(models::Inputs& call, const sampling::CallFacts& facts) {
  if (!planned_ || network_->modulation_numbers(call) == 0) return;
  auto& told = told_of(call, facts.owners);
  const auto timestep = model_.noise_levels().timestep(facts.sigma);
  if (told.by_timestep.count(timestep) == 0) make(told, call, sigmas_for(told, facts.sigma));
  const auto& known = told.by_timestep.at(timestep);
  const auto where = call["x"].device();
  if (where.is_cpu()) return call.set(models::kModulations, known);
  const auto numbers = at::empty(known.sizes(), known.options().device(where));
  device::copy_async(numbers, known, device::current_stream(where));
  call.set(models::kModulations, numbers);
}

}  // namespace distorch::nodes
