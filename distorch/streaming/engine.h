#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distorch/base/rig.h"
#include "distorch/device/device.h"
#include "distorch/device/measure.h"
#include "distorch/placement/auto_plan.h"
#include "distorch/placement/plan.h"
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

enum class PlacementMode { Auto, Spread, Tail };

struct EngineOptions {
  std::string default_device;                   // "" = the first accelerator, else cpu
  std::map<std::string, std::int64_t> budgets;  // --memory cuda:0=10GiB
  PlacementMode mode = PlacementMode::Auto;     // --placement: Tail is DisTorch2's order
  // --placement "cuda:0,2gb;cpu,*" for every model; "" = as the loader says
  std::string override_allocation;
  std::map<std::string, std::string> device_map;  // --device-map
  bool strict_devices = false;
  bool log_tables = true;
  std::optional<Rig> rig;  // the machine that sim devices imitate
  bool plan_only = false;  // plan for `rig` (or this machine), load and run nothing
};

/// One preparation of a model, as `distorch plan` reports it.
struct PlannedRun {
  std::string model, compute;
  double steps = 1;
  Profile profile;
  placement::System system;  // budgets less what other models hold
  placement::Model blocks;
  placement::Placement placement;
  std::int64_t others_bytes = 0;  // held by other models on the compute device meanwhile
};

/// What a run of a model will need.
struct RunNeeds {
  std::string key;   // sizes of the inputs: with the same key nothing is planned again
  double steps = 1;  // how often the weights are used in a row
  /// Of this run, in order; which they are belongs to the key, their strengths do not.
  std::vector<LoraUse> loras;
  /// Asked only if a plan has to be made: a dry run of the same arithmetic (profile.h).
  std::function<Profile(const RigDevice& compute)> profile;
};

/// All models of a process and the memory they may use: plans where weights rest, loads, evicts.
/// Promises: no device is used beyond its budget; nothing is evicted that is not in the way; a
/// model that the same prompt still uses goes last.
class Engine {
 public:
  explicit Engine(EngineOptions options = {});

  const EngineOptions& options() const { return options_; }
  /// The present device that stands for a requested one ("" = default), warning once where it was
  /// replaced.
  std::string device_for(const std::string& requested);
  /// The machine as planners see it, with `compute` to compute on and budgets applied.
  placement::System system(const std::string& compute) const;
  /// Speeds of a device for profiles: of the simulated rig, of a known accelerator, or a cautious
  /// guess.
  RigDevice speeds(const std::string& device) const;
  /// The devices there are: of this machine, or of the rig that is planned for.
  std::vector<device::DeviceInfo> devices() const;
  /// One of them. Error(Usage) that names what there is.
  device::DeviceInfo describe(const std::string& device) const;
  /// True when nothing is loaded or run: nodes then give values of the right shape instead.
  bool plan_only() const { return options_.plan_only; }
  /// What was planned, in order.
  const std::vector<PlannedRun>& planned_runs() const { return planned_runs_; }

  /// Makes the engine know a model; it is forgotten when the model dies. Models that run in
  /// `many_steps` (diffusion models) share the memory left when several are in use at once.
  void add(const std::shared_ptr<StreamedModel>& model, const PlacementRequest& request,
           bool many_steps);
  /// Brings a model into place for a run: plans, makes room, loads. Cheap when nothing changed.
  /// Errors: OutOfMemory, Usage (impossible allocation).
  void prepare(const std::shared_ptr<StreamedModel>& model, const RunNeeds& needs);
  /// Models used since then are evicted after all others.
  void begin_prompt();
  /// Gives all weights back.
  void unload_all();

  /// The plan made by the last prepare() of a model; tables for the log (placement/tables.h).
  const placement::Placement* placement_of(const StreamedModel& model) const;
  /// Text of the three DisTorch2 tables and the expert string of the model's plan; "" where none
  /// was made.
  std::string tables_of(const StreamedModel& model) const;
  /// Frees at least `bytes` on a device if it can: idle models first, then weights of `user`
  /// itself.
  bool make_room(const std::string& device, std::int64_t bytes, StreamedModel* user);

 private:
  struct Entry {
    std::weak_ptr<StreamedModel> model;
    PlacementRequest request;
    bool many_steps = false;
    std::string key;
    double steps = 1;
    Profile profile;  // empty until the first prepare()
    placement::System system;
    placement::Model plan_model;
    placement::Placement placement;
    bool planned = false;
    bool in_place = false;   // plan_only: would be loaded now
    std::uint64_t used = 0;  // when, counted in prepare() calls
  };
  using Bytes = std::map<std::string, std::int64_t>;

  Entry& entry(const StreamedModel& model);
  const Entry* find(const StreamedModel& model) const;
  placement::System system_without(const std::string& compute, const Bytes& taken) const;
  /// The model for planners, with the block times of `profile` (of one run on the compute device).
  placement::Model describe(const StreamedModel& model, const placement::System& system,
                            const Profile& profile) const;
  /// Whether its steps are recorded (step_recorder.h): then the host's time does not count.
  bool records(const Entry& entry, const StreamedModel& model) const;
  bool records_this(const Entry& entry, const StreamedModel& model) const;
  Profile timed(const Entry& entry, const StreamedModel& model) const;
  placement::Allocation allocation_of(const Entry& entry, const StreamedModel& model);
  /// A plan beside what others hold; `all_resident` tells whether nothing had to be offloaded.
  placement::Placement plan_beside(Entry& entry, StreamedModel& model, const Bytes& taken);
  std::vector<Entry*> partners(Entry& entry);
  bool plan_together(Entry& entry, StreamedModel& model);
  void adopt(Entry& entry, StreamedModel& model);
  void plan_alone(Entry& entry, StreamedModel& model);
  void log_placement(const Entry& entry, const StreamedModel& model) const;
  std::int64_t held_bytes(const Entry& entry, const StreamedModel& model,
                          const std::string& device) const;
  bool in_place(const Entry& entry, const StreamedModel& model) const;
  bool ready(const Entry& entry, const StreamedModel& model) const;
  Bytes taken_by_others(const StreamedModel& model) const;
  bool evict_one(const StreamedModel* keep, bool also_current_prompt, const std::string& device);

  EngineOptions options_;
  std::vector<Entry> entries_;
  std::vector<PlannedRun> planned_runs_;
  std::optional<device::LinkTable> links_;
  std::uint64_t clock_ = 0, prompt_begin_ = 0;
};

}  // namespace distorch::streaming
