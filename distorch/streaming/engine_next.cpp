#include <c10/core/InferenceMode.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/streaming/described_model.h"
#include "distorch/streaming/engine.h"
#include "distorch/streaming/engine_watch.h"

// The part of the engine that sees to what runs next while something else runs.
namespace distorch::streaming {

using placement::DeviceKind;

namespace {

/// The first step brings what its own model needs.
constexpr int kSteps = 2;
/// What is asked of the kernel at once.
constexpr std::int64_t kPiece = std::int64_t{32} << 20;

/// The calling thread, and those that it starts, give way to all others.
void give_way() {
  constexpr int kNice = 10;
  if (::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice) != 0)
    log::debug("what runs next is brought with the priority of everything else");
}

bool is_interrupt(const std::exception& error) {
  const auto* ours = dynamic_cast<const Error*>(&error);
  return ours && ours->kind() == ErrorKind::Interrupted;
}

}  // namespace

struct Engine::Next {
  ~Next() {
    stop = true;
    if (thread.joinable()) thread.join();
  }
  bool wanted() const { return !stop && (!run || (!run->ended() && !run->interrupted())); }

  const StreamedModel* first = nullptr;  // what runs now; only compared
  std::weak_ptr<StreamedModel> model;
  std::string key;
  std::shared_ptr<RunToken> run;
  bool inference = false;  // the mode of torch that the run is in
  int steps = 0;           // that the first one has begun
  std::atomic<bool> stop = false;
  std::thread thread;
};

/// Nobody else changes what runs next while it is described. Nothing where it is in use, or is one
/// of those that run now.
std::optional<Engine::Draft> Engine::claim_next(const Wanted* next,
                                                const std::vector<Draft>& drafts, Use& use) {
  if (!next) return {};
  auto entry = find(*next->model);
  if (!entry || entry->uses > 0 ||
      std::any_of(drafts.begin(), drafts.end(), [&](const Draft& d) { return d.entry == entry; }))
    return {};
  Draft draft{entry, next->model, next->needs.key, entry->profile, {}};
  for (const auto& lora : next->needs.loras) draft.key += " + " + lora.key;
  try {
    if (draft.key != entry->key) describe_needs(draft, next->needs);
  } catch (const std::exception& error) {
    log::debug("{} is not planned ahead: {}", next->model->options().name, error.what());
    return {};
  }
  ++entry->uses;
  entry->user = std::this_thread::get_id();
  entry->steps = next->needs.steps;
  use = Use(this, entry);
  return draft;
}

void Engine::profile_next(std::optional<Draft>& next, const RunNeeds& needs,
                          placement::System room) {
  try {
    profile(*next, needs, std::move(room));
  } catch (const std::exception& error) {
    if (is_interrupt(error)) throw;
    log::debug("{} is not planned ahead: {}", next->model->options().name, error.what());
    next.reset();
  }
}

/// Ends the claim; what is planned from now on knows what the next one will do.
void Engine::foresee(const std::optional<Draft>& next, Use& use) {
  if (auto entry = std::move(use.entry_)) {
    use.entry_.reset();
    --entry->uses;
    released_.notify_all();
  }
  if (!next || next->key == next->entry->key) return;
  next->entry->key = next->key;
  next->entry->profile = next->profile;
  next->entry->planned = false;
}

/// From now on that is what comes after `first`; what was expected before ends with `before`.
void Engine::expect(const StreamedModel& first, const Draft& next, std::shared_ptr<Next>& before) {
  if (plan_only()) return;
  auto expected = std::make_shared<Next>();
  expected->first = &first;
  expected->model = next.model;
  expected->key = next.key;
  expected->run = current_run();
  expected->inference = c10::InferenceMode::is_enabled();
  before = std::exchange(next_, std::move(expected));
}

/// A step of this model begins.
void Engine::begin_next(const StreamedModel& running) {
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock || !next_ || next_->first != &running || ++next_->steps != kSteps) return;
  next_->thread = std::thread([this, next = next_.get()] { bring_next(*next); });
}

void Engine::bring_next(const Next& next) {
  RunScope scope(next.run);
  c10::InferenceMode inference(next.inference);
  give_way();
  try {
    auto room = device::host_room();
    for (const auto& stretch : place_next(next)) {
      if (stretch.size_bytes > room) break;
      room -= stretch.size_bytes;
      for (std::int64_t at = 0; at < stretch.size_bytes; at += kPiece) {
        if (!next.wanted()) return;
        const auto size = std::min(kPiece, stretch.size_bytes - at);
        stretch.file->mapping()->will_need(
            {static_cast<std::size_t>(stretch.file_offset + at), static_cast<std::size_t>(size)});
      }
    }
  } catch (const std::exception& error) {
    log::debug("what runs next is not brought ahead: {}", error.what());
  }
}

/// Brings the model to its places if that takes nobody's memory; gives what will be read of its
/// files. A failure leaves it unloaded.
std::vector<Stretch> Engine::place_next(const Next& next) {
  std::vector<Stretch> later;
  std::lock_guard lock(mutex_);
  auto model = next.model.lock();
  auto entry = model ? find(*model) : nullptr;
  if (!entry || entry->uses > 0 || entry->key != next.key || !next.wanted()) return later;
  Draft draft{entry, model, entry->key, entry->profile, {}};
  if (!entry->planned) plan_beside_all(draft);
  if (entry->planned && !model->ready() && fits_beside_all(draft)) try {
      entry->used = ++clock_;
      entry->run = next.run;
      bring(draft, nullptr);
      if (options().log_tables) log_placement(*entry);
    } catch (const std::exception& error) {
      model->unload();
      log::debug("{} waits for its turn: {}", model->options().name, error.what());
    }
  const bool placed = model->ready();
  for (int i = 0; i < static_cast<int>(model->block_count()); ++i) {
    // Of what is used in RAM or streams from there, the pages.
    if (placed && placement::kind_of(model->homes()[i].device) != DeviceKind::Host) continue;
    const auto& stretches = model->contents().all_of(i).stretches;
    later.insert(later.end(), stretches.begin(), stretches.end());
  }
  return later;
}

/// Whether there is room for what its plan lets it hold, beside what all others may hold and a
/// little more: what runs must not meet an end of memory on account of what only comes next.
bool Engine::fits_beside_all(const Draft& draft) const {
  const auto system = machine_.system(draft.model->options().compute);
  const auto others = others_in_place({draft});
  return std::all_of(system.devices.begin(), system.devices.end(), [&](const auto& device) {
    if (placement::kind_of(device.name) == DeviceKind::Disk) return true;
    auto needed = draft.entry->planned_bytes(device.name, false);
    for (const auto& other : others) needed += held_bytes(*other, device.name);
    const auto budget = static_cast<double>(device.budget_bytes);
    return static_cast<double>(needed) <= (1 - kKeptFree) * budget;
  });
}

/// A plan for a model that none was made for together with what runs: where everybody stays where
/// he is. A free plan counts only where all of it fits, since a better one comes once others may go.
void Engine::plan_beside_all(Draft& draft) {
  auto& entry = *draft.entry;
  PlanRequest request;
  request.system = system_of(entry, draft.model->options().compute);
  if (!free_plan(entry)) request.allocation = allocation_of(entry, draft.model->options().compute);
  request.order = order();
  request.eject = false;
  draft.described = streaming::describe(*draft.model, request.system,
                                        timed(entry, draft.profile, *draft.model), machine_);
  request.wanted.push_back({draft.described, entry.steps});
  request.holders = holders(others_in_place({draft}), request.system, {});
  for (auto& holder : request.holders) holder.pinned = true;
  try {
    auto plan = plan_models(request);
    if (free_plan(entry) && !plan.placements[0].all_resident()) return;
    if (plan.idle_aside) draft.described = placement::without_idle(draft.described);
    accept(draft, plan.system, plan.placements[0]);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::OutOfMemory) throw;
    log::debug("{} waits for its turn: {}", draft.model->options().name, error.what());
  }
}

}  // namespace distorch::streaming
