#include "distorch/streaming/ring.h"

#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/placement/placement.h"
#include "distorch/streaming/link_traffic.h"
#include "distorch/streaming/ring_kinds.h"
#include "distorch/streaming/trace.h"

namespace distorch::streaming {

Lease::~Lease() {
  if (ring_) ring_->release(block_);
}

Lease& Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    if (ring_) ring_->release(block_);
    ring_ = std::exchange(other.ring_, nullptr);
    block_ = other.block_;
  }
  return *this;
}

at::Tensor Lease::bytes() const {
  const auto& state = ring_->blocks_[block_];
  return ring_->buffer_.defined()
             ? ring_->buffer_.narrow(0, state.offset, state.block.layout->slot_bytes)
             : at::Tensor();
}

const std::vector<const std::byte*>& Lease::places() const { return ring_->places(block_); }

std::int64_t Lease::offset() const { return ring_->blocks_[block_].offset; }

Ring::Ring(std::vector<RingBlock> blocks, const std::vector<std::int64_t>& sizes,
           const RingOptions& options)
    : blocks_(blocks.size()), options_(options) {
  const auto n = static_cast<int>(blocks.size());
  std::int64_t largest = 0;
  for (int i = 0; i < n; ++i) {
    index_[blocks[i].id] = i;
    blocks_[i].block = std::move(blocks[i]);
    blocks_[i].size_bytes = sizes[i];
    blocks_[i].successor = (i + 1) % n;
    largest = std::max(largest, sizes[i]);
  }
  const auto slots = std::clamp<double>(options.slots, 1, std::max(1, n));
  capacity_bytes_ = placement::RingSize{0, slots, largest}.room_bytes();
  placement::pack_ring(sizes, capacity_bytes_, layout_);
}

void Ring::allocate(const at::TensorOptions& options) {
  buffer_ = at::empty({capacity_bytes_}, options.dtype(at::kByte));
}

bool Ring::has_donors() const {
  return std::any_of(blocks_.begin(), blocks_.end(),
                     [](const State& state) { return state.block.donor.defined(); });
}

/// Its place in this round; in the next one where the order has come round since the last fill.
std::int64_t Ring::next_offset(int index) const {
  auto round = (round_ + (index <= last_filled_ ? 1 : 0)) % layout_.rounds;
  return layout_.offsets[static_cast<std::size_t>(round) * blocks_.size() + index];
}

/// Whether nobody needs what lies at the block's next place. With `drop_fresh` a block that was
/// filled and did not come is given up.
bool Ring::may_fill(int index, bool drop_fresh) {
  auto begin = next_offset(index), end = begin + blocks_[index].size_bytes;
  for (auto& state : blocks_) {
    const bool apart = state.offset >= end || state.offset + state.size_bytes <= begin;
    if ((!state.leased && !state.fresh) || apart) continue;
    if (state.leased || !drop_fresh) return false;
    state.fresh = false;
    given_up_ = true;
  }
  return true;
}

Ring::Position Ring::position() const {
  Position position{{}, last_pinned_, last_filled_, round_, {}};
  for (int i = 0; i < static_cast<int>(blocks_.size()); ++i) {
    if (blocks_[i].fresh) position.fresh.emplace_back(i, blocks_[i].offset);
    position.successors.push_back(blocks_[i].successor);
  }
  return position;
}

/// Of a block that goes to `begin`: what the block just before it does not have, and the rest.
std::vector<Ring::Piece> Ring::pieces_of(int index, std::int64_t begin) {
  const auto size = blocks_[index].size_bytes;
  struct Taken {
    std::int64_t begin, end;
    const Use* use;
  };
  std::vector<Taken> taken;
  for (const auto& state : blocks_)
    for (const auto* use : {&state.latest, &state.before}) {
      const auto from = std::max<std::int64_t>(0, use->offset - begin);
      const auto to = std::min(size, use->offset + state.size_bytes - begin);
      if (use->when > 0 && from < to) taken.push_back({from, to, use});
    }
  if (taken.empty()) return {{0, size, {}}};
  const auto later = [](const Taken& a, const Taken& b) { return a.use->when < b.use->when; };
  std::sort(taken.begin(), taken.end(), later);
  const auto last = taken.back();
  const bool just_before = last_pinned_ >= 0 && blocks_[last_pinned_].successor == index &&
                           last.use == &blocks_[last_pinned_].latest;
  if (!just_before) return {{0, size, last.use->release}};
  std::vector<Piece> pieces;
  std::optional<std::uint32_t> release;
  if (taken.size() > 1) release = taken[taken.size() - 2].use->release;
  if (last.begin > 0) pieces.push_back({0, last.begin, release});
  if (last.end < size) pieces.push_back({last.end, size, release});
  pieces.push_back({last.begin, last.end, last.use->release});
  return pieces;
}

void Ring::start_fill(int index) {
  auto& state = blocks_[index];
  Place place{index, next_offset(index), {}, std::exchange(given_up_, false)};
  place.pieces = pieces_of(index, place.offset);
  round_ = (round_ + (index <= last_filled_ ? 1 : 0)) % layout_.rounds;
  last_filled_ = index;
  state.offset = place.offset;
  state.leased = false;
  state.fill = fill(place, state.block);
  state.fresh = true;
  copied_bytes_ += state.block.layout->link_bytes;
  count_link_bytes(options_.lane, state.block.layout->link_bytes);
}

/// The host waits for the block's fill and throws what went wrong.
void Ring::wait_for(const State& state) const {
  if (!state.fill.valid()) return;
  Traced traced(options_.lane + ", waiting", "wait", c10::Stream(c10::Stream::DEFAULT, at::kCPU));
  state.fill.get();
}

/// Whether the block has been filled ahead. Where that failed the ring is empty afterwards.
bool Ring::came(const State& state) {
  if (!state.fresh) return false;
  try {
    wait_for(state);
    return true;
  } catch (const std::exception& error) {
    recover(error);
    return false;
  }
}

Lease Ring::pin(int block) {
  const auto index = index_.at(block);
  auto& state = blocks_[index];
  try {
    bool ready = came(state);
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
    if (!ready) {
      if (!may_fill(index, true))
        throw Error(ErrorKind::Internal, "ring",
                    fmt::format("block {} was asked for while its place is in use", block));
      start_fill(index);
      wait_for(state);
      unforeseen_bytes_ += state.block.layout->link_bytes;
    }
    let_use(index);
  } catch (...) {
    empty();
    throw;
  }
  state.leased = true;
  state.fresh = false;
  state.fill = {};
  Lease lease(this, index);
  if (last_pinned_ >= 0 && last_pinned_ != index) blocks_[last_pinned_].successor = index;
  last_pinned_ = index;
  prefetch();
  return lease;
}

void Ring::release(int index) noexcept {
  auto& state = blocks_[index];
  state.leased = false;
  try {
    const Use use{state.offset, ++releases_, mark_free(index)};
    if (state.latest.offset != use.offset) state.before = state.latest;
    state.latest = use;
  } catch (const std::exception& error) {
    // Nothing tells a later copy when the place is free, so the host waits for it now.
    recover(error);
  }
  prefetch();
}

void Ring::prefetch() noexcept {
  if (last_pinned_ < 0) return;
  int next = last_pinned_;
  try {
    for (std::size_t ahead = 0; ahead < blocks_.size(); ++ahead) {
      next = blocks_[next].successor;
      if (blocks_[next].fresh || blocks_[next].leased) continue;
      if (!may_fill(next, false)) return;
      start_fill(next);
    }
  } catch (const std::exception& error) {
    recover(error);
  }
}

/// Something went wrong that nobody has asked for yet: whoever needs a block fetches it again. What
/// is a mistake of ours is told all the same, by the next pin().
void Ring::recover(const std::exception& error) noexcept {
  log::debug("{}: fetching ahead went wrong: {}", options_.lane, error.what());
  const auto* ours = dynamic_cast<const Error*>(&error);
  if (ours && ours->kind() == ErrorKind::Internal) failure_ = std::current_exception();
  empty();
}

/// Nothing lies in the ring any more but what is leased, and nobody uses the rest: it stands where
/// a new one does.
void Ring::empty() noexcept {
  come_to_rest();
  for (auto& state : blocks_) {
    state.fresh = false;
    state.fill = {};
    state.latest = state.before = {};
  }
  last_pinned_ = last_filled_ = -1;
  round_ = 0;
  given_up_ = false;
}

std::unique_ptr<Ring> make_ring(std::vector<RingBlock> blocks, const RingOptions& options) {
  if (device::has_streams(options.compute))
    return std::make_unique<StreamRing>(std::move(blocks), options);
  return std::make_unique<ThreadRing>(std::move(blocks), options);
}

}  // namespace distorch::streaming
