#include "distorch/nodes/team.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <exception>

#include "distorch/base/log.h"
#include "distorch/device/device.h"
#include "distorch/device/retry.h"
#include "distorch/nodes/replicas.h"
#include "distorch/placement/placement.h"

namespace distorch::nodes {

using at::Tensor;
using sampling::NetworkCall;

namespace {

bool computes_on_accelerator(const std::string& device) {
  return placement::kind_of(device) == placement::DeviceKind::Accelerator;
}

/// Conditionings of a step of the run.
std::size_t conditionings_of(const RunShape& shape) {
  return shape.positive.size() + (shape.cfg != 1.0 ? shape.negative.size() : 0) +
         (shape.third ? shape.third->size() : 0);
}

}  // namespace

std::vector<std::string> team_devices(const Model& model, const Settings& settings,
                                      const streaming::Engine& engine) {
  const auto& own = model.loaded->weights->options().compute;
  std::vector<std::string> devices{own};
  const bool by_hand =
      !model.loaded->placement.allocation.empty() || !engine.options().override_allocation.empty();
  if (by_hand || !computes_on_accelerator(own)) return devices;
  const auto add = [&](const std::string& name) {
    if (computes_on_accelerator(name) &&
        std::find(devices.begin(), devices.end(), name) == devices.end())
      devices.push_back(name);
  };
  if (model.most_devices > 0) {
    for (const auto& info : engine.devices()) add(info.name);
    devices.resize(std::min(devices.size(), static_cast<std::size_t>(model.most_devices)));
    return devices;
  }
  const auto& allowed = settings.compute_devices;
  if (std::find(allowed.begin(), allowed.end(), own) == allowed.end()) return devices;
  for (const auto& name : allowed) add(name);
  return devices;
}

// --- making a team

/// The use of a ControlNet as a member sees it: of a replica on its own device where the net is on
/// the model's, so that it does not queue behind the model there.
std::shared_ptr<const ControlUse> Team::control_on(Member& member,
                                                   const std::shared_ptr<const ControlUse>& use) {
  if (!use) return use;
  auto& known = member.controls[use.get()];
  if (known) return known;
  auto own = std::make_shared<ControlUse>(*use);
  own->previous = control_on(member, use->previous);
  auto& net = own->net.loaded;
  if (net->weights->options().compute == device::name_of(own_.device()))
    net = replica_of(*net, device::name_of(member.sampled.device()), engine_);
  else
    shares_controls_ = true;
  return member.controls[use.get()] = own;
}

void Team::add(const std::string& device, const RunShape& shape) {
  auto model = own_.value();
  model.loaded = replica_of(*model.loaded, device, engine_);
  auto& member = *members_.emplace_back(std::make_unique<Member>(model));
  member.positive = shape.positive;
  member.negative = shape.negative;
  if (shape.third) member.third = *shape.third;
  for (auto* list : {&member.positive, &member.negative, &member.third})
    for (auto& item : *list) item.control = control_on(member, control_of(item));
}

RunShape Team::shape_of(const Member& member, RunShape shape) {
  return {.latent = shape.latent,
          .steps = shape.steps,
          .cfg = shape.cfg,
          .positive = member.positive,
          .negative = member.negative,
          .third = shape.third ? &member.third : nullptr,
          .at_once = shape.at_once};
}

/// What a call of the model costs on its device; looked up where it is known.
streaming::SplitSide Team::side(SampledModel& sampled, const RunShape& shape) {
  auto& loaded = *sampled.value().loaded;
  const auto needs = sampled.wanted(engine_, shape).front().needs;
  const auto& compute = loaded.weights->options().compute;
  auto key = needs.key;
  for (const auto& lora : needs.loras) key += " + " + lora.key;
  auto& profiles = replicas_of(loaded).profiles;
  auto known = profiles.find(key);
  if (known == profiles.end())
    known = profiles.emplace(key, needs.profile(engine_.speeds(compute))).first;
  return {loaded.weights.get(), known->second, static_cast<double>(sampled.planned_calls())};
}

streaming::SplitChoice Team::choose(const RunShape& shape) {
  auto together = shape;
  together.at_once = 1;
  const auto one = side(own_, together);
  std::vector<streaming::SplitSide> sides{side(own_, shape)};
  for (const auto& member : members_)
    sides.push_back(side(member->sampled, shape_of(*member, shape)));
  return streaming::choose_split(engine_, one, sides, shape.steps);
}

void Team::prepare(const RunShape& shape, const std::vector<std::string>& devices) {
  for (std::size_t place = 0; place < devices.size(); ++place) {
    auto wanted =
        at(place).wanted(engine_, place == 0 ? shape : shape_of(*members_[place - 1], shape));
    auto& needs = wanted.front().needs;
    needs.key += fmt::format(" beside {}", fmt::join(devices, " "));
    needs.apart = devices;
    needs.beside = place > 0;
    at(place).hold(engine_.prepare(wanted));
    if (shares_controls_) at(place).run_controls_by_turns(turns_);
  }
}

std::unique_ptr<Team> Team::make(SampledModel& own, const RunShape& whole,
                                 streaming::Engine& engine, std::vector<std::string> devices) {
  devices.resize(std::min(devices.size(), conditionings_of(whole)));
  if (devices.size() < 2) return nullptr;
  auto shape = whole;
  shape.at_once = static_cast<int>(devices.size());
  std::unique_ptr<Team> team(new Team(own, engine));
  for (std::size_t place = 1; place < devices.size(); ++place) team->add(devices[place], shape);
  const auto choice = team->choose(shape);
  const auto& name = own.value().loaded->weights->options().name;
  log::info("{}: conditionings are computed {}: {}", name,
            choice.split() ? "at the same time" : "on one device", choice.reason(devices));
  if (!choice.split()) return nullptr;
  team->each_s_ = choice.each_s;
  team->prepare(shape, devices);
  return team;
}

// --- running

/// Calls by place: the largest first, each to whoever is done with it soonest.
std::vector<std::vector<std::size_t>> Team::share_out(const std::vector<NetworkCall>& calls) const {
  std::vector<std::size_t> order(calls.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto size = [&](std::size_t i) { return static_cast<double>(calls[i].x.numel()); };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return size(a) > size(b); });
  std::vector<std::vector<std::size_t>> shares(at_once());
  std::vector<double> busy(at_once(), 0);
  for (std::size_t i : order) {
    std::size_t best = 0;
    for (std::size_t place = 1; place < busy.size(); ++place)
      if (busy[place] + size(i) * each_s_[place] < busy[best] + size(i) * each_s_[best])
        best = place;
    busy[best] += size(i) * each_s_[best];
    shares[best].push_back(i);
  }
  return shares;
}

/// The call for the member at `place`, its tensors on that one's device.
NetworkCall Team::moved(std::size_t place, const NetworkCall& call) {
  if (place == 0) return call;
  auto& member = *members_[place - 1];
  const auto device = member.sampled.device();
  auto own = call;
  own.x = call.x.to(device);
  own.sigma = call.sigma.to(device);
  for (auto& [name, input] : own.inputs)
    if (input.value.defined()) input.value = input.value.to(device);
  if (call.facts.control) own.facts.control = member.controls.at(call.facts.control).get();
  return own;
}

std::vector<Tensor> Team::apply_all(const std::vector<NetworkCall>& calls) {
  const auto shares = share_out(calls);
  std::vector<Tensor> results(calls.size());
  // Before anybody computes: a copy from a device queues behind what it does.
  std::vector<NetworkCall> own(calls.size());
  for (std::size_t place = 0; place < shares.size(); ++place)
    for (auto i : shares[place]) own[i] = moved(place, calls[i]);
  std::atomic<bool> failed{false};
  const auto run = [&](std::size_t place) {
    try {
      for (auto i : shares[place])
        if (!failed)
          results[i] = at(place).apply(own[i].x, own[i].sigma, own[i].inputs, own[i].facts);
    } catch (...) {
      failed = true;
      throw;
    }
  };
  std::vector<std::shared_future<void>> others;
  for (std::size_t place = 1; place < shares.size(); ++place)
    if (!shares[place].empty())
      others.push_back(members_[place - 1]->worker.add([&, place] {
        // Between steps this model's own weights may make way, too.
        device::RetryScope retry([&](at::Device device, std::int64_t bytes) {
          auto* own =
              device == at(place).device() ? at(place).value().loaded->weights.get() : nullptr;
          return engine_.make_room(device::name_of(device), bytes, own);
        });
        run(place);
      }));
  std::exception_ptr error;
  const auto note = [&](const auto& wait) {
    try {
      wait();
    } catch (...) {
      if (!error) error = std::current_exception();
    }
  };
  note([&] { run(0); });
  for (auto& other : others) note([&] { other.get(); });
  if (error) std::rethrow_exception(error);
  for (auto& result : results) result = result.to(device());
  return results;
}

}  // namespace distorch::nodes
