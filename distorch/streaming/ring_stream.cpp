#include "distorch/base/align.h"
#include "distorch/base/error.h"
#include "distorch/device/channels_last.h"
#include "distorch/streaming/ring_kinds.h"
#include "distorch/streaming/trace.h"

namespace distorch::streaming {

namespace {

/// Large enough that starting a copy costs nothing beside it, small enough not to matter in a
/// budget of RAM.
constexpr std::int64_t largest_staging_bytes = std::int64_t{32} << 20;

std::vector<std::int64_t> aligned_sizes(const std::vector<RingBlock>& blocks) {
  constexpr std::int64_t alignment = 256;  // what device allocators give
  std::vector<std::int64_t> sizes;
  for (const auto& block : blocks) sizes.push_back(align_up(block.layout->slot_bytes, alignment));
  return sizes;
}

}  // namespace

StreamRing::StreamRing(std::vector<RingBlock> blocks, const RingOptions& options)
    : Ring(blocks, aligned_sizes(blocks), options),
      copy_stream_(device::new_stream(options.compute)),
      layout_stream_(device::new_stream(options.compute)),
      copied_(options.compute),
      laid_out_(options.compute),
      filled_(blocks.size()),
      copies_(options.compute),
      layouts_(options.compute),
      released_(options.compute),
      seams_(options.seams) {
  std::sort(seams_.begin(), seams_.end());
  allocate(at::TensorOptions().device(options.compute));
  // The memory may have belonged to an earlier operation of the compute stream.
  device::Event allocated(options.compute);
  allocated.record(device::current_stream(options.compute));
  allocated.block(copy_stream_);
  device::record_stream(buffer(), copy_stream_);
  device::record_stream(buffer(), layout_stream_);
  std::int64_t largest = 0;  // of those that come from the file
  for (const auto& block : blocks)
    if (!block.donor.defined()) largest = std::max(largest, block.layout->slot_bytes);
  if (options.registered || largest == 0) return;
  stages_ = true;
  for (int i = 0; i < 2; ++i) {
    staging_.emplace_back(std::min(largest, largest_staging_bytes),
                          std::vector<c10::Device>{options.compute});
    staged_.emplace_back(options.compute);
  }
  worker_ = std::make_unique<Worker>();
}

StreamRing::~StreamRing() {
  worker_.reset();
  try {
    device::synchronize(copy_stream_);
    device::synchronize(layout_stream_);
  } catch (const std::exception&) {
    // A device that vanished has nothing left to wait for.
  }
}

namespace {

/// The part of a stretch that lands within [begin, end) of the slot.
Stretch within(const Stretch& stretch, std::int64_t begin, std::int64_t end) {
  auto part = stretch;
  part.slot_offset = std::max(stretch.slot_offset, begin);
  part.size_bytes = std::max<std::int64_t>(
      0, std::min(stretch.slot_offset + stretch.size_bytes, end) - part.slot_offset);
  part.file_offset += part.slot_offset - stretch.slot_offset;
  return part;
}

}  // namespace

/// A copy must not cross from one registered piece into the next.
void StreamRing::copy_mapped(const at::Tensor& to, const Layout& layout, const Piece& piece) {
  for (const auto& whole : layout.stretches) {
    const auto stretch = within(whole, piece.begin, piece.end);
    if (stretch.size_bytes == 0) continue;
    const auto* from = stretch.file->mapping()->bytes(stretch.range()).data();
    for (std::int64_t done = 0; done < stretch.size_bytes;) {
      auto seam = std::upper_bound(seams_.begin(), seams_.end(), from + done);
      auto size = stretch.size_bytes - done;
      if (seam != seams_.end()) size = std::min<std::int64_t>(size, *seam - (from + done));
      auto source = at::from_blob(const_cast<std::byte*>(from + done), {size},
                                  at::TensorOptions().dtype(at::kByte));
      device::copy_async(to.narrow(0, stretch.slot_offset + done, size), source, copy_stream_);
      done += size;
    }
  }
}

/// Everything that is copied to the place has been issued; convolutions are laid out in it.
void StreamRing::filled(int index, const at::Tensor& place, const RingBlock& block) {
  if (block.channels_last.empty()) {
    filled_[index] = {&copies_, copies_.raise(copy_stream_)};
    return;
  }
  copied_.record(copy_stream_);
  copied_.block(layout_stream_);
  for (int item : block.channels_last)
    device::to_channels_last_in_place(view_item(place, block.layout->items[item]), layout_stream_);
  filled_[index] = {&layouts_, layouts_.raise(layout_stream_)};
}

void StreamRing::copy_staged(const at::Tensor& to, const Layout& layout, const Piece& piece) {
  auto staging_bytes = staging_[0].bytes();
  for (const auto& whole : layout.stretches) {
    const auto stretch = within(whole, piece.begin, piece.end);
    for (std::int64_t done = 0; done < stretch.size_bytes; done += staging_bytes) {
      auto size = std::min(staging_bytes, stretch.size_bytes - done);
      auto buffer = next_staging_++ % staging_.size();
      staged_[buffer].synchronize();
      device::host_will_write(staging_[buffer].data(), size);
      read_stretch({stretch.file, stretch.file_offset + done, 0, size}, staging_[buffer].data(),
                   options().keep_cached);
      device::copy_async(to.narrow(0, stretch.slot_offset + done, size),
                         staging_[buffer].tensor().narrow(0, 0, size), copy_stream_);
      staged_[buffer].record(copy_stream_);
    }
  }
}

/// Everything of one block, each piece as soon as nobody uses its place any more.
void StreamRing::copy(const Place& place, const at::Tensor& to, const RingBlock& block) {
  if (place.after_given_up) {
    // Nobody has waited for what was given up to be laid out.
    laid_out_.record(layout_stream_);
    laid_out_.block(copy_stream_);
  }
  if (!block.donor.defined() && !stages_)
    for (const auto& stretch : block.layout->stretches) stretch.file->mapping()->check();
  for (const auto& piece : place.pieces) {
    // Counts come round. What has been waited for is what was issued: a fill may fail before it.
    if (piece.release && static_cast<std::int32_t>(*piece.release - waited_) > 0) {
      released_.wait(*piece.release, copy_stream_);
      waited_ = *piece.release;
    }
    Traced traced(options().lane, "block " + std::to_string(block.id), copy_stream_);
    if (block.donor.defined()) {
      const auto size = std::min(piece.end, block.donor.numel()) - piece.begin;
      if (size > 0)
        device::copy_async(to.narrow(0, piece.begin, size),
                           block.donor.narrow(0, piece.begin, size), copy_stream_);
    } else if (stages_) {
      copy_staged(to, *block.layout, piece);
    } else {
      copy_mapped(to, *block.layout, piece);
    }
  }
  filled(place.index, to, block);
}

std::shared_future<void> StreamRing::fill(const Place& place, const RingBlock& block) {
  auto to = buffer().narrow(0, place.offset, block.layout->slot_bytes);
  if (block.donor.defined() || !stages_) {
    copy(place, to, block);
    return {};
  }
  return worker_->add([this, place, to, &block] { copy(place, to, block); });
}

void StreamRing::let_use(int index) {
  const auto& [counter, count] = filled_[index];
  if (counter) counter->wait(count, device::current_stream(options().compute));
}

void StreamRing::come_to_rest() noexcept {
  if (worker_) worker_->drop();
  try {
    device::synchronize(options().compute);
  } catch (const std::exception&) {
    // Who uses the device next is told what is wrong with it.
  }
}

std::uint32_t StreamRing::mark_free(int) {
  return released_.raise(device::current_stream(options().compute));
}

}  // namespace distorch::streaming
