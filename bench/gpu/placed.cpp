#include "bench/gpu/placed.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <map>
#include <thread>

#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/registered.h"
#include "distorch/device/sim/sim.h"
#include "distorch/device/streams.h"
#include "distorch/placement/timeline.h"
#include "distorch/streaming/described_model.h"

namespace distorch::bench {

Link measure_link(streaming::StreamedModel& model, c10::Device device) {
  const streaming::Stretch* largest = nullptr;
  for (int block = 0; block < static_cast<int>(model.block_count()); ++block)
    for (const auto& stretch : model.layout(block).stretches)
      if (!largest || stretch.size_bytes > largest->size_bytes) largest = &stretch;
  constexpr std::int64_t page = 4096;
  auto begin = largest->file_offset / page * page;
  auto end = (largest->file_offset + largest->size_bytes + page - 1) / page * page;
  const auto* mapped = largest->file->mapping()->bytes().data();
  auto pieces = device::register_shared(mapped + begin, end - begin, {device});
  // A ring may have registered a part: stay within one piece, the one that holds most.
  const auto* from = mapped + largest->file_offset;
  auto size = pieces.empty() ? largest->size_bytes : std::int64_t{0};
  for (const auto& piece : pieces) {
    const auto* start = static_cast<const std::byte*>(piece->start());
    const auto* first = std::max(start, mapped + largest->file_offset);
    auto part =
        std::min(start + piece->bytes(), mapped + largest->file_offset + largest->size_bytes) -
        first;
    if (part <= size) continue;
    size = part;
    from = first;
  }
  size = std::min(size, std::int64_t{64} << 20);
  auto source = at::from_blob(const_cast<std::byte*>(from), {size}, at::kByte);
  auto target = at::empty({size}, at::TensorOptions().dtype(at::kByte).device(device));
  auto stream = device::new_stream(device);
  Link link;
  // The fastest of several rounds: what the link can do, whatever else the machine is doing.
  double seconds = std::numeric_limits<double>::infinity();
  for (int round = 0; round < 12; ++round)
    seconds = std::min(seconds, time_calls(device, {.warm_ups = 0, .calls = 16, .rounds = 1},
                                           [&] { device::copy_async(target, source, stream); }));
  link.bytes_per_s = static_cast<double>(size) / seconds;
  auto few_to = target.narrow(0, 0, 64), few_from = source.narrow(0, 0, 64);
  link.latency_s = time_calls(device, {.warm_ups = 5, .calls = 1, .rounds = 21},
                              [&] { device::copy_async(few_to, few_from, stream); });
  fmt::print("link from the mapping: {:.1f} GB/s, {:.1f} us\n", link.bytes_per_s / 1e9,
             link.latency_s * 1e6);
  return link;
}

placement::System machine(const std::string& device, std::int64_t budget_bytes, const Link& link,
                          const std::string& donor) {
  auto info = device::find_device(device);
  auto room = donor == "cpu" ? std::int64_t{1} << 50 : roomy_budget(donor);
  placement::System system;
  system.devices = {{device, info.total_bytes, budget_bytes}, {donor, room, room}};
  LinkSpec spec;
  spec.from = donor;
  spec.to = device;
  spec.bytes_per_s = link.bytes_per_s;
  spec.latency_s = link.latency_s;
  system.links = {spec};
  return system;
}

std::int64_t roomy_budget(const std::string& device) {
  return static_cast<std::int64_t>(0.95 *
                                   static_cast<double>(device::find_device(device).total_bytes));
}

placement::Model describe(streaming::StreamedModel& model, const streaming::Profile& profile,
                          std::int64_t library_bytes) {
  placement::Model described;
  described.name = model.options().name;
  described.activation_bytes = profile.peak_activation_bytes + library_bytes;
  for (std::size_t i = 0; i < model.block_count(); ++i) {
    placement::Block block;
    block.name = model.manifest().blocks()[i];
    streaming::describe_bytes(model, static_cast<int>(i), block);
    block.seconds = {profile.seconds[i], -1};
    block.activation_bytes = profile.activation_bytes[i];
    block.unpack_s = profile.unpack_s[i];
    block.restart_s = std::min(block.unpack_s, profile.restart_s);
    block.pinned = block.bytes == 0;
    block.idle = i < profile.idle.size() && profile.idle[i];
    described.blocks.push_back(block);
  }
  return described;
}

placement::Placement offload(const placement::System& system, const placement::Model& model,
                             double share) {
  placement::Allocation allocation;
  allocation.compute = system.devices[system.compute].name;
  allocation.virtual_bytes = std::floor(share * static_cast<double>(model.bytes()));
  allocation.donors = {system.links[0].from};
  return placement::plan(system, model, allocation);
}

void load(streaming::StreamedModel& model, const placement::System& system,
          const placement::Placement& placement) {
  std::vector<streaming::BlockHome> homes;
  for (const auto& home : placement.blocks)
    homes.push_back({home.how, system.devices[home.device].name, home.rests});
  std::map<std::string, double> slots;
  for (const auto& ring : placement.rings) slots[system.devices[ring.device].name] = ring.slots;
  model.load(homes, slots);
}

std::string result_bits(const std::string& name, const at::Tensor& result) {
  auto largest = result.abs().max().item().toDouble();
  if (!std::isfinite(largest) || largest == 0)
    throw Error(ErrorKind::Internal, name, "the step's result is zero or not finite");
  return fingerprint(result);
}

namespace {

/// What a placement streams, copied again and again in large pieces: from RAM as the ring's memory
/// is registered, from another accelerator as much of its memory. What the link gives.
class LinkProbe {
 public:
  /// `limited`: the device's memory is.
  LinkProbe(streaming::StreamedModel& model, c10::Device device, bool limited)
      : device_(device), stream_(device::new_stream(device)) {
    constexpr std::int64_t page = 4096;
    std::map<const void*, std::shared_ptr<const device::RegisteredRange>> ranges;
    for (int block = 0; block < static_cast<int>(model.block_count()); ++block) {
      const auto& home = model.homes()[block];
      if (home.how != placement::How::Streamed) continue;
      const auto& layout = model.layout(block);
      if (home.device != "cpu") {  // one buffer for all
        if (!donor_.defined() || donor_.numel() < layout.slot_bytes)
          donor_ =
              at::empty({layout.slot_bytes},
                        at::TensorOptions().dtype(at::kByte).device(device::to_torch(home.device)));
        sources_.push_back(donor_.narrow(0, 0, layout.slot_bytes));
        continue;
      }
      for (const auto& stretch : layout.stretches) {
        auto begin = stretch.file_offset / page * page;
        auto end = (stretch.file_offset + stretch.size_bytes + page - 1) / page * page;
        const auto* mapped = stretch.file->mapping()->bytes().data();
        for (auto& piece : device::register_shared(mapped + begin, end - begin, {device}))
          ranges[piece->start()] = piece;
      }
    }
    for (const auto& [start, range] : ranges)
      sources_.push_back(
          at::from_blob(const_cast<void*>(start), {range->bytes()}, [range](void*) {}, at::kByte));
    std::int64_t largest = 0;
    for (const auto& source : sources_) {
      bytes_ += static_cast<double>(source.numel());
      largest = std::max(largest, source.numel());
    }
    // As large as a ring where there is room: it is not in the device's cache then.
    constexpr std::int64_t roomy = std::int64_t{1} << 30;
    if (device::memory_use(device).free > 8 * roomy && !limited) largest_copy_ = roomy / 2;
    target_ = at::empty({std::min(largest, 2 * largest_copy_)},
                        at::TensorOptions().dtype(at::kByte).device(device));
    device::synchronize(device);
  }

  /// Copies everything once; does not wait.
  void pass() {
    for (const auto& source : sources_)
      for (std::int64_t done = 0; done < source.numel(); done += largest_copy_) {
        auto size = std::min(largest_copy_, source.numel() - done);
        if (at_ + size > target_.numel()) at_ = 0;
        device::copy_async(target_.narrow(0, at_, size), source.narrow(0, done, size), stream_);
        at_ += size;
      }
  }

  double bytes_per_s() {
    int passes = std::max(1, static_cast<int>(std::ceil(least_bytes / bytes_)));
    return bytes_ /
           time_calls(device_, {.warm_ups = 0, .calls = passes, .rounds = 1}, [&] { pass(); });
  }

  struct Together {
    double call_s = 0, bytes_per_s = 0;
  };
  /// Calls one after the other while copies run one after the other: what sharing the device costs
  /// both.
  Together beside(const Rounds& rounds, const std::function<void()>& call) {
    std::atomic<bool> stop{false};
    std::atomic<int> passes{0};
    std::thread busy([&, machine = sim::current_machine()] {
      sim::JoinScope join(machine);
      c10::InferenceMode mode;
      while (!stop) {
        pass();
        device::synchronize(stream_);
        ++passes;
      }
    });
    // From one pass's end to another's.
    auto next_pass = [&] {
      for (int now = passes; passes == now;) std::this_thread::yield();
      return now_s();
    };
    auto begin = next_pass();
    int before = passes;
    auto call_s = time_calls(device::current_stream(device_), rounds, call);
    auto end = next_pass();
    int done = passes - before;
    stop = true;
    busy.join();
    return {call_s, bytes_ * done / (end - begin)};
  }

 private:
  static constexpr double least_bytes = 4e9;  // of one measurement

  c10::Device device_;
  c10::Stream stream_;
  std::vector<at::Tensor> sources_;
  at::Tensor donor_;
  std::int64_t largest_copy_ = std::int64_t{32} << 20;
  double bytes_ = 0;
  at::Tensor target_;
  std::int64_t at_ = 0;
};

}  // namespace

double measure(const Case& subject, streaming::StreamedModel& model,
               const placement::System& planned_for, const placement::Model& described,
               const placement::Placement& placement, Results& results) {
  auto system = planned_for;
  const auto& name = system.devices[system.compute].name;
  auto device = device::to_torch(name);
  double streamed = 0;
  for (std::size_t i = 0; i < placement.blocks.size(); ++i)
    streamed +=
        static_cast<double>(placement::streamed_bytes(described.blocks[i], placement.blocks[i]));
  // Not where the memory's limit has no room for it.
  const bool has_room =
      described.bytes() + described.activation_bytes <= system.devices[system.compute].budget_bytes;
  const bool resident_is_bound = subject.resident_s > 0.8 * streamed / system.links[0].bytes_per_s;
  using Compares = Case::Compares;
  const bool compare =
      has_room && (subject.compares == Compares::Always ||
                   (subject.compares == Compares::WhereItIsTheBound && resident_is_bound));
  auto resident = [&] {
    model.load(std::vector<streaming::BlockHome>(
        model.block_count(), {placement::How::Resident, system.devices[system.compute].name}));
    return time_calls(device, subject.rounds, [&] { subject.step(); });
  };
  double resident_s = compare ? resident() : subject.resident_s;
  load(model, system, placement);
  subject.step();
  device::synchronize(device);
  device::empty_cache(device);
  device::reset_peak(device);
  auto result = subject.step();
  device::synchronize(device);
  auto peak = static_cast<double>(device::memory_use(device).peak);
  bool same = result_bits(subject.name, result) == subject.bits;
  result = at::Tensor();
  streamed = 0;  // more where resident weights made room
  for (std::size_t i = 0; i < placement.blocks.size(); ++i)
    if (const auto& home = model.homes()[i]; home.how == placement::How::Streamed)
      streamed +=
          static_cast<double>(described.blocks[i].bytes - model.resting_bytes(static_cast<int>(i)));
  LinkProbe probe(model, device,
                  system.devices[system.compute].budget_bytes < roomy_budget(name) / 2);
  for (int i = 0; i < subject.rounds.warm_ups; ++i) subject.step();
  // By turns: hosts are shared, and their memory is faster at one time than at another.
  std::vector<double> rates, steps;
  for (int round = 0; round < subject.rounds.rounds; ++round) {
    rates.push_back(streamed > 0 ? probe.bytes_per_s() : system.links[0].bytes_per_s);
    steps.push_back(time_calls(device, {.warm_ups = 1, .calls = subject.rounds.calls, .rounds = 1},
                               [&] { subject.step(); }));
  }
  auto step = median(steps);
  auto& link_rate = system.links[0].bytes_per_s;
  link_rate = median(rates);
  double link_s = streamed / link_rate;
  placement::Timeline timeline(system, described);
  auto report = timeline.report(placement, 1);
  LinkProbe::Together together;
  if (compare) {
    resident_s = (resident_s + resident()) / 2;
    together = probe.beside(subject.rounds, [&] { subject.step(); });
  }
  double bound = std::max(resident_s, link_s);
  const double slots = placement.rings.empty() ? 0 : placement.rings[0].slots;
  results.add("step / bound, " + subject.name, step, bound, "s",
              {{"streamed_GB", streamed / 1e9},
               {"link_GBps", link_rate / 1e9},
               {"link_fastest_GBps", *std::max_element(rates.begin(), rates.end()) / 1e9},
               {"resident_s", resident_s},
               {"resident_beside_copies_s", together.call_s},
               {"link_beside_steps_GBps", together.bytes_per_s / 1e9},
               {"link_s", link_s},
               {"bits_equal", same},
               {"slots", slots}});
  if (compare)
    results.add("resident step beside copies / alone, " + subject.name, together.call_s, resident_s,
                "s");
  results.add("predicted / measured step, " + subject.name, report.step_s, step, "s");
  results.add("predicted / measured peak, " + subject.name,
              static_cast<double>(placement.peak_bytes()) / 1e9, peak / 1e9, "GB");
  results.add("bits equal to resident, " + subject.name, same ? 1 : 0, 1, "");
  return step;
}

}  // namespace distorch::bench
