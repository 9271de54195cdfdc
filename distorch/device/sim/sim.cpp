#include "distorch/device/sim/sim.h"

#include "distorch/base/error.h"
#include "distorch/device/sim/backend.h"
#include "distorch/device/sim/machine.h"

namespace distorch::sim {
namespace {

std::mutex install_mutex;
std::shared_ptr<Machine> installed_machine;
thread_local std::shared_ptr<Machine> thread_machine;

std::shared_ptr<Machine> swap_thread_machine(std::shared_ptr<Machine> machine) {
  std::swap(thread_machine, machine);
  return machine;
}

}  // namespace

std::shared_ptr<Machine> machine_or_null() {
  if (thread_machine) return thread_machine;
  std::lock_guard lock(install_mutex);
  return installed_machine;
}

Machine& machine() {
  auto current = machine_or_null();
  if (!current) throw Error(ErrorKind::Internal, "sim", "no simulated accelerator is installed");
  return *current;  // kept by installed_machine or the scope
}

ThreadState& thread_state() {
  thread_local ThreadState state;
  return state;
}

void install(const Rig& rig, Options options) {
  register_backend();
  auto machine = std::make_shared<Machine>(rig, options);
  thread_state() = {};
  std::lock_guard lock(install_mutex);
  installed_machine = std::move(machine);
}

void install(const Rig& rig, Mode mode) { install(rig, Options{.mode = mode}); }

bool installed() { return machine_or_null() != nullptr; }

int device_count() {
  auto machine = machine_or_null();
  return machine ? machine->device_count() : 0;
}

std::string rig_name(int device) {
  machine().require(device);
  return machine().description(device).name;
}

DryScope::DryScope(const Rig& rig, Options options) : state_(thread_state()) {
  register_backend();
  options.mode = Mode::Dry;
  before_ = swap_thread_machine(std::make_shared<Machine>(rig, options));
  thread_state() = {};
}

DryScope::DryScope() : DryScope(machine().rig(), machine().options()) {}

DryScope::~DryScope() {
  swap_thread_machine(before_);
  thread_state() = state_;
}

std::shared_ptr<Machine> current_machine() { return machine_or_null(); }

JoinScope::JoinScope(std::shared_ptr<Machine> machine)
    : before_(swap_thread_machine(std::move(machine))), state_(thread_state()) {
  thread_state() = {};
}

JoinScope::~JoinScope() {
  swap_thread_machine(before_);
  thread_state() = state_;
}

bool dry() {
  auto machine = machine_or_null();
  return machine && machine->is_dry();
}

double now() { return machine().now(); }

double finish() {
  machine().finish_all();
  return machine().now();
}

void reset_clock() { machine().reset_clock(); }

void advance_host(double seconds) { machine().advance_host(seconds); }

void model_transfer(const c10::Stream& stream, const std::string& from, const std::string& to,
                    std::int64_t bytes) {
  auto& m = machine();
  const int dense = m.stream_of(stream.device_index(), stream.id());
  const auto* label = label_of("transfer");
  m.use(dense, label, {});
  m.transfer(dense, label, {from, to, bytes});
}

void trace(bool on) { machine().trace(on); }
std::vector<Interval> intervals() { return machine().intervals(); }
Work work(int device) { return machine().work(device); }
Memory memory(int device) { return machine().memory(device); }
void reset_peak(int device) { machine().reset_peak(device); }
void limit_memory(int device, std::int64_t bytes) { machine().limit_memory(device, bytes); }
void fail_device(int device) { machine().fail_device(device); }
void fail_allocation(int device, std::int64_t nth) { machine().fail_allocation(device, nth); }
void fail_copy(int device, std::int64_t nth) { machine().fail_copy(device, nth); }
bool fault_pending(int device) { return machine().fault_pending(device); }
void lose_waits(Waits which) { machine().lose_waits(which); }

}  // namespace distorch::sim
