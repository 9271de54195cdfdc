#include "distorch/streaming/ring.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/streaming/ring_kinds.h"

namespace distorch::streaming {

Lease::~Lease() {
  if (ring_) ring_->release(slot_);
}

Lease& Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    if (ring_) ring_->release(slot_);
    ring_ = std::exchange(other.ring_, nullptr);
    slot_ = other.slot_;
  }
  return *this;
}

const at::Tensor& Lease::bytes() const { return ring_->bytes(slot_); }

const std::vector<const std::byte*>& Lease::places() const { return ring_->places(slot_); }

Ring::Ring(std::vector<RingBlock> blocks, const RingOptions& options)
    : options_(options), states_(static_cast<std::size_t>(std::max(1, options.slots))) {
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    successor_[blocks[i].id] = blocks[(i + 1) % blocks.size()].id;
    slot_bytes_ = std::max(slot_bytes_, blocks[i].layout->slot_bytes);
  }
  for (auto& block : blocks) blocks_[block.id] = std::move(block);
}

void Ring::allocate_slots(const at::TensorOptions& options) {
  for (std::size_t i = 0; i < states_.size(); ++i)
    bytes_.push_back(at::empty({slot_bytes_}, options.dtype(at::kByte)));
}

bool Ring::has_donors() const {
  return std::any_of(blocks_.begin(), blocks_.end(),
                     [](const auto& entry) { return entry.second.donor.defined(); });
}

int Ring::successor(int block) const { return successor_.at(block); }

/// A slot nobody uses; with `may_drop_fresh` also one that was filled for a block that did not
/// come.
int Ring::free_slot(bool may_drop_fresh) const {
  for (int i = 0; i < slots(); ++i) {
    int slot = (next_slot_ + i) % slots();
    const auto& state = states_[slot];
    if (!state.leased && (may_drop_fresh || !state.fresh)) return slot;
  }
  return -1;
}

void Ring::start_fill(int slot, int block) {
  const auto& source = blocks_.at(block);
  states_[slot] = {block, false, true};
  next_slot_ = (slot + 1) % slots();
  copied_bytes_ += source.layout->link_bytes;
  fill(slot, source);
}

Lease Ring::pin(int block) {
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  int slot = -1;
  for (int i = 0; i < slots(); ++i)
    if (states_[i].block == block && states_[i].fresh) slot = i;
  if (slot < 0) {
    slot = free_slot(false);
    if (slot < 0) slot = free_slot(true);
    if (slot < 0)
      throw Error(
          ErrorKind::Internal, "ring",
          fmt::format("block {} was asked for while all {} slots are in use", block, slots()));
    start_fill(slot, block);
    unforeseen_bytes_ += blocks_.at(block).layout->link_bytes;
  }
  wait_filled(slot);
  states_[slot].leased = true;
  states_[slot].fresh = false;
  if (last_pinned_ >= 0 && last_pinned_ != block) successor_[last_pinned_] = block;
  last_pinned_ = block;
  prefetch();
  return Lease(this, slot);
}

void Ring::release(int slot) noexcept {
  states_[slot].leased = false;
  try {
    mark_free(slot);
    prefetch();
  } catch (...) {
    failure_ = std::current_exception();
  }
}

void Ring::prefetch() {
  int next = last_pinned_;
  for (int ahead = 0; ahead < slots(); ++ahead) {
    next = successor(next);
    bool present = false;
    for (const auto& state : states_)
      present = present || (state.block == next && (state.fresh || state.leased));
    if (present) continue;
    int slot = free_slot(false);
    if (slot < 0) return;
    start_fill(slot, next);
  }
}

std::unique_ptr<Ring> make_ring(std::vector<RingBlock> blocks, const RingOptions& options) {
  if (device::has_streams(options.compute))
    return std::make_unique<StreamRing>(std::move(blocks), options);
  return std::make_unique<ThreadRing>(std::move(blocks), options);
}

}  // namespace distorch::streaming
