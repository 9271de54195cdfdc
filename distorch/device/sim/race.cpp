#include "distorch/device/sim/race.h"

#include <algorithm>

namespace distorch::sim {
namespace {

bool overlap(const Access& a, const Access& b) { return a.begin < b.end && b.begin < a.end; }

bool covers(const Access& a, const Access& b) { return a.begin <= b.begin && b.end <= a.end; }

}  // namespace

void join(Clock& into, const Clock& other) {
  if (into.size() < other.size()) into.resize(other.size(), 0);
  for (std::size_t i = 0; i < other.size(); ++i) into[i] = std::max(into[i], other[i]);
}

void Order::add_stream() {
  streams_.emplace_back();
  seen_host_.push_back(0);
}

void Order::refresh(int stream) {
  if (seen_host_[stream] == host_version_) return;
  join(streams_[stream], host_);
  seen_host_[stream] = host_version_;
}

std::uint64_t Order::tick(int stream) {
  refresh(stream);
  auto& clock = streams_[stream];
  if (clock.size() < streams_.size()) clock.resize(streams_.size(), 0);
  return ++clock[stream];
}

const Clock& Order::clock(int stream) {
  refresh(stream);
  return streams_[stream];
}

void Order::host_waits(const Clock& event) {
  join(host_, event);
  ++host_version_;
}

void Order::host_waits_for_all() {
  for (const auto& clock : streams_) join(host_, clock);
  ++host_version_;
}

bool Order::before(int other, std::uint64_t number, int stream) {
  if (other == stream) return true;
  refresh(stream);
  const auto& clock = streams_[stream];
  return static_cast<std::size_t>(other) < clock.size() && clock[other] >= number;
}

bool Order::before_host(int other, std::uint64_t number) const {
  return static_cast<std::size_t>(other) < host_.size() && host_[other] >= number;
}

std::optional<Access> AccessLog::conflict(Order& order, const Access& use, bool writes) const {
  for (const auto& earlier : writes_)
    if (overlap(earlier, use) && !order.before(earlier.stream, earlier.number, use.stream))
      return earlier;
  if (writes)
    for (const auto& earlier : reads_)
      if (overlap(earlier, use) && !order.before(earlier.stream, earlier.number, use.stream))
        return earlier;
  return std::nullopt;
}

void AccessLog::note(Order& order, const Access& use, bool writes) {
  if (writes) {
    // What this write covers is ordered before it, so later uses need to be ordered after the write
    // only.
    const auto covered = [&](const Access& a) {
      return covers(use, a) && order.before(a.stream, a.number, use.stream);
    };
    std::erase_if(writes_, covered);
    std::erase_if(reads_, covered);
    writes_.push_back(use);
    return;
  }
  for (auto& earlier : reads_)
    if (earlier.stream == use.stream && earlier.begin == use.begin && earlier.end == use.end) {
      earlier.number = use.number;
      earlier.what = use.what;
      return;
    }
  reads_.push_back(use);
}

std::optional<Access> AccessLog::open_use(Order& order, int stream,
                                          const std::vector<int>& allowed) const {
  for (const auto* log : {&writes_, &reads_})
    for (const auto& use : *log)
      if (!order.before(use.stream, use.number, stream) &&
          std::find(allowed.begin(), allowed.end(), use.stream) == allowed.end())
        return use;
  return std::nullopt;
}

std::optional<Access> AccessLog::open_for_host(const Order& order, std::int64_t begin,
                                               std::int64_t end, bool writes) const {
  const Access range{begin, end, -1, 0};
  for (const auto& use : writes_)
    if (overlap(use, range) && !order.before_host(use.stream, use.number)) return use;
  if (writes)
    for (const auto& use : reads_)
      if (overlap(use, range) && !order.before_host(use.stream, use.number)) return use;
  return std::nullopt;
}

const std::string* AccessLog::last_writer() const {
  return writes_.empty() ? nullptr : writes_.back().what;
}

}  // namespace distorch::sim
