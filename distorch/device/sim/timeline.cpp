#include "distorch/device/sim/timeline.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace distorch::sim {
namespace {
constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr std::size_t kLongQueue = 4096;  // then what the host's time allows is worked off
}  // namespace

Timeline::Timeline(LinkClock links, int devices) : links_(std::move(links)), devices_(devices) {}

int Timeline::add_stream(int device, std::string lane) {
  streams_.push_back({device, std::move(lane)});
  return static_cast<int>(streams_.size()) - 1;
}

Timeline::Command& Timeline::push(int stream, Kind kind) {
  auto& queue = streams_[stream].queue;
  if (queue.size() > kLongQueue && queue.front().issue_s < host_s_) catch_up();
  queue.push_back({kind, host_s_, issued_++});
  return queue.back();
}

void Timeline::kernel(int stream, double duration_s, const Label& label) {
  auto& s = streams_[stream];
  // Without a profile, kernels that follow one another are one: long dry runs stay small.
  if (!tracing_ && s.queue.size() > (s.running ? 1u : 0u)) {
    auto& last = s.queue.back();
    if (last.kind == Kind::Kernel && last.issue_s == host_s_) {
      last.duration_s += duration_s;
      return;
    }
  }
  auto& command = push(stream, Kind::Kernel);
  command.duration_s = duration_s;
  if (tracing_) command.label = label;
}

void Timeline::transfer(int stream, int route, std::int64_t bytes, const Label& label,
                        const MemoryShare& memory) {
  auto& command = push(stream, Kind::Transfer);
  command.memory = memory;
  command.route = route;
  command.bytes = bytes;
  if (tracing_) command.label = label;
}

std::shared_ptr<Mark> Timeline::record(int stream) {
  auto& command = push(stream, Kind::Record);
  command.mark = std::make_shared<Mark>();
  return command.mark;
}

void Timeline::wait(int stream, std::shared_ptr<Mark> mark) {
  if (mark->reached) return;
  push(stream, Kind::Wait).mark = std::move(mark);
}

void Timeline::advance_host(double seconds) { host_s_ += seconds; }

// Marks and waits take no time: works off as many as stand in front. True when one was.
bool Timeline::start_zero_time(Stream& stream) {
  bool moved = false;
  while (!stream.running && !stream.queue.empty()) {
    auto& head = stream.queue.front();
    if (head.issue_s > now_s_) break;
    if (head.kind == Kind::Record) {
      head.mark->reached = true;
      head.mark->at_s = now_s_;
    } else if (head.kind != Kind::Wait || !head.mark->reached) {
      break;
    }
    stream.queue.pop_front();
    moved = true;
  }
  return moved;
}

// A device runs one kernel at a time; of several that are ready, the one issued first.
void Timeline::start_kernels() {
  std::vector<Stream*> first(devices_.size(), nullptr);
  for (auto& stream : streams_) {
    if (stream.running || stream.queue.empty()) continue;
    const auto& head = stream.queue.front();
    if (head.kind != Kind::Kernel || head.issue_s > now_s_ || devices_[stream.device].busy)
      continue;
    auto& best = first[stream.device];
    if (!best || head.number < best->queue.front().number) best = &stream;
  }
  for (auto* stream : first) {
    if (!stream) continue;
    stream->running = true;
    stream->start_s = now_s_;
    auto& device = devices_[stream->device];
    stream->end_s = now_s_ + stream->queue.front().duration_s + std::exchange(device.owed_s, 0);
    device.busy = true;
  }
}

void Timeline::start_ready() {
  for (bool moved = true; moved;) {
    moved = false;
    for (auto& stream : streams_) moved |= start_zero_time(stream);
  }
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    auto& stream = streams_[i];
    if (stream.running || stream.queue.empty()) continue;
    const auto& head = stream.queue.front();
    if (head.kind != Kind::Transfer || head.issue_s > now_s_) continue;
    stream.running = true;
    stream.start_s = now_s_;
    stream.flow = links_.start(head.route, head.bytes, now_s_);
    flow_owner_[stream.flow] = static_cast<int>(i);
  }
  start_kernels();
}

double Timeline::next_event() {
  double next = links_.next_completion_s();
  for (const auto& stream : streams_) {
    if (stream.queue.empty()) continue;
    const auto& head = stream.queue.front();
    if (stream.running) {
      if (head.kind == Kind::Kernel) next = std::min(next, stream.end_s);
    } else if (head.issue_s > now_s_) {
      next = std::min(next, head.issue_s);
    }
  }
  return next;
}

void Timeline::complete(Stream& stream) {
  auto& head = stream.queue.front();
  if (head.kind == Kind::Kernel) {
    devices_[stream.device].busy = false;
    devices_[stream.device].busy_s += now_s_ - stream.start_s;
  } else if (head.kind == Kind::Transfer && head.memory.device >= 0 &&
             devices_[head.memory.device].busy) {
    devices_[head.memory.device].owed_s += head.memory.seconds;
  }
  if (tracing_ && head.label.name) {
    const auto lane = head.kind == Kind::Transfer ? route_lanes_[head.route] : stream.lane;
    intervals_.push_back(
        {lane, *head.label.name, stream.start_s, now_s_, head.label.bytes, head.label.kernel});
  }
  stream.queue.pop_front();
  stream.running = false;
  stream.flow = -1;
}

// Goes to the next thing that happens, when that is not after `limit_s`.
bool Timeline::step(double limit_s) {
  start_ready();
  const double next = next_event();
  if (next == kNever || next > limit_s) return false;
  links_.advance(next);
  now_s_ = next;
  for (const auto& done : links_.take_completed()) {
    auto owner = flow_owner_.find(done.transfer);
    if (owner == flow_owner_.end()) continue;
    complete(streams_[owner->second]);
    flow_owner_.erase(owner);
  }
  for (auto& stream : streams_)
    if (stream.running && stream.queue.front().kind == Kind::Kernel && stream.end_s <= now_s_)
      complete(stream);
  start_ready();
  return true;
}

void Timeline::catch_up() {
  while (step(host_s_)) {
  }
}

void Timeline::finish(int stream) {
  start_ready();
  while (!streams_[stream].queue.empty() && step(kNever)) {
  }
  host_s_ = std::max(host_s_, now_s_);
}

void Timeline::finish(const Mark& mark) {
  start_ready();
  while (!mark.reached && step(kNever)) {
  }
  host_s_ = std::max(host_s_, now_s_);
}

void Timeline::finish_all() {
  while (step(kNever)) {
  }
  host_s_ = std::max(host_s_, now_s_);
}

bool Timeline::idle(int stream) {
  catch_up();
  return streams_[stream].queue.empty();
}

void Timeline::reset() {
  finish_all();
  links_.reset();
  flow_owner_.clear();
  intervals_.clear();
  now_s_ = host_s_ = 0;
  for (auto& device : devices_) device = {};
}

void Timeline::trace(bool on) {
  tracing_ = on;
  intervals_.clear();
}

}  // namespace distorch::sim
