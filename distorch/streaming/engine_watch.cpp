#include "distorch/streaming/engine_watch.h"

#include <algorithm>
#include <utility>

#include "distorch/streaming/link_traffic.h"

namespace distorch::streaming {

std::map<std::string, std::int64_t> EngineState::held_bytes() const {
  std::map<std::string, std::int64_t> held;
  for (const auto& model : models) {
    for (const auto& share : model.shares) held[share.device] += share.bytes;
    held[model.compute] += model.ring_bytes;
  }
  return held;
}

EngineWatch& engine_watch() {
  static EngineWatch of_the_process;
  return of_the_process;
}

std::vector<ModelState::Share> shares_of(const StreamedModel& model) {
  std::vector<ModelState::Share> shares;
  const auto add = [&](const std::string& device, placement::How how, std::int64_t bytes,
                       int blocks) {
    auto share = std::find_if(shares.begin(), shares.end(), [&](const ModelState::Share& other) {
      return other.device == device && other.how == how;
    });
    if (share == shares.end()) share = shares.insert(share, {device, how, 0, 0});
    share->bytes += bytes;
    share->blocks += blocks;
  };
  const auto& homes = model.homes();
  for (std::size_t i = 0; i < homes.size(); ++i) {
    const auto block = static_cast<int>(i);
    if (homes[i].how == placement::How::Resident) {
      add(model.options().compute, homes[i].how, model.resident_bytes(block), 1);
      continue;
    }
    const auto resting =
        homes[i].rests ? std::min(model.file_bytes(block), model.resting_bytes(block)) : 0;
    add(homes[i].device, homes[i].how, model.file_bytes(block) - resting, 1);
    if (homes[i].rests) add(model.options().compute, placement::How::Resident, resting, 0);
  }
  return shares;
}

void EngineWatch::observe(EngineObserver* observer) {
  std::lock_guard lock(mutex_);
  observer_ = observer;
}

EngineState EngineWatch::state() const {
  EngineState state;
  {
    std::lock_guard lock(mutex_);
    for (const auto& entry : entries_) {
      if (!entry.in_place || entry.model.expired()) continue;
      state.models.push_back(entry.state);
      state.models.back().in_use = entry.uses > 0;
    }
    state.counts = counts_;
  }
  state.link_bytes = link_bytes();
  return state;
}

EngineWatch::Entry* EngineWatch::entry_of(const StreamedModel& model) {
  // The newest first: an address may have belonged to a model that is gone.
  auto found = std::find_if(entries_.rbegin(), entries_.rend(),
                            [&](const Entry& entry) { return entry.address == &model; });
  return found == entries_.rend() ? nullptr : &*found;
}

/// The observer asks for the state: the lock is let go before.
void EngineWatch::tell(std::unique_lock<std::mutex>& lock, const EngineEvent& event) {
  auto* observer = observer_;
  lock.unlock();
  if (observer) observer->changed(event);
}

void EngineWatch::added(const std::shared_ptr<StreamedModel>& model) {
  std::lock_guard lock(mutex_);
  std::erase_if(entries_, [](const Entry& entry) { return entry.model.expired(); });
  entries_.push_back({model, model.get(), 0, false, {}});
}

void EngineWatch::planned(const StreamedModel& model) {
  std::unique_lock lock(mutex_);
  tell(lock, {EngineEvent::Kind::Planned, model.options().name, model.options().compute, 0});
}

void EngineWatch::placed(const StreamedModel& model, ModelState state) {
  std::unique_lock lock(mutex_);
  ++counts_.placed;
  EngineEvent event{EngineEvent::Kind::Placed, state.model, state.compute, 0};
  if (auto* entry = entry_of(model)) {
    entry->state = std::move(state);
    entry->in_place = true;
  }
  tell(lock, event);
}

void EngineWatch::shrunk(const StreamedModel& model, std::int64_t bytes) {
  std::unique_lock lock(mutex_);
  ++counts_.shrunk;
  counts_.shrunk_bytes += bytes;
  if (auto* entry = entry_of(model)) entry->state.shares = shares_of(model);
  tell(lock, {EngineEvent::Kind::Shrunk, model.options().name, model.options().compute, bytes});
}

void EngineWatch::moved(const StreamedModel& model) {
  std::lock_guard lock(mutex_);
  if (auto* entry = entry_of(model)) entry->state.shares = shares_of(model);
}

void EngineWatch::evicted(const StreamedModel& model, const std::string& device,
                          std::int64_t bytes) {
  std::unique_lock lock(mutex_);
  ++counts_.evicted;
  counts_.evicted_bytes += bytes;
  if (auto* entry = entry_of(model)) entry->in_place = false;
  tell(lock, {EngineEvent::Kind::Evicted, model.options().name, device, bytes});
}

void EngineWatch::unloaded(const StreamedModel& model) {
  std::unique_lock lock(mutex_);
  auto* entry = entry_of(model);
  if (!entry || !entry->in_place) return;
  entry->in_place = false;
  tell(lock, {EngineEvent::Kind::Unloaded, model.options().name, model.options().compute, 0});
}

void EngineWatch::used(const StreamedModel& model, bool begins) {
  std::unique_lock lock(mutex_);
  auto* entry = entry_of(model);
  if (!entry) return;
  entry->uses += begins ? 1 : -1;
  if (entry->in_place && entry->uses <= 1 && (begins || entry->uses == 0))
    tell(lock, {EngineEvent::Kind::Used, model.options().name, model.options().compute, 0});
}

void EngineWatch::reused(std::int64_t models) {
  std::lock_guard lock(mutex_);
  counts_.reused += models;
}

}  // namespace distorch::streaming
