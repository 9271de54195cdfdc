#include "distorch/streaming/shift.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <tuple>

namespace distorch::streaming {

using placement::How;

namespace {

std::uint64_t all_of(const std::vector<std::int64_t>& parts) {
  return parts.empty() ? 0 : ~std::uint64_t{0} >> (64 - parts.size());
}

}  // namespace

Shift::Shift(const Contents& contents, const Residence& residence, const ModelRings& rings)
    : contents_(contents), residence_(residence), rings_(rings), homes_(residence.homes()) {
  for (std::size_t i = 0; i < homes_.size(); ++i) {
    const auto& layout = residence.streamed(static_cast<int>(i));
    streamed_.push_back(homes_[i].how == How::Streamed ? layout.slot_bytes : 0);
  }
}

bool Shift::free(std::int64_t bytes) {
  bool any = false;
  for (const auto wanted = held() - bytes; held() > wanted; any = true)
    if (!stream_one()) break;
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
    bytes += std::min(rings_.slots_of(donor), ring.blocks) * ring.most;
  return bytes;
}

/// One part more streams: of the block that then streams the least, so that slots stay small;
/// what is tiny goes last.
bool Shift::stream_one() {
  struct Choice {
    bool tiny = true;
    std::int64_t streamed = 0;
    std::size_t block = 0, part = 0;
  };
  std::optional<Choice> best;
  for (std::size_t i = 0; i < homes_.size(); ++i) {
    const auto& parts = contents_.parts(static_cast<int>(i));
    if (homes_[i].how == How::OnDonor) continue;
    for (std::size_t p = 0; p < parts.size(); ++p) {
      if (homes_[i].how == How::Streamed && !(homes_[i].rests >> p & 1)) continue;
      const bool tiny = parts[p] * 64 < contents_.weights_of(static_cast<int>(i)).slot_bytes;
      Choice choice{tiny, streamed_[i] + parts[p], i, p};
      if (!best || std::tie(choice.tiny, choice.streamed) < std::tie(best->tiny, best->streamed))
        best = choice;
    }
  }
  if (!best) return false;
  auto& home = homes_[best->block];
  const auto& parts = contents_.parts(static_cast<int>(best->block));
  if (home.how == How::Resident) home = {How::Streamed, "cpu", all_of(parts)};
  home.rests &= ~(std::uint64_t{1} << best->part);
  if (residence_.compute() == "cpu") home.rests = 0;  // a file's blocks rest there whole
  streamed_[best->block] = best->streamed;
  return true;
}

/// One part more rests: of the block that streams most of those where one fits, the largest that
/// does.
bool Shift::rest_one(std::int64_t most) {
  const auto now = held();
  int chosen = -1;
  std::size_t chosen_part = 0;
  for (std::size_t i = 0; i < homes_.size(); ++i) {
    const auto& parts = contents_.parts(static_cast<int>(i));
    if (homes_[i].how != How::Streamed || (chosen >= 0 && streamed_[i] <= streamed_[chosen]))
      continue;
    std::optional<std::size_t> largest;
    for (std::size_t p = 0; p < parts.size(); ++p)
      if (!(homes_[i].rests >> p & 1) && now + parts[p] <= most &&
          (!largest || parts[p] > parts[*largest]))
        largest = p;
    if (!largest) continue;
    chosen = static_cast<int>(i);
    chosen_part = *largest;
  }
  if (chosen < 0) return false;
  auto& home = homes_[chosen];
  const auto& parts = contents_.parts(chosen);
  home.rests |= std::uint64_t{1} << chosen_part;
  streamed_[chosen] = std::max<std::int64_t>(0, streamed_[chosen] - parts[chosen_part]);
  if (home.rests == all_of(parts)) {
    home = {How::Resident, residence_.compute()};
    streamed_[chosen] = 0;
  }
  return true;
}

}  // namespace distorch::streaming
