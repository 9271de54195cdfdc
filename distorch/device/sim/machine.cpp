#include "distorch/device/sim/machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "distorch/base/align.h"
#include "distorch/base/error.h"
#include "distorch/base/units.h"
#include "distorch/device/streams.h"

namespace distorch::sim {
namespace {

constexpr std::int64_t kRound = 512;  // CUDA's caching allocator: all sizes are multiples of this
constexpr std::int64_t kSmallPool = 1 << 20;  // and up to this size come from a pool of their own
constexpr int kStreamsInPool = 32;

std::int64_t rounded(std::int64_t bytes) { return align_up(bytes, kRound); }

bool is_accelerator(const RigDevice& device) {
  return device.name != "cpu" && device.name != "disk";
}

int count_accelerators(const Rig& rig) {
  return static_cast<int>(std::count_if(rig.devices.begin(), rig.devices.end(), is_accelerator));
}

}  // namespace

const char* dtype_name(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::ScalarType::Float: return "float32";
    case c10::ScalarType::BFloat16: return "bfloat16";
    case c10::ScalarType::Half: return "float16";
    case c10::ScalarType::Double: return "float64";
    case c10::ScalarType::Char: return "int8";
    case c10::ScalarType::Float8_e4m3fn: return "float8_e4m3fn";
    case c10::ScalarType::Float8_e5m2: return "float8_e5m2";
    default: return "default";
  }
}

const std::string* label_of(const std::string& operation) {
  static std::mutex mutex;
  static std::set<std::string> labels;
  auto place = device::NamedScope::path();
  std::lock_guard lock(mutex);
  return &*labels.insert(place.empty() ? operation : place + " / " + operation).first;
}

Touch touch_of(const at::Tensor& tensor, bool writes) {
  auto& block = *static_cast<Allocation*>(tensor.storage().data_ptr().get_context());
  const auto item = static_cast<std::int64_t>(tensor.element_size());
  std::int64_t last = 0;
  for (std::int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) == 0) return {&block, 0, 0, writes};
    last += (tensor.size(d) - 1) * tensor.stride(d);
  }
  const auto begin = tensor.storage_offset() * item;
  return {&block, begin, begin + (last + 1) * item, writes};
}

Allocation::~Allocation() {
  if (machine) machine->release(*this);
}

Machine::Machine(const Rig& rig, Options options)
    : rig_(rig),
      options_(options),
      timeline_(LinkClock(rig.links, rig.roots), count_accelerators(rig)) {
  for (const auto& spec : rig.devices) {
    if (!is_accelerator(spec)) continue;
    DeviceState device;
    device.spec = spec;
    device.name = fmt::format("sim:{}", devices_.size());
    device.memory.total = device.memory.limit = spec.memory_bytes;
    devices_.push_back(std::move(device));
  }
  if (devices_.empty())
    throw Error(ErrorKind::Usage, rig.name, "the rig has no accelerator to simulate");
}

int Machine::add_stream(int device, const std::string& lane) {
  order_.add_stream();
  stream_names_.push_back(lane);
  stream_devices_.push_back(device);
  return timeline_.add_stream(device, lane);
}

int Machine::stream_of(int device, c10::StreamId id) {
  std::lock_guard lock(mutex_);
  auto& streams = devices_.at(device).streams;
  auto found = streams.find(id);
  if (found != streams.end()) return found->second;
  const auto& name = devices_[device].name;
  return streams[id] = add_stream(
             device, id == 0 ? name + " compute" : fmt::format("{} stream {}", name, id));
}

int Machine::current_stream(int device) { return stream_of(device, thread_state().stream(device)); }

c10::StreamId Machine::new_stream_id(int device) {
  std::lock_guard lock(mutex_);
  auto& next = devices_.at(device).next_stream;
  const auto id = next;
  next = next % kStreamsInPool + 1;
  return id;
}

std::string Machine::stream_name(int stream) const { return stream_names_[stream]; }

bool Machine::is_default(int stream) { return stream_of(stream_devices_[stream], 0) == stream; }

// --- memory ---

void Machine::out_of_memory(const DeviceState& device, std::int64_t bytes) const {
  const auto& memory = device.memory;
  const auto limit =
      memory.limit < memory.total ? fmt::format(", limited to {}", human_bytes(memory.limit)) : "";
  const auto message = fmt::format(
      "{} out of memory. Tried to allocate {}. {} has a total capacity of {}{} of which {} is "
      "free.",
      device.name, human_bytes(bytes), device.name, human_bytes(memory.total), limit,
      human_bytes(memory.limit - memory.in_use));
  TORCH_CHECK_WITH(OutOfMemoryError, false, message);
  throw std::bad_alloc();  // not reached: the check above throws
}

void Machine::release_pending(DeviceState& device, bool wait) {
  if (device.pending.empty()) return;
  timeline_.catch_up();
  for (auto it = device.pending.begin(); it != device.pending.end();) {
    if (wait)
      for (const auto& event : it->until) finish(event);
    const bool done = std::all_of(it->until.begin(), it->until.end(),
                                  [](const auto& e) { return e.mark->reached; });
    if (done) device.memory.in_use -= it->bytes;
    it = done ? device.pending.erase(it) : std::next(it);
  }
}

void Machine::make_room(int index, std::int64_t bytes) {
  auto& device = devices_[index];
  if (device.fail_in > 0 && --device.fail_in == 0) out_of_memory(device, bytes);
  release_pending(device, false);
  const auto fits = [&] { return device.memory.in_use + bytes <= device.memory.limit; };
  if (!fits()) release_pending(device, true);
  if (!fits()) out_of_memory(device, bytes);
}

// Memory that was freed while another stream may still use it goes back to the stream it was
// allocated for; giving it out there is the bug that CUDA shows as random pixels.
void Machine::check_reuse(int index, int stream, std::int64_t bytes) {
  auto& ghosts = devices_[index].ghosts;
  for (auto it = ghosts.begin(); it != ghosts.end();) {
    if (it->stream != stream) {
      ++it;
      continue;
    }
    const auto open = it->log.open_use(order_, stream, it->allowed);
    if (!open) {
      it = ghosts.erase(it);
      continue;
    }
    const bool same_pool = (it->bytes <= kSmallPool) == (bytes <= kSmallPool);
    if (same_pool && it->bytes >= bytes) {
      const auto freed = it->bytes;
      ghosts.erase(it);
      throw Error(ErrorKind::Internal, devices_[index].name,
                  fmt::format("a race: {} bytes freed while '{}' on {} may still use them are "
                              "allocated again on {}; "
                              "wait for it with an event before freeing, or record_stream",
                              freed, *open->what, stream_name(open->stream), stream_name(stream)));
    }
    ++it;
  }
}

std::unique_ptr<Allocation> Machine::reserve(int device, std::int64_t bytes) {
  std::lock_guard lock(mutex_);
  require(device);
  auto block = std::make_unique<Allocation>();
  block->device = device;
  block->stream = current_stream(device);
  block->is_dry = is_dry();
  const auto counted = rounded(bytes);
  if (counted > 0) {
    make_room(device, counted);
    if (options_.race_check) check_reuse(device, block->stream, counted);
  }
  auto& memory = devices_[device].memory;
  memory.in_use += counted;
  memory.peak = std::max(memory.peak, memory.in_use);
  memory.allocations += counted > 0;
  block->counted_bytes = counted;
  block->machine = shared_from_this();
  return block;
}

void Machine::release(Allocation& block) noexcept {
  std::lock_guard lock(mutex_);
  auto& device = devices_[block.device];
  if (options_.race_check && block.counted_bytes > 0 &&
      block.log.open_use(order_, block.stream, block.also_used_on))
    device.ghosts.push_back(
        {block.stream, block.counted_bytes, std::move(block.log), block.also_used_on});
  if (block.also_used_on.empty()) {
    device.memory.in_use -= block.counted_bytes;
    return;
  }
  Pending pending{{}, block.counted_bytes};
  for (int stream : block.also_used_on) pending.until.push_back(record(stream));
  device.pending.push_back(std::move(pending));
}

void Machine::record_use(Allocation& block, int stream) {
  std::lock_guard lock(mutex_);
  auto& known = block.also_used_on;
  if (block.machine.get() != this || stream == block.stream) return;
  if (std::find(known.begin(), known.end(), stream) == known.end()) known.push_back(stream);
}

void Machine::recount(Allocation& block, std::int64_t bytes) {
  std::lock_guard lock(mutex_);
  const auto more = rounded(bytes) - block.counted_bytes;
  if (more == 0) return;
  if (more > 0) make_room(block.device, more);
  auto& memory = devices_[block.device].memory;
  memory.in_use += more;
  memory.peak = std::max(memory.peak, memory.in_use);
  block.counted_bytes += more;
}

Memory Machine::memory(int device) {
  std::lock_guard lock(mutex_);
  release_pending(devices_.at(device), false);
  return devices_[device].memory;
}

void Machine::reset_peak(int device) {
  std::lock_guard lock(mutex_);
  auto& memory = devices_.at(device).memory;
  memory.peak = memory.in_use;
}

void Machine::limit_memory(int device, std::int64_t bytes) {
  std::lock_guard lock(mutex_);
  auto& memory = devices_.at(device).memory;
  memory.limit = bytes > 0 ? std::min(bytes, memory.total) : memory.total;
}

// --- order ---

void Machine::require(int device) {
  if (device < 0 || device >= device_count())
    throw Error(ErrorKind::Usage, fmt::format("sim:{}", device),
                fmt::format("no such device; the rig '{}' has {}", rig_.name, device_count()));
  if (devices_[device].failed)
    throw Error(ErrorKind::Internal, devices_[device].name,
                "the device is gone: it stopped answering");
}

void Machine::race(int device, const Touch& use, int stream, const std::string* label,
                   const Access& earlier) const {
  throw Error(
      ErrorKind::Internal, devices_[device].name,
      fmt::format("a race: '{}' on {} {} bytes {} to {} of a storage of {} bytes that '{}' on {} "
                  "uses (bytes {} to "
                  "{}), and no event orders the two",
                  *label, stream_name(stream), use.writes ? "writes" : "reads", use.begin, use.end,
                  use.block->host ? static_cast<std::int64_t>(use.block->host.nbytes())
                                  : use.block->counted_bytes,
                  *earlier.what, stream_name(earlier.stream), earlier.begin, earlier.end));
}

void Machine::use(int stream, const std::string* label, const std::vector<Touch>& uses) {
  std::lock_guard lock(mutex_);
  const auto number = order_.tick(stream);
  if (!options_.race_check) return;
  for (const auto& use : uses) {
    if (use.begin == use.end || use.block->machine.get() != this) continue;
    const Access access{use.begin, use.end, stream, number, label};
    if (auto earlier = use.block->log.conflict(order_, access, use.writes))
      race(use.block->device, use, stream, label, *earlier);
  }
  for (const auto& use : uses) {
    if (use.begin == use.end || use.block->machine.get() != this) continue;
    use.block->log.note(order_, {use.begin, use.end, stream, number, label}, use.writes);
  }
}

SimEvent Machine::record(int stream) {
  std::lock_guard lock(mutex_);
  return {timeline_.record(stream), order_.clock(stream), this, stream};
}

void Machine::wait(int stream, const SimEvent& event) {
  std::lock_guard lock(mutex_);
  if (!event.mark || event.of != this) return;
  const bool by_default = is_default(stream), for_default = is_default(event.stream);
  if (lost_ == Waits::OfComputeForOthers && by_default && !for_default) return;
  if (lost_ == Waits::OfOthersForCompute && !by_default && for_default) return;
  timeline_.wait(stream, event.mark);
  order_.stream_waits(stream, event.clock);
}

void Machine::finish(int stream) {
  std::lock_guard lock(mutex_);
  timeline_.finish(stream);
  order_.host_waits(order_.clock(stream));
}

void Machine::finish(const SimEvent& event) {
  std::lock_guard lock(mutex_);
  if (!event.mark || event.of != this || lost_ == Waits::OfHostForEvents) return;
  timeline_.finish(*event.mark);
  order_.host_waits(event.clock);
}

void Machine::finish_device(int device) {
  std::lock_guard lock(mutex_);
  require(device);
  for (const auto& [id, stream] : devices_[device].streams) finish(stream);
}

void Machine::finish_all() {
  std::lock_guard lock(mutex_);
  timeline_.finish_all();
  order_.host_waits_for_all();
}

bool Machine::idle(int stream) {
  std::lock_guard lock(mutex_);
  const bool done = timeline_.idle(stream);
  if (done) order_.host_waits(order_.clock(stream));
  return done;
}

bool Machine::reached(const SimEvent& event) {
  std::lock_guard lock(mutex_);
  if (!event.mark || event.of != this) return true;
  timeline_.catch_up();
  if (event.mark->reached) order_.host_waits(event.clock);
  return event.mark->reached;
}

void Machine::host_touches(const HostUse& host) {
  std::lock_guard lock(mutex_);
  if (!options_.race_check || host.bytes <= 0) return;
  const auto begin = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(host.start));
  if (auto open = host_log_.open_for_host(order_, begin, begin + host.bytes, host.writes))
    throw Error(
        ErrorKind::Internal, "host memory",
        fmt::format(
            "a race: the host {} {} bytes that '{}' on {} may still use; wait for its event first",
            host.writes ? "overwrites" : "reads", host.bytes, *open->what,
            stream_name(open->stream)));
}

// --- clock ---

void Machine::kernel(int stream, const std::string* label, const KernelWork& work) {
  std::lock_guard lock(mutex_);
  auto& device = devices_.at(stream_devices_[stream]);
  timeline_.kernel(stream, seconds_of(device.spec, work),
                   {label, static_cast<std::int64_t>(work.bytes), work});
  timeline_.advance_host(options_.host_issue_s + device.spec.issue_s);
  ++device.work.operations;
  device.work.flops += work.flops;
}

std::string Machine::rig_name(const std::string& sim_name) const {
  for (const auto& device : devices_)
    if (device.name == sim_name) return device.spec.name;
  return sim_name;
}

int Machine::route(const std::string& from, const std::string& to) {
  const int route = timeline_.route(rig_name(from), rig_name(to));
  if (route < 0)
    throw Error(ErrorKind::Usage, rig_.name,
                fmt::format("the rig has no link from {} to {}", from, to));
  timeline_.name_route(route, from + "->" + to);
  return route;
}

void Machine::transfer(int stream, const std::string* label, const CopyJob& job,
                       const HostUse& host) {
  std::lock_guard lock(mutex_);
  const int over = route(job.from, job.to);
  const auto begin = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(host.start));
  const Access access{begin, begin + host.bytes, stream, order_.clock(stream).at(stream), label};
  if (host.bytes > 0 && options_.race_check) {
    if (auto earlier = host_log_.conflict(order_, access, host.writes))
      throw Error(ErrorKind::Internal, "host memory",
                  fmt::format("a race: '{}' on {} {} page-locked memory that '{}' on {} uses, and "
                              "no event orders the two",
                              *label, stream_name(stream), host.writes ? "writes" : "reads",
                              *earlier->what, stream_name(earlier->stream)));
    host_log_.note(order_, access, host.writes);
  }
  MemoryShare memory;  // of the device that gets the bytes, else of the one that gives
  for (int i = 0; i < static_cast<int>(devices_.size()); ++i) {
    auto& device = devices_[i];
    const bool gets = device.name == job.to, gives = device.name == job.from;
    if (gets) device.work.bytes_in += job.bytes;
    if (gives) device.work.bytes_out += job.bytes;
    const double bandwidth = device.spec.memory_bytes_per_s;
    if (bandwidth > 0 && (gets || (gives && memory.device < 0)))
      memory = {i, static_cast<double>(job.bytes) / bandwidth};
  }
  timeline_.transfer(stream, over, static_cast<std::int64_t>(job.bytes * job.slowdown),
                     {label, job.bytes}, memory);
  timeline_.advance_host(options_.host_issue_s);
  if (job.blocking) finish(stream);
}

double Machine::now() {
  std::lock_guard lock(mutex_);
  return timeline_.host_s();
}

void Machine::advance_host(double seconds) {
  std::lock_guard lock(mutex_);
  timeline_.advance_host(seconds);
}

void Machine::reset_clock() {
  std::lock_guard lock(mutex_);
  finish_all();
  timeline_.reset();
  for (auto& device : devices_) device.work = {};
}

void Machine::trace(bool on) {
  std::lock_guard lock(mutex_);
  timeline_.trace(on);
}

std::vector<Interval> Machine::intervals() {
  std::lock_guard lock(mutex_);
  timeline_.catch_up();
  auto all = timeline_.intervals();
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.start_s < b.start_s; });
  return all;
}

Work Machine::work(int device) {
  std::lock_guard lock(mutex_);
  timeline_.catch_up();
  auto work = devices_.at(device).work;
  work.busy_s = timeline_.busy_s(device);
  return work;
}

void Machine::fail_device(int device) {
  std::lock_guard lock(mutex_);
  devices_.at(device).failed = true;
}

void Machine::fail_allocation(int device, std::int64_t nth) {
  std::lock_guard lock(mutex_);
  devices_.at(device).fail_in = nth;
}

void Machine::fail_copy(int device, std::int64_t nth) {
  std::lock_guard lock(mutex_);
  devices_.at(device).fail_copy_in = nth;
}

void Machine::about_to_copy(int device) {
  std::lock_guard lock(mutex_);
  auto& left = devices_.at(device).fail_copy_in;
  const bool fails = left > 0 && --left == 0;
  TORCH_CHECK(!fails, devices_[device].name, ": a copy over its link failed");
}

bool Machine::fault_pending(int device) {
  std::lock_guard lock(mutex_);
  return devices_.at(device).fail_in > 0 || devices_[device].fail_copy_in > 0;
}

void Machine::lose_waits(Waits which) {
  std::lock_guard lock(mutex_);
  lost_ = which;
}

}  // namespace distorch::sim
