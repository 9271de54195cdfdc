#include "distorch/placement/parts.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "distorch/placement/spread.h"

namespace distorch::placement {
namespace {

using Bytes = std::int64_t;

constexpr Bytes kSmall = 64;      // parts below 1 / kSmall of their block stay if they can
constexpr int kRounds = 12;       // of meeting the budget
constexpr int kReach = 4;         // exchanges look this far
constexpr int kExactTries = 600;  // clock runs of exchanges in one exact plan
constexpr double kBetter = 1e-9;  // relative
constexpr double kSame = 1e-4;    // steps this near are equal where one takes less memory
constexpr double kPays = 1.003;   // what takes more must make the step by so much shorter
// Most of a block that streams, as shares of what the even spread asks for: smaller slots leave
// more room for weights.
constexpr double kCaps[] = {0.85, 0.7, 0.6, 0.5, 0.4};

/// A part of the model: which one of which block.
struct Part {
  Bytes bytes = 0;
  std::size_t block = 0, part = 0;
  std::uint64_t bit() const { return std::uint64_t{1} << part; }
};

bool larger(const Part& a, const Part& b) { return a.bytes > b.bytes; }

/// The parts of a block that come nearest to `wanted` without going beyond `most`, as bits.
std::uint64_t choose(const Block& block, Bytes wanted, Bytes most, Bytes& chosen) {
  chosen = 0;
  std::vector<Part> parts;
  for (std::size_t p = 0; p < block.parts.size(); ++p)
    if (block.parts[p] >= block.bytes / kSmall) parts.push_back({block.parts[p], 0, p});
  std::stable_sort(parts.begin(), parts.end(), larger);
  std::uint64_t bits = 0;
  const Part* last = nullptr;  // the one that would end nearest to it
  for (const Part& part : parts) {
    if (chosen + part.bytes > std::min(wanted, most)) continue;
    bits |= part.bit();
    chosen += part.bytes;
  }
  for (const Part& part : parts) {
    const Bytes with = chosen + part.bytes;
    if (bits & part.bit() || with > most || with - wanted >= wanted - chosen) continue;
    if (!last || part.bytes < last->bytes) last = &part;
  }
  if (last) {
    bits |= last->bit();
    chosen += last->bytes;
  }
  return bits;
}

/// Where parts of the homes stream or could, in blocks that are free to move.
std::vector<Part> parts_where(const Model& model, const std::vector<bool>& pinned,
                              const std::vector<Home>& homes, bool streaming, int donor) {
  std::vector<Part> parts;
  for (std::size_t i = 0; i < homes.size(); ++i) {
    const Home& home = homes[i];
    const Block& block = model.blocks[i];
    if (pinned[i] || home.how == How::OnDonor) continue;
    if (home.how == How::Streamed && donor >= 0 && home.device != donor) continue;
    const std::uint64_t rests = home.how == How::Resident ? all_parts(block) : home.rests;
    for (std::size_t p = 0; p < block.parts.size(); ++p)
      if ((rests >> p & 1) == (streaming ? 0U : 1U)) parts.push_back({block.parts[p], i, p});
  }
  std::stable_sort(parts.begin(), parts.end(), larger);
  return parts;
}

void rest(const System& system, const Block& block, std::uint64_t bit, Home& home) {
  home.rests |= bit;
  if (home.rests == all_parts(block)) home = {system.compute, How::Resident};
}

void stream(const Block& block, std::uint64_t bit, int donor, Home& home) {
  if (home.how == How::Resident) home = {donor, How::Streamed, all_parts(block)};
  home.rests &= ~bit;
}

Bytes over(const System& system, const Placement& placement, Bytes resident_limit) {
  return std::max(placement.peak_bytes() - system.devices[system.compute].budget_bytes,
                  placement.bytes[system.compute] - resident_limit);
}

Bytes most_streamed(const Placement& placement) {
  Bytes most = 0;
  for (const RingSize& ring : placement.rings) most = std::max(most, ring.slot_bytes);
  return most;
}

double slots_of(const Placement& placement) {
  double slots = 1;
  for (const RingSize& ring : placement.rings) slots = std::max(slots, ring.slots);
  return slots;
}

}  // namespace

bool has_parts(const Model& model) {
  return std::any_of(model.blocks.begin(), model.blocks.end(),
                     [](const Block& block) { return block.parts.size() > 1; });
}

std::vector<Home> spread_parts(const System& system, const Model& model,
                               const std::vector<Bytes>& quotas, const PartPattern& pattern) {
  const auto pinned = pinned_blocks(model);
  std::vector<double> weight = durations(system, model);
  for (std::size_t i = 0; i < weight.size(); ++i)
    if (pattern.by_bytes) weight[i] = static_cast<double>(model.blocks[i].bytes);
  const double total = std::max(1e-300, std::accumulate(weight.begin(), weight.end(), 0.0));
  std::vector<Home> homes(model.blocks.size(), Home{system.compute, How::Resident});
  std::vector<Bytes> got(system.devices.size(), 0);
  double passed = 0;
  int turn = 0;
  for (std::size_t i = 0; i < homes.size(); ++i) {
    passed += weight[i];
    if (pinned[i] || ++turn % pattern.stride != 0) continue;
    int behind = -1;
    Bytes wanted = 0;
    for (int d = 0; d < static_cast<int>(system.devices.size()); ++d) {
      if (d == system.compute || quotas[d] <= 0) continue;
      const auto lag =
          static_cast<Bytes>(static_cast<double>(quotas[d]) * (passed / total)) - got[d];
      if (lag <= wanted) continue;
      behind = d;
      wanted = lag;
    }
    if (behind < 0) continue;
    const Block& block = model.blocks[i];
    Bytes chosen = 0;
    if (block.parts.size() > 1) {
      const auto bits = choose(block, wanted, pattern.most, chosen);
      if (bits) homes[i] = {behind, How::Streamed, all_parts(block) & ~bits};
    } else if (block.bytes <= pattern.most && 2 * wanted >= block.bytes) {
      chosen = block.bytes;
      homes[i] = {behind, How::Streamed};
    }
    got[behind] += chosen;
  }
  return homes;
}

void settle_parts(const System& system, const Model& model, const std::vector<Bytes>& quotas,
                  std::vector<Home>& homes) {
  const auto pinned = pinned_blocks(model);
  for (int d = 0; d < static_cast<int>(system.devices.size()); ++d) {
    if (d == system.compute || quotas[d] == 0) continue;
    const auto got = make_placement(system, model, homes).bytes;
    Bytes excess = got[d] - quotas[d];
    const bool rests = excess > 0;
    excess = std::abs(excess);
    for (const Part& part : parts_where(model, pinned, homes, rests, d)) {
      if (part.bytes > excess || part.bytes == 0) continue;
      Home& home = homes[part.block];
      if (rests)
        rest(system, model.blocks[part.block], part.bit(), home);
      else
        stream(model.blocks[part.block], part.bit(), d, home);
      excess -= part.bytes;
    }
  }
}

Placement filled_up(const System& system, const Model& model, Placement placement,
                    Bytes resident_limit) {
  const auto pinned = pinned_blocks(model);
  for (int round = 0; round < kRounds; ++round) {
    Bytes room = -over(system, placement, resident_limit);
    auto homes = placement.blocks;
    bool changed = false;
    for (const Part& part : parts_where(model, pinned, homes, true, -1)) {
      if (part.bytes > room || homes[part.block].how != How::Streamed) continue;
      rest(system, model.blocks[part.block], part.bit(), homes[part.block]);
      room -= part.bytes;
      changed = true;
    }
    if (!changed) break;
    placement = make_placement(system, model, std::move(homes), slots_of(placement));
  }
  return placement;
}

void part_plans(const System& system, const Model& model, Bytes resident_limit, double slots,
                const ShareOut& share_out, const Consider& consider, std::int64_t& effort) {
  const Bytes room = system.devices[system.compute].budget_bytes - model.activation_bytes;
  const Bytes least = std::max<Bytes>(1, model.bytes() - std::min(room, resident_limit));
  std::int64_t parts = 0;
  for (const Block& block : model.blocks)
    parts += static_cast<std::int64_t>(block.parts.size()) + 1;
  const auto fitting = [&](const PartPattern& pattern) -> std::optional<Placement> {
    Bytes streamed = least;
    for (int round = 0; round < kRounds; ++round) {
      const auto quotas = share_out(streamed);
      if (!quotas) return std::nullopt;
      effort += 8 * parts;
      auto placement =
          make_placement(system, model, spread_parts(system, model, *quotas, pattern), slots);
      const Bytes too_much = over(system, placement, resident_limit);
      if (too_much <= 0) return filled_up(system, model, std::move(placement), resident_limit);
      streamed += too_much;
    }
    return std::nullopt;
  };
  for (int stride : {1, 2, 3}) {
    for (bool by_bytes : {false, true}) {
      PartPattern pattern{stride, by_bytes};
      auto even = fitting(pattern);
      if (!even) continue;
      const auto most = static_cast<double>(most_streamed(*even));
      consider(std::move(*even));
      for (double cap : kCaps) {
        pattern.most = static_cast<Bytes>(cap * most);
        auto flat = fitting(pattern);
        if (!flat) break;
        consider(std::move(*flat));
      }
    }
  }
}

namespace {

/// Exchanges that make the step shorter.
class Exchange {
 public:
  Exchange(const System& system, const Model& model, Bytes resident_limit, bool exact, int tries,
           Timeline& clock, Placement& placement)
      : system_(system),
        model_(model),
        limit_(resident_limit),
        exact_(exact),
        tries_(tries),
        clock_(clock),
        best_(placement),
        step_(clock.step_s(placement)),
        good_(clock.report(placement, 0).bound_s * (1 + 1e-4)),
        pinned_(pinned_blocks(model)) {}

  double run() {
    for (bool better = true; better && wanted();) {
      better = false;
      for (std::size_t i = 0; i < model_.blocks.size() && wanted(); ++i) better |= from(i);
    }
    return step_;
  }

 private:
  bool wanted() const { return tries_ > 0 && step_ > good_; }

  /// A part of block `i` rests, one of a block near it streams instead.
  bool from(std::size_t i) {
    bool better = false;
    const auto n = model_.blocks.size();
    for (std::size_t p = 0; p < model_.blocks[i].parts.size(); ++p) {
      for (std::size_t j = i >= kReach ? i - kReach : 0; j < std::min(n, i + kReach + 1); ++j) {
        if (j == i || pinned_[j]) continue;
        for (std::size_t q = 0; q < model_.blocks[j].parts.size() && wanted(); ++q)
          better |= exchange(i, p, j, q);
      }
    }
    return better;
  }

  bool exchange(std::size_t i, std::size_t p, std::size_t j, std::size_t q) {
    const Home &from = best_.blocks[i], &to = best_.blocks[j];
    const Bytes now = model_.blocks[i].parts[p], then = model_.blocks[j].parts[q];
    if (from.how != How::Streamed || from.rests >> p & 1 || to.how == How::OnDonor) return false;
    if (to.how == How::Streamed && (to.device != from.device || !(to.rests >> q & 1))) return false;
    if (exact_ ? now != then : then > now + now / 8 || now > then + then / 8) return false;
    auto homes = best_.blocks;
    stream(model_.blocks[j], std::uint64_t{1} << q, from.device, homes[j]);
    rest(system_, model_.blocks[i], std::uint64_t{1} << p, homes[i]);
    auto next = make_placement(system_, model_, std::move(homes), slots_of(best_));
    if (over(system_, next, limit_) > 0) return false;
    --tries_;
    const double seconds = clock_.step_s(next);
    if (!(seconds < step_ * (1 - kBetter))) return false;
    step_ = seconds;
    best_ = std::move(next);
    return true;
  }

  const System& system_;
  const Model& model_;
  Bytes limit_;
  bool exact_;
  int tries_;
  Timeline& clock_;
  Placement& best_;
  double step_, good_;
  std::vector<bool> pinned_;
};

}  // namespace

double improve_parts(const System& system, const Model& model, Bytes resident_limit, bool exact,
                     int tries, Timeline& clock, Placement& placement) {
  return Exchange(system, model, resident_limit, exact, tries, clock, placement).run();
}

std::optional<Placement> exact_parts(const System& system, const Model& model,
                                     const std::vector<Bytes>& quotas,
                                     const std::optional<Placement>& start) {
  Timeline clock(system, model);
  std::optional<Placement> best;
  double step = 0;
  const Bytes no_limit = std::numeric_limits<Bytes>::max();
  const auto miss = [&](const Placement& placement) {
    Bytes most = 0;
    for (std::size_t d = 0; d < quotas.size(); ++d)
      most = std::max(most, std::abs(placement.bytes[d] - quotas[d]));
    return most;
  };
  // Several donors cannot always be met by parts of blocks that each stream from one.
  const Bytes allowed = start ? miss(*start) : no_limit;
  const auto consider = [&](std::vector<Home> homes, double slots) {
    settle_parts(system, model, quotas, homes);
    auto placement = make_placement(system, model, std::move(homes), slots);
    if (over(system, placement, no_limit) > 0 || miss(placement) > allowed) return;
    const double seconds = clock.step_s(placement);
    // More memory has to pay, less is taken where it costs nothing.
    const bool more = best && placement.ring_bytes() > best->ring_bytes();
    if (best && seconds * (more ? kPays : 1 - kSame) >= step) return;
    step = seconds;
    best = std::move(placement);
  };
  if (start) consider(start->blocks, slots_of(*start));
  const auto spread = [&](double slots) {
    for (int stride : {1, 2, 3})
      for (bool by_bytes : {false, true})
        consider(spread_parts(system, model, quotas, {stride, by_bytes}), slots);
  };
  for (double slots : {2., 3., 4., 6.}) spread(slots);
  const auto has_one_slot = [&] { return !best || slots_of(*best) <= 1; };
  for (double slots : kSlimRings)
    if (has_one_slot()) spread(slots);
  if (!best) spread(1);
  if (best) improve_parts(system, model, no_limit, true, kExactTries, clock, *best);
  if (!best && start) best = filled_up(system, model, *start, quotas[system.compute]);
  return best;
}

}  // namespace distorch::placement
