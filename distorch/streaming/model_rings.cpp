#include "distorch/streaming/model_rings.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "distorch/base/align.h"
#include "distorch/base/log.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/streams.h"

namespace distorch::streaming {

using placement::How;

namespace {

/// Page ranges that lie this near are registered as one: a call costs more than the pages between.
constexpr std::int64_t near_bytes = std::int64_t{1} << 20;

using PageRanges = std::map<std::shared_ptr<const formats::TensorFile>,
                            std::vector<std::pair<std::int64_t, std::int64_t>>>;

/// The pages of files that blocks lie in which come so from RAM.
PageRanges pages_of(const Residence& residence, How how) {
  PageRanges by_file;
  const auto& homes = residence.homes();
  for (std::size_t block = 0; block < homes.size(); ++block)
    if (homes[block].how == how && homes[block].device == "cpu")
      for (const auto& stretch : residence.streamed(static_cast<int>(block)).stretches)
        // Registration works in whole pages.
        by_file[stretch.file].emplace_back(
            align_down(stretch.file_offset, kPageBytes),
            align_up(stretch.file_offset + stretch.size_bytes, kPageBytes));
  for (auto& [file, list] : by_file) {
    std::sort(list.begin(), list.end());
    std::vector<std::pair<std::int64_t, std::int64_t>> merged;
    for (const auto& [begin, end] : list) {
      if (merged.empty() || begin > merged.back().second + near_bytes)
        merged.emplace_back(begin, end);
      else
        merged.back().second = std::max(merged.back().second, end);
    }
    list = std::move(merged);
  }
  return by_file;
}

using Registered = std::vector<std::shared_ptr<const device::RegisteredRange>>;

/// Registers pages of files; false where not all of them could be.
bool register_pages(const PageRanges& pages, at::Device compute, Registered& registered) {
  for (const auto& [file, list] : pages) {
    auto bytes = file->mapping()->bytes();
    for (const auto& [begin, end] : list) {
      // The last page of the file counts as a whole one.
      auto pieces = device::register_shared(bytes.data() + begin, end - begin, {compute});
      if (pieces.empty()) return false;
      registered.insert(registered.end(), pieces.begin(), pieces.end());
    }
  }
  return true;
}

}  // namespace

ModelRings::ModelRings(const Contents& contents, const Residence& residence, Options options)
    : contents_(contents),
      residence_(residence),
      options_(std::move(options)),
      compute_(device::to_torch(options_.compute)),
      values_(contents.block_count()) {}

/// Registers what the rings read from RAM, no more: registering costs time by the page.
void ModelRings::register_streamed() {
  if (!device::has_streams(compute_)) return;
  auto before = std::exchange(registered_, {});  // kept until what is still needed is taken over
  all_registered_ = register_pages(pages_of(residence_, How::Streamed), compute_, registered_);
}

double ModelRings::slots_of(const std::string& donor) const {
  auto slots = slots_.find(donor);
  return slots == slots_.end() ? options_.slots : slots->second;
}

double ModelRings::most_slots() const {
  double most = 0;
  for (const auto& home : residence_.homes())
    if (home.how == How::Streamed) most = std::max(most, slots_of(home.device));
  return most > 0 ? most : slots_of("cpu");
}

bool ModelRings::limit_slots(double most) {
  bool fewer = false;
  for (const auto& home : residence_.homes()) {
    if (home.how != How::Streamed || slots_of(home.device) <= most) continue;
    slots_[home.device] = most;
    fewer = true;
  }
  return fewer;
}

void ModelRings::make() { make(true); }

bool ModelRings::make_all() {
  try {
    make(false);
    return true;
  } catch (const std::exception& error) {
    if (!device::is_out_of_memory(error)) throw;
    return false;
  }
}

void ModelRings::make(bool fewer_do) {
  drop();
  knows_aside_ = false;
  register_streamed();
  std::set<std::string> donors;
  for (const auto& home : residence_.homes())
    if (home.how == How::Streamed) donors.insert(home.device);
  try {
    for (const auto& donor : donors)
      rings_[donor] = make_from(How::Streamed, donor, slots_of(donor), fewer_do);
  } catch (...) {
    drop();
    throw;
  }
}

std::vector<RingBlock> ModelRings::blocks_where(How how, const std::string& device) const {
  const auto& homes = residence_.homes();
  std::vector<RingBlock> blocks;
  for (int block = 0; block < static_cast<int>(homes.size()); ++block)
    if (homes[block].how == how && homes[block].device == device)
      blocks.push_back({block, &residence_.streamed(block), residence_.donor(block),
                        residence_.streamed_images(block)});
  return blocks;
}

std::unique_ptr<Ring> ModelRings::make_from(How how, const std::string& donor, double slots,
                                            bool fewer_do) {
  const auto blocks = blocks_where(how, donor);
  const bool aside = how == How::Aside;
  RingOptions ring;
  ring.compute = compute_;
  ring.lane = donor + " -> " + options_.compute;
  ring.slots = std::min<double>(slots, static_cast<double>(blocks.size()));
  ring.registered = (aside ? all_aside_registered_ : all_registered_) && donor != "disk";
  for (const auto& piece : aside ? aside_registered_ : registered_)
    ring.seams.push_back(static_cast<const std::byte*>(piece->start()));
  ring.keep_cached = donor != "disk";
  return make_that_fits(blocks, ring, fewer_do);
}

Ring& ModelRings::of(int block) {
  const auto& home = residence_.homes()[block];
  if (home.how != How::Aside) return *rings_.at(home.device);
  if (!aside_) make_aside(home.device);
  return *aside_;
}

/// One comes while the one before it is at work, where that takes memory from nobody.
void ModelRings::make_aside(const std::string& donor) {
  if (!knows_aside_ && device::has_streams(compute_)) {
    auto before = std::exchange(aside_registered_, {});  // as above
    all_aside_registered_ =
        register_pages(pages_of(residence_, How::Aside), compute_, aside_registered_);
  }
  knows_aside_ = true;
  constexpr double planned = 1.125, at_ease = 2;  // slots
  std::int64_t largest = 0;
  for (const auto& block : blocks_where(How::Aside, donor))
    largest = std::max(largest, block.layout->slot_bytes);
  const auto use = device::memory_use(compute_);
  const auto room =
      static_cast<double>(use.free + std::max<std::int64_t>(0, use.reserved - use.in_use));
  const bool ease = room > 2 * at_ease * static_cast<double>(largest);
  aside_ = make_from(How::Aside, donor, ease ? at_ease : planned, true);
}

void ModelRings::drop_aside() {
  aside_.reset();
  const auto& homes = residence_.homes();
  for (std::size_t block = 0; block < homes.size(); ++block)
    if (homes[block].how == How::Aside) values_[block].clear();
}

/// An allocator's memory has holes that no plan knows of: one slot is slower, not an error.
std::unique_ptr<Ring> ModelRings::make_that_fits(const std::vector<RingBlock>& blocks,
                                                 RingOptions ring, bool fewer_do) {
  for (;;) {
    try {
      return make_ring(blocks, ring);
    } catch (const std::exception& error) {
      if (!device::is_out_of_memory(error) || (fewer_do && ring.slots <= 1)) throw;
    }
    device::empty_cache(compute_);
    try {
      return make_ring(blocks, ring);
    } catch (const std::exception& error) {
      if (!device::is_out_of_memory(error) || !fewer_do) throw;
    }
    log::info("{}: only one slot fits for {}", options_.name, ring.lane);
    ring.slots = 1;
  }
}

/// The values hold a ring's memory too.
void ModelRings::drop() {
  drop_aside();
  rings_.clear();
  forget_values();
}

void ModelRings::clear() {
  drop();
  slots_.clear();
  registered_.clear();
  aside_registered_.clear();
  all_registered_ = all_aside_registered_ = knows_aside_ = false;
}

BlockValues ModelRings::values_in(int block, std::vector<at::Tensor> streamed) const {
  const auto tensors = residence_.with_resting(block, std::move(streamed));
  auto own = contents_.weights_of(block).items.size();
  return contents_.with_loras(block, contents_.values(block, tensors), tensors.data() + own);
}

const BlockValues& ModelRings::values_at(int block, const Lease& lease) {
  const auto& layout = residence_.streamed(block);
  if (const auto& places = lease.places(); !places.empty())
    return passing_ = values_in(block, view_items(places, layout));
  auto bytes = lease.bytes();
  auto& values = values_[block][bytes.const_data_ptr()];
  if (values.empty())
    values = values_in(block, laid_out_items(bytes, layout, residence_.streamed_images(block)));
  return values;
}

void ModelRings::forget_values() {
  for (auto& by_address : values_) by_address.clear();
  passing_.clear();
}

std::string ModelRings::positions() const {
  std::string text;
  for (const auto& [donor, ring] : rings_) {
    auto at = ring->position();
    text += fmt::format("ring {} {} {}:", at.last_pinned, at.last_filled, at.round);
    for (const auto& [index, offset] : at.fresh) text += fmt::format(" {}@{}", index, offset);
    for (int successor : at.successors) text += fmt::format(" {}", successor);
  }
  return text;
}

std::int64_t ModelRings::held_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& [donor, ring] : rings_) bytes += ring->capacity_bytes();
  return bytes + (aside_ ? aside_->capacity_bytes() : 0);
}

std::int64_t ModelRings::copied_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& [donor, ring] : rings_) bytes += ring->copied_bytes();
  return bytes + (aside_ ? aside_->copied_bytes() : 0);
}

}  // namespace distorch::streaming
