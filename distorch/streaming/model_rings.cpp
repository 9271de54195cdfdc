#include "distorch/streaming/model_rings.h"

#include <fmt/format.h>

#include <algorithm>
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

/// The pages of files that blocks which stream from RAM lie in.
PageRanges streamed_pages(const Residence& residence) {
  PageRanges by_file;
  const auto& homes = residence.homes();
  for (std::size_t block = 0; block < homes.size(); ++block)
    if (homes[block].how == How::Streamed && homes[block].device == "cpu")
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
  all_registered_ = true;
  for (const auto& [file, list] : streamed_pages(residence_)) {
    auto bytes = file->mapping()->bytes();
    for (const auto& [begin, end] : list) {
      // The last page of the file counts as a whole one.
      auto pieces = device::register_shared(bytes.data() + begin, end - begin, {compute_});
      if (pieces.empty()) {
        all_registered_ = false;
        return;
      }
      registered_.insert(registered_.end(), pieces.begin(), pieces.end());
    }
  }
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
  register_streamed();
  const auto& homes = residence_.homes();
  std::map<std::string, std::vector<RingBlock>> by_donor;
  for (int block = 0; block < static_cast<int>(homes.size()); ++block)
    if (homes[block].how == How::Streamed)
      by_donor[homes[block].device].push_back({block, &residence_.streamed(block),
                                               residence_.donor(block),
                                               residence_.streamed_images(block)});
  try {
    for (auto& [donor, blocks] : by_donor) {
      RingOptions ring;
      ring.compute = compute_;
      ring.lane = donor + " -> " + options_.compute;
      ring.slots = std::min<double>(slots_of(donor), static_cast<double>(blocks.size()));
      ring.registered = all_registered_ && donor != "disk";
      for (const auto& piece : registered_)
        ring.seams.push_back(static_cast<const std::byte*>(piece->start()));
      ring.keep_cached = donor != "disk";
      rings_[donor] = make_that_fits(blocks, ring, fewer_do);
    }
  } catch (...) {
    drop();
    throw;
  }
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
  rings_.clear();
  forget_values();
}

void ModelRings::clear() {
  drop();
  slots_.clear();
  registered_.clear();
  all_registered_ = false;
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
  return bytes;
}

std::int64_t ModelRings::copied_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& [donor, ring] : rings_) bytes += ring->copied_bytes();
  return bytes;
}

}  // namespace distorch::streaming
