#include "distorch/streaming/shift.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <utility>

namespace distorch::streaming {

using placement::How;

namespace {

/// A choice looks at every block; more of them would be noticed.
constexpr int most_priced = 24;

std::uint64_t all_of(const std::vector<std::int64_t>& parts) {
  return parts.empty() ? 0 : ~std::uint64_t{0} >> (64 - parts.size());
}

}  // namespace

Shift::Shift(const Contents& contents, const Residence& residence, const ModelRings& rings,
             StepPrice price)
    : contents_(contents),
      residence_(residence),
      rings_(rings),
      price_(std::move(price)),
      priced_left_(price_ ? most_priced : 0),
      homes_(residence.homes()) {
  for (std::size_t i = 0; i < homes_.size(); ++i) {
    const auto& layout = residence.streamed(static_cast<int>(i));
    streamed_.push_back(homes_[i].how == How::Streamed ? layout.slot_bytes : 0);
  }
}

bool Shift::free(std::int64_t bytes) {
  bool any = false;
  for (const auto wanted = held() - bytes; held() > wanted; any = true)
    if (!stream_one(held() - wanted)) break;
  return any;
}

bool Shift::take(std::int64_t bytes) {
  bool any = false;
  for (const auto most = held() + bytes; rest_one(most); any = true) {
  }
  return any;
}

/// With the ring that will be needed.
std::int64_t Shift::held() const {
  std::int64_t bytes = 0;
  struct Ring {
    std::int64_t most = 0;
    int blocks = 0;
  };
  std::map<std::string, Ring> rings;
  for (std::size_t i = 0; i < homes_.size(); ++i) {
    if (homes_[i].how == How::OnDonor) continue;
    bytes += residence_.resident_bytes(static_cast<int>(i), homes_[i]);
    if (streamed_[i] == 0) continue;
    auto& ring = rings[homes_[i].device];
    ring.most = std::max(ring.most, streamed_[i]);
    ++ring.blocks;
  }
  for (const auto& [donor, ring] : rings)
    bytes +=
        placement::RingSize{0, std::min<double>(rings_.slots_of(donor), ring.blocks), ring.most}
            .bytes();
  return bytes;
}

/// The part of a block to stream next: the smallest, by price of those that are as large as what is
/// missing, else the largest; what is tiny only where nothing else rests.
std::optional<Shift::Choice> Shift::that_streams(std::size_t block, std::int64_t missing,
                                                 bool by_price) const {
  const auto& home = homes_[block];
  const auto& parts = contents_.parts(static_cast<int>(block));
  if (home.how == How::OnDonor || home.how == How::Aside) return std::nullopt;
  const auto rank = [&](std::size_t part) {
    const bool tiny = parts[part] * 64 < contents_.weights_of(static_cast<int>(block)).slot_bytes;
    const bool enough = !by_price || parts[part] >= missing;
    return std::tuple(tiny, !enough, enough ? parts[part] : -parts[part]);
  };
  std::optional<std::size_t> best;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    if (home.how == How::Streamed && !(home.rests >> p & 1)) continue;
    if (!best || rank(p) < rank(*best)) best = p;
  }
  if (!best) return std::nullopt;
  return Choice{block, *best, std::get<0>(rank(*best)), streamed_[block] + parts[*best]};
}

/// The part of a block to rest next: the largest that there is room for.
std::optional<Shift::Choice> Shift::that_rests(std::size_t block, std::int64_t room) const {
  const auto& parts = contents_.parts(static_cast<int>(block));
  if (homes_[block].how != How::Streamed) return std::nullopt;
  std::optional<std::size_t> largest;
  for (std::size_t p = 0; p < parts.size(); ++p)
    if (!(homes_[block].rests >> p & 1) && parts[p] <= room &&
        (!largest || parts[p] > parts[*largest]))
      largest = p;
  if (!largest) return std::nullopt;
  return Choice{block, *largest, false,
                std::max<std::int64_t>(0, streamed_[block] - parts[*largest])};
}

void Shift::stream(const Choice& choice) {
  auto& home = homes_[choice.block];
  if (home.how == How::Resident)
    home = {How::Streamed, "cpu", all_of(contents_.parts(static_cast<int>(choice.block)))};
  home.rests &= ~(std::uint64_t{1} << choice.part);
  if (residence_.compute() == "cpu") home.rests = 0;  // a file's blocks rest there whole
  streamed_[choice.block] = choice.streamed;
}

void Shift::rest(const Choice& choice) {
  auto& home = homes_[choice.block];
  home.rests |= std::uint64_t{1} << choice.part;
  streamed_[choice.block] = choice.streamed;
  if (home.rests != all_of(contents_.parts(static_cast<int>(choice.block)))) return;
  home = {How::Resident, residence_.compute()};
  streamed_[choice.block] = 0;
}

Shift::Effect Shift::effect_of(const Choice& choice, void (Shift::*change)(const Choice&)) {
  const auto home = homes_[choice.block];
  const auto streamed = streamed_[choice.block], before = held();
  (this->*change)(choice);
  const Effect effect{price_(homes_) - now_s_, held() - before};
  homes_[choice.block] = home;
  streamed_[choice.block] = streamed;
  return effect;
}

/// Whether the next choice is made by the clock.
bool Shift::prices() {
  if (priced_left_ <= 0) return false;
  --priced_left_;
  now_s_ = price_(homes_);
  return std::isfinite(now_s_);
}

/// One part more streams: what is tiny goes last, what costs the least time for its bytes first, else
/// that of the block that then streams the least, so that slots stay small.
bool Shift::stream_one(std::int64_t missing) {
  const bool by_price = prices();
  using Rank = std::tuple<bool, double, std::int64_t>;
  std::optional<std::pair<Rank, Choice>> best;
  for (std::size_t i = 0; i < homes_.size(); ++i) {
    const auto choice = that_streams(i, missing, by_price);
    if (!choice) continue;
    double cost = 0;
    if (by_price) {
      const auto effect = effect_of(*choice, &Shift::stream);
      cost = effect.held < 0 ? effect.step_s / static_cast<double>(-effect.held)
                             : std::numeric_limits<double>::infinity();
    }
    const Rank rank{choice->tiny, cost, choice->streamed};
    if (!best || rank < best->first) best.emplace(rank, *choice);
  }
  if (best) stream(best->second);
  return best.has_value();
}

/// One part more rests: what gains the most time for its bytes, else of the block that streams most.
bool Shift::rest_one(std::int64_t most) {
  const bool by_price = prices();
  const auto room = most - held();
  using Rank = std::tuple<double, std::int64_t>;
  std::optional<std::pair<Rank, Choice>> best;
  for (std::size_t i = 0; i < homes_.size(); ++i) {
    const auto choice = that_rests(i, room);
    if (!choice) continue;
    double change = 0;
    if (by_price) {
      const auto effect = effect_of(*choice, &Shift::rest);
      change = effect.step_s / static_cast<double>(std::max<std::int64_t>(1, effect.held));
    }
    const Rank rank{change, -streamed_[i]};
    if (!best || rank < best->first) best.emplace(rank, *choice);
  }
  if (best) rest(best->second);
  return best.has_value();
}

}  // namespace distorch::streaming
