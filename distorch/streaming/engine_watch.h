#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "distorch/placement/timeline.h"
#include "distorch/streaming/streamed_model.h"

namespace distorch::streaming {

/// Where one model rests and what its plan expects of a run.
struct ModelState {
  std::string model, compute;  // the file's stem; the device that computes
  bool in_use = false;         // a node runs it, or is about to
  std::int64_t bytes = 0;      // of its weights, as the files have them
  /// What rests on a device and how it is used from there; devices in the order of the plan.
  struct Share {
    std::string device;
    placement::How how = placement::How::Resident;
    std::int64_t bytes = 0;
    int blocks = 0;  // a streamed one counts there, also where some of it is resident
  };
  std::vector<Share> shares;
  // On the compute device: rings, activations of a run, and all of it with resident weights; what
  // it may use there.
  std::int64_t ring_bytes = 0, activation_bytes = 0, peak_bytes = 0, budget_bytes = 0;
  double steps = 1;                     // that were asked for when it was planned
  double step_s = 0, first_step_s = 0;  // predicted; 0 where nothing is known
  std::vector<placement::Lane> lanes;   // of one predicted step
};

/// What engines did since the process began.
struct EngineCounts {
  std::int64_t placed = 0;  // models brought into place by a new plan
  std::int64_t reused = 0;  // uses of models that were in place already: nothing planned or loaded
  std::int64_t evicted = 0, evicted_bytes = 0;  // models that made way for others, and their bytes
  std::int64_t shrunk = 0, shrunk_bytes = 0;    // weights moved out of a model that stayed
};

struct EngineState {
  std::vector<ModelState> models;  // in place now, in the order in which they were opened
  EngineCounts counts;
  std::map<std::string, std::int64_t> link_bytes;  // see link_traffic.h

  /// Weights and rings by device, as the plans of the models in place have them.
  std::map<std::string, std::int64_t> held_bytes() const;
};

struct EngineEvent {
  enum class Kind {
    Planned,   // has a new plan, its weights begin to move
    Placed,    // in place by a new plan
    Evicted,   // made way for others on `device`
    Unloaded,  // gone for another reason: asked for, or its load failed
    Shrunk,    // some of its weights moved out of `device`
    Used,      // a use begins or ends
  };
  Kind kind = Kind::Placed;
  std::string model, device;
  std::int64_t bytes = 0;  // of Evicted and Shrunk
};

/// Told what happens to models, on the thread that does it, while an engine is locked: it must not
/// call the engine (EngineWatch::state() is allowed), nor wait, nor throw.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void changed(const EngineEvent& event) = 0;
};

/// What can be told about the engines of this process while they plan and load: its own lock is
/// never held for long. Engines that only plan are not in it. The engine calls placed() and all that
/// follows.
class EngineWatch {
 public:
  /// Null: nobody. It must be taken off before it goes.
  void observe(EngineObserver* observer);
  EngineState state() const;

  void added(const std::shared_ptr<StreamedModel>& model);
  void planned(const StreamedModel& model);
  void placed(const StreamedModel& model, ModelState state);
  /// Weights of it came back or lie elsewhere; nobody is told.
  void moved(const StreamedModel& model);
  void shrunk(const StreamedModel& model, std::int64_t bytes);
  void evicted(const StreamedModel& model, const std::string& device, std::int64_t bytes);
  void unloaded(const StreamedModel& model);
  void used(const StreamedModel& model, bool begins);
  void reused(std::int64_t models);

 private:
  struct Entry {
    std::weak_ptr<StreamedModel> model;
    const StreamedModel* address = nullptr;
    int uses = 0;
    bool in_place = false;
    ModelState state;
  };
  Entry* entry_of(const StreamedModel& model);
  void tell(std::unique_lock<std::mutex>& lock, const EngineEvent& event);

  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
  EngineCounts counts_;
  EngineObserver* observer_ = nullptr;
};

/// The one of this process.
EngineWatch& engine_watch();

/// What rests where, of a model that is loaded. On the thread that may change it.
std::vector<ModelState::Share> shares_of(const StreamedModel& model);

}  // namespace distorch::streaming
