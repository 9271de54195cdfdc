#include "distorch/placement/timeline_chain.h"

#include <algorithm>
#include <cmath>

namespace distorch::placement {
namespace {

constexpr double kNever = LinkClock::kNever;
// the first fills the rings, two more show whether the step has settled
constexpr int kFewestSteps = 3;
constexpr int kMostSteps = 32;
constexpr double kSettled = 1e-9;  // relative change of a step's length
constexpr int kUnknown = -2;

}  // namespace

bool Settling::add(double end_s, std::vector<double> links) {
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

double Settling::step_s() const {
  const auto n = ends_.size();
  const auto from = settled_ ? n - 2 : n / 2;
  return (ends_[n - 1] - ends_[from]) / static_cast<double>(n - 1 - from);
}

Chain::Chain(const System& system, const Model& model, LinkClock& clock)
    : system_(system),
      model_(model),
      clock_(clock),
      routes_(system.devices.size() * system.devices.size(), kUnknown) {}

int Chain::route(int from, int to) {
  int& known = routes_[static_cast<std::size_t>(from) * system_.devices.size() +
                       static_cast<std::size_t>(to)];
  if (known == kUnknown) known = clock_.route(system_.devices[from].name, system_.devices[to].name);
  return known;
}

void Chain::add_back_copy(BackCopies& copies, int route, std::int64_t bytes) const {
  if (route < 0) return;
  copies.copied_s = std::max(copies.copied_s, copies.ran_s) + clock_.latency_s(route) +
                    static_cast<double>(bytes) / clock_.bytes_per_s(route);
}

std::int64_t Chain::left_of(const BackCopies& copies, int from, int to) {
  if (from == to || copies.copied_s <= copies.ran_s) return 0;
  const int back = route(from, to);
  return back < 0 ? 0
                  : static_cast<std::int64_t>((copies.copied_s - copies.ran_s) *
                                              clock_.bytes_per_s(back));
}

/// What goes with the activation to the device of a block that runs elsewhere than the one before.
/// What the first block does not take, as one that makes only what modulates the next, that one does.
std::int64_t Chain::taken_bytes(const Placement& placement, std::size_t block) const {
  const auto next = block + 1;
  auto bytes = model_.blocks[block].activation_bytes;
  if (placement.blocks[block].how == How::OnDonor && next < model_.blocks.size() &&
      placement.blocks[next].how == How::OnDonor &&
      placement.blocks[next].device == placement.blocks[block].device)
    bytes = std::max(bytes, model_.blocks[next].activation_bytes);
  return bytes;
}

bool Chain::prepare(const Placement& placement) {
  stages_.clear();
  rings_.resize(placement.rings.size());
  for (std::size_t r = 0; r < rings_.size(); ++r) {
    ChainRing& ring = rings_[r];
    ring = ChainRing{.route = route(placement.rings[r].device, placement.compute),
                     .capacity = placement.rings[r].room_bytes(),
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
  BackCopies back_copies;
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
      const auto streamed = streamed_bytes(block, home);
      const double share =
          block.bytes > 0 ? static_cast<double>(streamed) / static_cast<double>(block.bytes) : 1;
      stage.seconds += block.restart_s + (block.unpack_s - block.restart_s) * share;
      ChainRing& ring = rings_[stage.ring];
      ring.blocks.push_back(static_cast<int>(i));
      ring.copy_s.push_back(clock_.latency_s(ring.route) +
                            static_cast<double>(streamed) / clock_.bytes_per_s(ring.route));
      ring.sizes.push_back(streamed);
    }
    if (stage.device != here) {
      stage.move_route = route(here, stage.device);
      stage.move_bytes = taken_bytes(placement, i) + left_of(back_copies, here, placement.compute);
      if (stage.move_route < 0) return false;
      here = stage.device;
      back_copies = {};
    } else if (here != placement.compute) {
      add_back_copy(back_copies, route(here, placement.compute), block.activation_bytes);
    }
    back_copies.ran_s += stage.seconds;
    stages_.push_back(stage);
  }
  if (here != placement.compute) {  // the result goes back to where the sampler is
    Stage back{.block = static_cast<int>(model_.blocks.size()) - 1, .device = placement.compute};
    back.move_route = route(here, placement.compute);
    back.move_bytes =
        model_.blocks.back().activation_bytes + left_of(back_copies, here, placement.compute);
    if (back.move_route < 0) return false;
    stages_.push_back(back);
  }
  // A host that computes brings a block at once, and one that is late starts its copy late.
  const bool in_pieces = system_.devices[placement.compute].name != "cpu" && !model_.late_host;
  for (ChainRing& ring : rings_) {
    pack_ring(ring.sizes, ring.capacity, ring.layout);
    if (!in_pieces) join_pieces(ring.sizes, ring.layout);
  }
  return true;
}

double Chain::bound_s() const {
  double chain = 0, copies = 0;
  std::vector<LinkClock::Load> loads;
  for (const Stage& stage : stages_) {
    chain += stage.seconds;
    if (stage.move_route >= 0) {
      chain += clock_.latency_s(stage.move_route) +
               static_cast<double>(stage.move_bytes) / clock_.bytes_per_s(stage.move_route);
    }
  }
  for (const ChainRing& ring : rings_) {
    double bytes = 0, busy = 0;
    for (std::size_t n = 0; n < ring.blocks.size(); ++n) {
      bytes += static_cast<double>(ring.sizes[n]);
      busy += ring.copy_s[n];
    }
    loads.push_back({ring.route, bytes});
    copies = std::max(copies, busy);
  }
  return std::max({chain, copies, clock_.least_seconds(loads)});
}

void Chain::start_copies(double now) {
  for (ChainRing& ring : rings_) {
    if (ring.transfer >= 0) continue;
    const auto entry = static_cast<std::size_t>(ring.started) % ring.layout.after.size();
    const auto first = ring.layout.first_piece[entry];
    const auto count = ring.layout.first_piece[entry + 1] - first;
    std::int64_t bytes = 0;
    const auto before = ring.piece;
    // What is free at this moment goes in one copy.
    for (; ring.piece < count; ++ring.piece) {
      const auto& piece = ring.layout.pieces[first + ring.piece];
      if (ring.released <= ring.started - piece.after) break;
      bytes += piece.bytes;
    }
    if (ring.piece == before) continue;
    ring.transfer = clock_.start(ring.route, bytes, now);
    ring.began_s = now;
    if (ring.piece < count) continue;
    ring.piece = 0;
    ++ring.started;
  }
}

// First the move of the activation, then, weights there, the compute.
void Chain::begin(ChainRun& run) {
  start_copies(run.now);
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

void Chain::end_transfer(ChainRun& run, int transfer) {
  const int links = static_cast<int>(system_.devices.size());  // lanes: devices, rings, activations
  if (transfer == run.move) {
    run.record(links + static_cast<int>(rings_.size()), Interval::Kind::Activation,
               stages_[run.at].block, run.step, run.move_began, run.now);
    run.move = -1;
    run.moved = true;
    return;
  }
  for (std::size_t r = 0; r < rings_.size(); ++r) {
    ChainRing& ring = rings_[r];
    if (ring.transfer != transfer) continue;
    const auto count = static_cast<std::int64_t>(ring.blocks.size());
    run.record(links + static_cast<int>(r), Interval::Kind::Copy,
               ring.blocks[static_cast<std::size_t>(ring.copied % count)],
               static_cast<int>(ring.copied / count), ring.began_s, run.now);
    ring.transfer = -1;
    if (ring.started > ring.copied) ++ring.copied;  // else there is more of the block to come
  }
}

bool Chain::end_stage(ChainRun& run) {
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
  for (const ChainRing& ring : rings_) links.push_back(ring.began_s);
  return run.steps.add(run.now, std::move(links)) && run.step >= run.recorded;
}

}  // namespace distorch::placement
