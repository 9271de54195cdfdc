#include "distorch/placement/timeline.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "distorch/placement/ring_layout.h"

namespace distorch::placement {
namespace {

constexpr double kNever = LinkClock::kNever;
// the first fills the rings, two more show whether the step has settled
constexpr int kFewestSteps = 3;
constexpr int kMostSteps = 32;
constexpr double kSettled = 1e-9;  // relative change of a step's length
constexpr int kUnknown = -2;

// Adds the ends of steps one by one; knows when they repeat. A step repeats when the links stand at
// its end as they stood at the end of the one before: equal lengths alone would miss a link that
// slowly loses its lead.
class Settling {
 public:
  // `links`: when each link last finished or began a copy.
  bool add(double end_s, std::vector<double> links) {
    ends_.push_back(end_s);
    for (double& time : links) time -= end_s;
    const auto n = ends_.size();
    bool repeats = n >= kFewestSteps;
    if (repeats) {
      const double last = ends_[n - 1] - ends_[n - 2], close = kSettled * last;
      repeats = std::abs(last - (ends_[n - 2] - ends_[n - 3])) <= close;
      for (std::size_t i = 0; repeats && i < links.size(); ++i)
        repeats = std::abs(links[i] - before_[i]) <= close;
    }
    before_ = std::move(links);
    settled_ = settled_ || repeats;
    return settled_ || n >= kMostSteps;
  }
  double first_s() const { return ends_.front(); }
  // Without settling (links that share can alternate) the mean over the later half.
  double step_s() const {
    const auto n = ends_.size();
    const auto from = settled_ ? n - 2 : n / 2;
    return (ends_[n - 1] - ends_[from]) / static_cast<double>(n - 1 - from);
  }
  bool settled() const { return settled_; }

 private:
  std::vector<double> ends_, before_;
  bool settled_ = false;
};

}  // namespace

struct Timeline::Stage {
  int block = 0;
  int device = 0;
  double seconds = 0;
  int ring = -1;        // waits for this ring's next copy
  int move_route = -1;  // moves the activation here first
  std::int64_t move_bytes = 0;
};

struct Timeline::Ring {
  int route = 0;
  std::int64_t capacity = 0;        // bytes
  std::vector<int> blocks;          // in the order they are copied, cyclic
  std::vector<double> copy_s;       // alone on its link, latency included
  std::vector<std::int64_t> sizes;  // bytes
  RingLayout layout;                // where they go, and whose place they take
  std::int64_t started = 0, copied = 0, released = 0;
  int transfer = -1;  // the one in flight
  double began_s = 0;
};

// The state of an event-driven run: where the compute chain stands and since when.
struct Timeline::Run {
  int recorded = 0;  // steps whose bars are wanted
  Settling steps;
  std::vector<Interval> intervals;
  double last_wait_s = 0;  // of the last whole step

  double now = 0;
  std::size_t at = 0;  // the stage
  int step = 0;
  double compute_end = kNever;  // of the stage, once it computes
  int move = -1;                // the activation's transfer in flight
  bool moved = false;           // the activation is where the stage needs it
  double move_began = 0, asked = 0, wait = 0;

  void record(int lane, Interval::Kind kind, int block, int of_step, double start, double end) {
    if (of_step < recorded && end > start) {
      intervals.push_back({lane, kind, block, of_step, start, end});
    }
  }
};

Timeline::Timeline(const System& system, const Model& model)
    : system_(system),
      model_(model),
      clock_(system.links, system.roots),
      routes_(system.devices.size() * system.devices.size(), kUnknown) {}

Timeline::~Timeline() = default;

int Timeline::route(int from, int to) {
  int& known = routes_[static_cast<std::size_t>(from) * system_.devices.size() +
                       static_cast<std::size_t>(to)];
  if (known == kUnknown) known = clock_.route(system_.devices[from].name, system_.devices[to].name);
  return known;
}

// The placement as a chain of stages and its rings; false where it cannot run.
bool Timeline::prepare(const Placement& placement) {
  stages_.clear();
  rings_.resize(placement.rings.size());
  for (std::size_t r = 0; r < rings_.size(); ++r) {
    Ring& ring = rings_[r];
    ring = Ring{.route = route(placement.rings[r].device, placement.compute),
                .capacity = placement.rings[r].bytes(),
                .blocks = std::move(ring.blocks),
                .copy_s = std::move(ring.copy_s),
                .sizes = std::move(ring.sizes),
                .layout = std::move(ring.layout)};
    ring.blocks.clear();
    ring.copy_s.clear();
    ring.sizes.clear();
    if (ring.route < 0 || placement.rings[r].slots < 1) return false;
  }
  int here = placement.compute;
  for (std::size_t i = 0; i < model_.blocks.size(); ++i) {
    const Block& block = model_.blocks[i];
    const Home& home = placement.blocks[i];
    Stage stage{.block = static_cast<int>(i)};
    stage.device = home.how == How::OnDonor ? home.device : placement.compute;
    stage.seconds = block.seconds_on(stage.device);
    if (stage.seconds < 0) return false;
    if (home.how == How::Streamed) {
      for (std::size_t r = 0; r < rings_.size(); ++r) {
        if (placement.rings[r].device == home.device) stage.ring = static_cast<int>(r);
      }
      if (stage.ring < 0) return false;
      stage.seconds += block.unpack_s;
      Ring& ring = rings_[stage.ring];
      ring.blocks.push_back(static_cast<int>(i));
      ring.copy_s.push_back(clock_.latency_s(ring.route) +
                            static_cast<double>(block.bytes) / clock_.bytes_per_s(ring.route));
      ring.sizes.push_back(block.bytes);
    }
    if (stage.device != here) {
      stage.move_route = route(here, stage.device);
      stage.move_bytes = block.activation_bytes;
      if (stage.move_route < 0) return false;
      here = stage.device;
    }
    stages_.push_back(stage);
  }
  if (here != placement.compute) {  // the result goes back to where the sampler is
    Stage back{.block = static_cast<int>(model_.blocks.size()) - 1, .device = placement.compute};
    back.move_route = route(here, placement.compute);
    back.move_bytes = model_.blocks.back().activation_bytes;
    if (back.move_route < 0) return false;
    stages_.push_back(back);
  }
  for (Ring& ring : rings_) {
    pack_ring(ring.sizes, ring.capacity, ring.layout);
    effort_ += static_cast<std::int64_t>(ring.sizes.size());
  }
  return true;
}

// Copies run beside each other and beside moves; moves never run beside each other.
bool Timeline::uncontended() {
  std::vector<int> routes;
  for (const Ring& ring : rings_) routes.push_back(ring.route);
  std::size_t rings = routes.size();
  for (const Stage& stage : stages_) {
    if (stage.move_route >= 0 && std::find(routes.begin() + static_cast<std::ptrdiff_t>(rings),
                                           routes.end(), stage.move_route) == routes.end()) {
      routes.push_back(stage.move_route);
    }
  }
  auto known = alone_.find(routes);
  if (known != alone_.end()) return known->second;
  bool alone = true;
  std::vector<int> together(routes.begin(), routes.begin() + static_cast<std::ptrdiff_t>(rings));
  alone = clock_.disjoint(together);
  for (std::size_t i = rings; alone && i < routes.size(); ++i) {
    together.push_back(routes[i]);
    alone = clock_.disjoint(together);
    together.pop_back();
  }
  return alone_[routes] = alone;
}

// Where nobody shares a link the rules are a recurrence: no events are needed.
double Timeline::run_alone() {
  struct Cursor {
    double link_free = 0;
    std::size_t next = 0;   // entry of its layout
    std::size_t first = 0;  // of its entries in release_
  };
  std::vector<Cursor> cursors(rings_.size());
  std::size_t entries = 0;
  for (std::size_t r = 0; r < rings_.size(); ++r) {
    cursors[r].first = entries;
    entries += rings_[r].layout.after.size();
  }
  release_.assign(entries, 0);
  Settling steps;
  std::vector<double> links(rings_.size());
  double now = 0;
  do {
    effort_ += static_cast<std::int64_t>(stages_.size()) + 20;
    for (const Stage& stage : stages_) {
      if (stage.move_route >= 0) {
        now += clock_.latency_s(stage.move_route) +
               static_cast<double>(stage.move_bytes) / clock_.bytes_per_s(stage.move_route);
      }
      if (stage.ring < 0) {
        now += stage.seconds;
        continue;
      }
      const Ring& ring = rings_[stage.ring];
      Cursor& cursor = cursors[stage.ring];
      const auto around = ring.layout.after.size();
      const auto after = static_cast<std::size_t>(ring.layout.after[cursor.next]);
      const auto before = cursor.next >= after ? cursor.next - after : cursor.next + around - after;
      cursor.link_free = std::max(cursor.link_free, release_[cursor.first + before]) +
                         ring.copy_s[cursor.next % ring.blocks.size()];
      now = std::max(now, cursor.link_free) + stage.seconds;
      release_[cursor.first + cursor.next] = now;
      cursor.next = cursor.next + 1 == around ? 0 : cursor.next + 1;
    }
    for (std::size_t r = 0; r < links.size(); ++r) links[r] = cursors[r].link_free;
  } while (!steps.add(now, links));
  return steps.settled() ? steps.step_s() : std::max(steps.step_s(), bound_s());
}

void Timeline::start_copies(double now) {
  for (Ring& ring : rings_) {
    if (ring.transfer >= 0) continue;
    const auto started = static_cast<std::size_t>(ring.started);
    const auto after = ring.layout.after[started % ring.layout.after.size()];
    if (ring.released <= ring.started - after) continue;
    const auto block = ring.blocks[started % ring.blocks.size()];
    ring.transfer = clock_.start(ring.route, model_.blocks[block].bytes, now);
    ring.began_s = now;
    ++ring.started;
  }
}

// Begins what the stage can begin at this moment: the move of its activation, then, weights there,
// its compute.
void Timeline::begin_stage(Run& run) {
  if (run.compute_end != kNever || run.move >= 0) return;
  const Stage& stage = stages_[run.at];
  if (stage.move_route >= 0 && !run.moved) {
    run.move = clock_.start(stage.move_route, stage.move_bytes, run.now);
    run.move_began = run.now;
    return;
  }
  if (stage.ring >= 0 && rings_[stage.ring].copied <= rings_[stage.ring].released) return;
  run.record(stage.device, Interval::Kind::Wait, stage.block, run.step, run.asked, run.now);
  run.wait += run.now - run.asked;
  run.compute_end = run.now + stage.seconds;
}

void Timeline::end_transfer(Run& run, int transfer) {
  const int links = static_cast<int>(system_.devices.size());  // lanes: devices, rings, activations
  if (transfer == run.move) {
    run.record(links + static_cast<int>(rings_.size()), Interval::Kind::Activation,
               stages_[run.at].block, run.step, run.move_began, run.now);
    run.move = -1;
    run.moved = true;
    return;
  }
  for (std::size_t r = 0; r < rings_.size(); ++r) {
    Ring& ring = rings_[r];
    if (ring.transfer != transfer) continue;
    const auto count = static_cast<std::int64_t>(ring.blocks.size());
    run.record(links + static_cast<int>(r), Interval::Kind::Copy,
               ring.blocks[static_cast<std::size_t>(ring.copied % count)],
               static_cast<int>(ring.copied / count), ring.began_s, run.now);
    ring.transfer = -1;
    ++ring.copied;
  }
}

// True where that was the last step that is needed.
bool Timeline::end_stage(Run& run) {
  const Stage& stage = stages_[run.at];
  run.record(stage.device, Interval::Kind::Compute, stage.block, run.step, run.now - stage.seconds,
             run.now);
  if (stage.ring >= 0) ++rings_[stage.ring].released;
  run.compute_end = kNever;
  run.moved = false;
  run.asked = run.now;
  if (++run.at < stages_.size()) return false;
  run.at = 0;
  ++run.step;
  run.last_wait_s = run.wait;
  run.wait = 0;
  std::vector<double> links;
  for (const Ring& ring : rings_) links.push_back(ring.began_s);
  return run.steps.add(run.now, std::move(links)) && run.step >= run.recorded;
}

// The general case: links that share, and whoever wants the bars. Returns the seconds of a steady
// step.
double Timeline::run_events(Run& run) {
  constexpr std::int64_t kEventEffort = 30;
  clock_.reset();
  std::vector<LinkClock::Completion> done;
  for (bool over = false; !over;) {
    effort_ += kEventEffort;
    start_copies(run.now);
    begin_stage(run);
    if (run.compute_end > run.now) {
      run.now = std::min(run.compute_end, clock_.next_event_s());
      clock_.advance(run.now);
    }
    clock_.take_completed(done);
    for (const auto& completion : done) end_transfer(run, completion.transfer);
    if (run.compute_end <= run.now) over = end_stage(run);
  }
  return run.steps.settled() ? run.steps.step_s() : std::max(run.steps.step_s(), bound_s());
}

double Timeline::step_s(const Placement& placement) {
  if (!prepare(placement)) return kNever;
  if (stages_.empty()) return 0;
  if (uncontended()) return run_alone();
  Run run;
  return run_events(run);
}

double Timeline::bound_s() const {
  double chain = 0, copies = 0;
  std::vector<LinkClock::Load> loads;
  for (const Stage& stage : stages_) {
    chain += stage.seconds;
    if (stage.move_route >= 0) {
      chain += clock_.latency_s(stage.move_route) +
               static_cast<double>(stage.move_bytes) / clock_.bytes_per_s(stage.move_route);
    }
  }
  for (const Ring& ring : rings_) {
    double bytes = 0, busy = 0;
    for (std::size_t n = 0; n < ring.blocks.size(); ++n) {
      bytes += static_cast<double>(model_.blocks[ring.blocks[n]].bytes);
      busy += ring.copy_s[n];
    }
    loads.push_back({ring.route, bytes});
    copies = std::max(copies, busy);
  }
  return std::max({chain, copies, clock_.least_seconds(loads)});
}

// Lanes in the order of Interval::lane; the activation lane only where something moves.
void Timeline::fill_lanes(Report& report) {
  for (const Device& device : system_.devices) report.lanes.push_back({device.name});
  for (const Ring& ring : rings_) {
    Lane lane;
    for (std::size_t n = 0; n < ring.blocks.size(); ++n) {
      lane.bytes += model_.blocks[ring.blocks[n]].bytes;
      lane.busy_s += ring.copy_s[n];
    }
    report.streamed_bytes += lane.bytes;
    report.lanes.push_back(lane);
  }
  bool moves = false;
  Lane activations{"activations"};
  for (const Stage& stage : stages_) {
    report.compute_s += stage.seconds;
    report.lanes[stage.device].busy_s += stage.seconds;
    if (stage.move_route < 0) continue;
    moves = true;
    double seconds = clock_.latency_s(stage.move_route) +
                     static_cast<double>(stage.move_bytes) / clock_.bytes_per_s(stage.move_route);
    activations.busy_s += seconds;
    activations.bytes += stage.move_bytes;
  }
  if (moves) report.lanes.push_back(activations);
  report.bound_s = bound_s();
}

Report Timeline::report(const Placement& placement, int recorded) {
  Report report;
  if (!prepare(placement)) {
    report.step_s = report.first_s = kNever;
    return report;
  }
  if (stages_.empty()) return report;
  Run run;
  run.recorded = recorded;
  report.step_s = run_events(run);
  report.first_s = run.steps.first_s();
  report.wait_s = run.last_wait_s;
  report.intervals = std::move(run.intervals);
  fill_lanes(report);
  for (std::size_t r = 0; r < rings_.size(); ++r) {
    report.lanes[system_.devices.size() + r].name =
        system_.devices[placement.rings[r].device].name + " -> " +
        system_.devices[placement.compute].name;
  }
  return report;
}

}  // namespace distorch::placement
