#pragma once
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "distorch/base/run_token.h"
#include "distorch/placement/auto_plan.h"
#include "distorch/streaming/machine.h"
#include "distorch/streaming/model_plan.h"
#include "distorch/streaming/profile.h"
#include "distorch/streaming/streamed_model.h"

namespace distorch::streaming {

/// How a loader wants a model placed. All empty: `auto` on the default device.
struct PlacementRequest {
  std::string compute;  // "" = the engine's default device
  // "EXPERT#COMPUTE;VIRTUAL_GB;DONORS" (placement/allocation_string.h); "" = auto
  std::string allocation;
  bool eject = true;  // other models give up their memory first (only as much as is needed)
  bool operator==(const PlacementRequest&) const = default;
};

/// One preparation of a model, as `distorch plan` reports it.
struct PlannedRun {
  std::string model, compute;
  double steps = 1;
  Profile profile;
  placement::System system;  // budgets less what other models hold
  placement::Model blocks;
  placement::Placement placement;
  std::int64_t others_bytes = 0;      // held by other models on the compute device meanwhile
  std::vector<std::string> gave_way;  // models that were loaded and had to go for this one
  bool beside = false;                // it computes while the run before it does (RunNeeds)
};

/// What a run of a model will need.
struct RunNeeds {
  std::string key;   // sizes of the inputs: with the same key nothing is planned again
  double steps = 1;  // how often the weights are used in a row
  /// Of this run, in order; which they are belongs to the key, their strengths do not.
  std::vector<LoraUse> loras;
  /// Asked only if a plan has to be made: a dry run of the same arithmetic (profile.h).
  std::function<Profile(const RigDevice& compute)> profile;
  /// Devices that replicas of the model compute on at the same time: their memory is not lent to
  /// this one where it is planned freely. They belong to the key.
  std::vector<std::string> apart = {};
  bool beside = false;  // it is such a replica; for PlannedRun
};

/// All models of a process and the memory they may use: plans where weights rest, loads, evicts.
/// Where a device's budget is what is free there, it is looked at before each step: a neighbour that
/// takes memory is given way to at once, what one leaves is used after a few steps.
/// What is known to run next is planned with what runs now, and comes meanwhile as far as there is
/// room.
/// Promises: no device is used beyond its budget; nothing is evicted that is not in the way, and
/// nothing that is in use; a model that a running prompt has used goes last. For any number of
/// threads: one model runs while others are planned and loaded.
class Engine {
  struct Entry;

 public:
  /// A model in use: it is in place, nobody else may move, evict or run it for as long as this
  /// object lives. Move-only; must not outlive the engine, and the model has to be kept by others.
  class [[nodiscard]] Use {
   public:
    Use() = default;
    ~Use();
    Use(Use&& other) noexcept;
    Use& operator=(Use&& other) noexcept;
    explicit operator bool() const { return entry_ != nullptr; }

   private:
    friend class Engine;
    Use(Engine* engine, std::shared_ptr<Entry> entry);
    Engine* engine_ = nullptr;
    std::shared_ptr<Entry> entry_;
  };

  /// A model and what its run will need.
  struct Wanted {
    std::shared_ptr<StreamedModel> model;
    RunNeeds needs;
  };

  explicit Engine(EngineOptions options = {}) : machine_(std::move(options)) {}

  const EngineOptions& options() const { return machine_.options(); }
  const Machine& machine() const { return machine_; }
  std::string device_for(const std::string& requested) { return machine_.device_for(requested); }
  placement::System system(const std::string& compute) const { return machine_.system(compute); }
  RigDevice speeds(const std::string& device) const { return machine_.speeds(device); }
  std::vector<device::DeviceInfo> devices() const { return machine_.devices(); }
  device::DeviceInfo describe(const std::string& device) const { return machine_.describe(device); }
  /// True when nothing is loaded or run: nodes then give values of the right shape instead.
  bool plan_only() const { return options().plan_only; }
  /// What was planned, in order. Not while another thread plans.
  const std::vector<PlannedRun>& planned_runs() const { return planned_runs_; }

  /// Makes the engine know a model; it is forgotten when the model dies. Models that run in
  /// `many_steps` (diffusion models) share the memory left when several are in use in turn.
  void add(const std::shared_ptr<StreamedModel>& model, const PlacementRequest& request,
           bool many_steps);
  /// Brings a model into place for a run and keeps it there until the Use ends: plans, makes room,
  /// loads. Cheap when nothing changed. Waits while another thread uses the model. A refused plan
  /// leaves everything as it was; a load that failed leaves the model unloaded.
  /// Errors: OutOfMemory, Usage (impossible allocation), Interrupted.
  Use prepare(const std::shared_ptr<StreamedModel>& model, const RunNeeds& needs);
  /// The same for models that run within each other's steps (a ControlNet in that of a diffusion
  /// model): all in place at once, on one compute device, planned freely. The first comes first
  /// where PlannedRuns are listed.
  /// `next`: a model that the same run will use once it is done with these, on any device. It is
  /// planned with them; from the first one's second step on, on a thread of its own, its weights are
  /// brought to where they will rest if that takes memory from nobody, and what will be read of
  /// its files is read ahead into what is free of RAM. What goes wrong with it is for its own
  /// prepare() to say. Null: nothing is known.
  std::vector<Use> prepare(const std::vector<Wanted>& wanted, const Wanted* next = nullptr);
  /// Gives back all weights that are not in use.
  void unload_all();

  /// The plan made by the last prepare() of a model; null where none was made.
  const placement::Placement* placement_of(const StreamedModel& model) const;
  /// Text of the three DisTorch2 tables and the expert string of the model's plan
  /// (placement/tables.h); "" where none was made.
  std::string tables_of(const StreamedModel& model) const;
  /// Frees at least `bytes` on a device if it can: idle models first, then what others manage
  /// (ForeignMemory), then weights of `user` itself or, where it is null, of the models that this
  /// thread uses. What anybody else uses stays.
  bool make_room(const std::string& device, std::int64_t bytes, StreamedModel* user);

 private:
  struct Entry {
    std::weak_ptr<StreamedModel> model;
    PlacementRequest request;
    bool many_steps = false;
    std::string key;
    std::vector<std::string> apart;  // as the last prepare() had them
    bool beside = false;
    double steps = 1;
    Profile profile;  // empty until the first prepare()
    placement::System system;
    placement::Model plan_model;
    placement::Placement placement;
    bool planned = false;
    bool in_place = false;        // plan_only: would be loaded now
    std::uint64_t used = 0;       // when, counted in prepare() calls
    std::weak_ptr<RunToken> run;  // the last prompt that used it
    int uses = 0;                 // Use objects
    int steps_alike = 0;          // since its share of the device last changed
    int more_for = 0;             // steps in a row that could have held more
    int grows_after = 0;          // so many of them let it grow
    bool grew = false;            // that was its latest change
    int taken_back = 0;           // how often what it grew by had to go again
    bool shifted = false;         // weights came or went one by one since they were spread
    std::int64_t may_hold = 0;    // of the compute device, after the latest shrink()
    std::int64_t step_bytes = 0;  // what a step was seen to need beside weights, holes included
    std::int64_t retries = 0;     // of the device's allocator so far
    int unlike_steps = 0;         // StreamedModel's, so far
    std::thread::id user;         // of the thread that made them
    std::int64_t planned_bytes(const std::string& device, bool running) const;
  };
  struct Places {
    std::vector<BlockHome> homes;
    std::map<std::string, double> slots;
  };
  static Places places_of(const placement::System& system, const placement::Placement& placement);
  /// A model that is being prepared.
  struct Draft {
    std::shared_ptr<Entry> entry;
    std::shared_ptr<StreamedModel> model;
    std::string key;
    Profile profile;
    placement::Model described;
  };
  using Entries = std::vector<std::shared_ptr<Entry>>;
  /// Of what this process may reach on a device, kept for whoever starts beside it, for an
  /// allocator's holes and for what a plan does not know of.
  static constexpr double kKeptFree = 0.006;
  struct Next;  // what follows a model that runs: engine_next.cpp

  std::shared_ptr<Entry> find(const StreamedModel& model) const;
  bool free_plan(const Entry& entry) const;
  bool in_place(const Entry& entry) const;
  std::int64_t held_bytes(const Entry& entry, const std::string& device) const;
  Entries others_in_place(const std::vector<Draft>& drafts) const;
  std::vector<Holder> holders(const Entries& others, const placement::System& system,
                              const std::vector<Draft>& partners) const;

  void claim(const std::vector<Wanted>& wanted, std::unique_lock<std::mutex>& lock,
             std::vector<Use>& uses, std::vector<Draft>& drafts);
  void release(Entry& entry);
  std::optional<Draft> claim_next(const Wanted* next, const std::vector<Draft>& drafts, Use& use);
  void profile_next(std::optional<Draft>& next, const RunNeeds& needs, placement::System room);
  void foresee(const std::optional<Draft>& next, Use& use);
  void expect(const StreamedModel& first, const Draft& next, std::shared_ptr<Next>& before);
  void begin_next(const StreamedModel& running);
  void bring_next(const Next& next);
  std::vector<Stretch> place_next(const Next& next);
  void plan_beside_all(Draft& draft);
  bool fits_beside_all(const Draft& draft) const;
  bool unchanged(const std::vector<Draft>& drafts) const;
  bool fits_again(const std::vector<Draft>& drafts);
  placement::System system_of(const Entry& entry, const std::string& compute) const;
  placement::System room_for(const Draft& draft, const std::vector<Draft>& drafts) const;
  void profile(Draft& draft, const RunNeeds& needs, placement::System room);
  placement::Allocation allocation_of(const Entry& entry, const std::string& compute) const;
  placement::Order order() const;
  void describe_needs(const Draft& draft, const RunNeeds& needs) const;

  bool can_record(const Entry& entry, const StreamedModel& model) const;
  bool records(const Entry& entry, const Profile& profile, const StreamedModel& model) const;
  Profile timed(const Entry& entry, const Profile& profile, const StreamedModel& model) const;
  std::vector<Draft> partners_of(const std::vector<Draft>& drafts,
                                 const placement::System& system) const;
  void plan(std::vector<Draft>& drafts);
  void drop_recordings(const PlanRequest& request, const Entries& others);
  void accept(const Draft& draft, const placement::System& system,
              const placement::Placement& placement);
  void bring(const Draft& draft, const std::vector<Draft>* keep);
  void bring_partner(const Draft& draft, const std::vector<Draft>& keep);
  std::int64_t growth(const Draft& draft) const;
  void follow(StreamedModel& model);
  std::int64_t spare_bytes(Entry& entry, c10::Device device) const;
  std::optional<placement::Placement> placed_at(const Entry& entry, const StreamedModel& model,
                                                const std::vector<BlockHome>& at) const;
  void rearrange(Entry& entry, StreamedModel& model, std::int64_t spare);
  int longer_wait(Entry& entry) const;
  void resettle(Entry& entry, StreamedModel& model) const;
  StepPrice step_price(const Entry& entry, const StreamedModel& model) const;
  std::int64_t shrink(StreamedModel& model, std::int64_t bytes);
  void load(Entry& entry, StreamedModel& model);
  void evict(Entry& entry, const std::string& device);
  bool evict_one(const std::vector<const StreamedModel*>& keep, const std::string& device);
  bool free_some(const std::vector<const StreamedModel*>& keep, const std::string& device,
                 std::int64_t bytes);
  void log_placement(const Entry& entry) const;
  void report(const std::vector<Draft>& drafts, const std::vector<std::string>& gave_way);

  Machine machine_;
  mutable std::mutex mutex_;
  std::condition_variable released_;
  Entries entries_;
  std::vector<PlannedRun> planned_runs_;
  std::uint64_t clock_ = 0;
  std::shared_ptr<Next> next_;  // last: its thread uses everything else
};

}  // namespace distorch::streaming
