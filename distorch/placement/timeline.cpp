#include "distorch/placement/timeline.h"

#include <algorithm>

namespace distorch::placement {
namespace {

constexpr double kNever = LinkClock::kNever;
constexpr std::int64_t kEventEffort = 30;  // of Timeline, for one event

}  // namespace

Timeline::Timeline(const System& system, const Model& model)
    : system_(system),
      model_(model),
      clock_(system.links, system.roots),
      chain_(system, model, clock_) {}

Timeline::~Timeline() = default;

bool Timeline::prepare(const Placement& placement) {
  if (!chain_.prepare(placement)) return false;
  for (const ChainRing& ring : chain_.rings())
    effort_ += static_cast<std::int64_t>(ring.sizes.size());
  return true;
}

// Copies run beside each other and beside moves; moves never run beside each other.
bool Timeline::uncontended() {
  std::vector<int> routes;
  for (const ChainRing& ring : chain_.rings()) routes.push_back(ring.route);
  std::size_t rings = routes.size();
  for (const Stage& stage : chain_.stages()) {
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
  std::vector<Cursor> cursors(chain_.rings().size());
  std::size_t entries = 0;
  for (std::size_t r = 0; r < chain_.rings().size(); ++r) {
    cursors[r].first = entries;
    entries += chain_.rings()[r].layout.after.size();
  }
  release_.assign(entries, 0);
  Settling steps;
  std::vector<double> links(chain_.rings().size());
  double now = 0;
  do {
    effort_ += static_cast<std::int64_t>(chain_.stages().size()) + 20;
    for (const Stage& stage : chain_.stages()) {
      if (stage.move_route >= 0) {
        now += clock_.latency_s(stage.move_route) +
               static_cast<double>(stage.move_bytes) / clock_.bytes_per_s(stage.move_route);
      }
      if (stage.ring < 0) {
        now += stage.seconds;
        continue;
      }
      const ChainRing& ring = chain_.rings()[stage.ring];
      Cursor& cursor = cursors[stage.ring];
      const auto around = ring.layout.after.size();
      const auto released = [&](const RingPiece& piece) {
        const auto after = static_cast<std::size_t>(piece.after);
        const auto before =
            cursor.next >= after ? cursor.next - after : cursor.next + around - after;
        return release_[cursor.first + before];
      };
      const auto* piece = ring.layout.pieces.data() + ring.layout.first_piece[cursor.next];
      const auto* last = ring.layout.pieces.data() + ring.layout.first_piece[cursor.next + 1];
      while (piece < last) {
        const double start = std::max(cursor.link_free, released(*piece));
        std::int64_t bytes = 0;
        // What is free at this moment goes in one copy.
        do bytes += piece++->bytes;
        while (piece < last && released(*piece) <= start);
        cursor.link_free = start + clock_.latency_s(ring.route) +
                           static_cast<double>(bytes) / clock_.bytes_per_s(ring.route);
      }
      now = std::max(now, cursor.link_free) + stage.seconds;
      release_[cursor.first + cursor.next] = now;
      cursor.next = cursor.next + 1 == around ? 0 : cursor.next + 1;
    }
    for (std::size_t r = 0; r < links.size(); ++r) links[r] = cursors[r].link_free;
  } while (!steps.add(now, links));
  return steps.settled() ? steps.step_s() : std::max(steps.step_s(), chain_.bound_s());
}

// The general case: links that share, and whoever wants the bars. Returns the seconds of a steady
// step.
double Timeline::run_events(ChainRun& run) {
  clock_.reset();
  std::vector<LinkClock::Completion> done;
  for (bool over = false; !over;) {
    effort_ += kEventEffort;
    chain_.begin(run);
    if (run.compute_end > run.now) {
      run.now = std::min(run.compute_end, clock_.next_event_s());
      clock_.advance(run.now);
    }
    clock_.take_completed(done);
    for (const auto& completion : done) chain_.end_transfer(run, completion.transfer);
    if (run.compute_end <= run.now) over = chain_.end_stage(run);
  }
  return run.steps.settled() ? run.steps.step_s() : std::max(run.steps.step_s(), chain_.bound_s());
}

double Timeline::step_s(const Placement& placement) {
  if (!prepare(placement)) return kNever;
  if (chain_.stages().empty()) return 0;
  if (uncontended()) return run_alone();
  ChainRun run;
  return run_events(run);
}

// Lanes in the order of Interval::lane; the activation lane only where something moves.
void Timeline::fill_lanes(Report& report) {
  for (const Device& device : system_.devices) report.lanes.push_back({device.name});
  for (const ChainRing& ring : chain_.rings()) {
    Lane lane;
    for (std::size_t n = 0; n < ring.blocks.size(); ++n) {
      lane.bytes += ring.sizes[n];
      lane.busy_s += ring.copy_s[n];
    }
    report.streamed_bytes += lane.bytes;
    report.lanes.push_back(lane);
  }
  bool moves = false;
  Lane activations{"activations"};
  for (const Stage& stage : chain_.stages()) {
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
  report.bound_s = chain_.bound_s();
}

Report Timeline::report(const Placement& placement, int recorded) {
  Report report;
  if (!prepare(placement)) {
    report.step_s = report.first_s = kNever;
    return report;
  }
  if (chain_.stages().empty()) return report;
  ChainRun run;
  run.recorded = recorded;
  report.step_s = run_events(run);
  report.first_s = run.steps.first_s();
  report.wait_s = run.last_wait_s;
  report.intervals = std::move(run.intervals);
  fill_lanes(report);
  for (std::size_t r = 0; r < chain_.rings().size(); ++r) {
    report.lanes[system_.devices.size() + r].name =
        system_.devices[placement.rings[r].device].name + " -> " +
        system_.devices[placement.compute].name;
  }
  return report;
}

std::vector<double> steps_together(const System& system, const std::vector<Replica>& replicas) {
  LinkClock clock(system.links, system.roots);
  std::vector<Chain> chains;
  std::vector<double> steps(replicas.size(), kNever);
  for (const Replica& replica : replicas) {
    chains.emplace_back(system, *replica.model, clock);
    if (!chains.back().prepare(*replica.placement)) return steps;
    if (chains.back().stages().empty()) return std::vector<double>(replicas.size(), 0);
  }
  std::vector<ChainRun> runs(replicas.size());
  std::vector<bool> known(replicas.size(), false);
  std::vector<LinkClock::Completion> done;
  double now = 0;
  // Whoever is known goes on, so that the others have its traffic beside theirs to the end.
  for (std::size_t left = replicas.size(); left > 0;) {
    double next = kNever;
    bool due = false;
    for (std::size_t i = 0; i < chains.size(); ++i) {
      runs[i].now = now;
      chains[i].begin(runs[i]);
      next = std::min(next, runs[i].compute_end);
      due = due || runs[i].compute_end <= now;
    }
    if (!due) {
      now = std::min(next, clock.next_event_s());
      clock.advance(now);
    }
    clock.take_completed(done);
    for (std::size_t i = 0; i < chains.size(); ++i) {
      runs[i].now = now;
      for (const auto& completion : done) chains[i].end_transfer(runs[i], completion.transfer);
      if (runs[i].compute_end > now || !chains[i].end_stage(runs[i]) || known[i]) continue;
      known[i] = true;
      steps[i] = runs[i].steps.step_s();
      --left;
    }
  }
  return steps;
}

}  // namespace distorch::placement
