#include "distorch/base/error.h"
#include "distorch/device/sim/sim.h"
#include "distorch/streaming/ring_kinds.h"
#include "distorch/streaming/trace.h"

namespace distorch::streaming {

namespace {

/// Large enough that starting a copy costs nothing beside it, small enough not to matter in a
/// budget of RAM.
constexpr std::int64_t largest_staging_bytes = std::int64_t{32} << 20;

at::Tensor file_bytes(const Run& run, std::int64_t offset, std::int64_t size) {
  auto bytes = run.file->mapping()->bytes(
      {static_cast<std::size_t>(run.file_offset + offset), static_cast<std::size_t>(size)});
  return at::from_blob(const_cast<std::byte*>(bytes.data()), {size},
                       at::TensorOptions().dtype(at::kByte));
}

}  // namespace

namespace {

std::vector<std::int64_t> aligned_sizes(const std::vector<RingBlock>& blocks) {
  constexpr std::int64_t alignment = 256;  // what device allocators give
  std::vector<std::int64_t> sizes;
  for (const auto& block : blocks)
    sizes.push_back((block.layout->slot_bytes + alignment - 1) / alignment * alignment);
  return sizes;
}

}  // namespace

StreamRing::StreamRing(std::vector<RingBlock> blocks, const RingOptions& options)
    : Ring(blocks, aligned_sizes(blocks), options), jobs_(block_count(), 0), seams_(options.seams) {
  std::sort(seams_.begin(), seams_.end());
  allocate(at::TensorOptions().device(options.compute));
  // The memory may have belonged to an earlier operation of the compute stream.
  device::Event allocated(options.compute);
  allocated.record(device::current_stream(options.compute));
  // A worker stages one block after another: nothing could overlap.
  const int streams = options.registered ? std::max(1, options.copy_streams) : 1;
  for (int i = 0; i < streams; ++i) {
    copy_streams_.push_back(device::new_stream(options.compute));
    if (options.waits.copy_after_compute) allocated.block(copy_streams_.back());
    device::record_stream(buffer(), copy_streams_.back());
  }
  std::int64_t largest = 0;
  for (std::size_t i = 0; i < block_count(); ++i) {
    filled_.emplace_back(options.compute);
    freed_.emplace_back(options.compute);
    largest = std::max(largest, blocks[i].layout->slot_bytes);
  }
  if (options.registered) return;
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
    for (const auto& stream : copy_streams_) device::synchronize(stream);
  } catch (const std::exception&) {
    // A device that vanished has nothing left to wait for.
  }
}

void StreamRing::copy_mapped(const at::Tensor& to, const Layout& layout,
                             const c10::Stream& stream) {
  for (const auto& run : layout.runs) {
    const auto* start = run.file->mapping()->bytes(run.range()).data();
    for (std::int64_t done = 0; done < run.size_bytes;) {
      // A copy must not cross a seam.
      auto seam = std::upper_bound(seams_.begin(), seams_.end(), start + done);
      auto size = run.size_bytes - done;
      if (seam != seams_.end()) size = std::min<std::int64_t>(size, *seam - (start + done));
      device::copy_async(to.narrow(0, run.slot_offset + done, size), file_bytes(run, done, size),
                         stream);
      done += size;
    }
  }
}

void StreamRing::copy_staged(const at::Tensor& to, const Layout& layout,
                             const c10::Stream& stream) {
  auto staging_bytes = staging_[0].bytes();
  for (const auto& run : layout.runs) {
    for (std::int64_t done = 0; done < run.size_bytes; done += staging_bytes) {
      auto size = std::min(staging_bytes, run.size_bytes - done);
      auto buffer = next_staging_++ % staging_.size();
      if (options().waits.host_after_copy) staged_[buffer].synchronize();
      device::host_will_write(staging_[buffer].data(), size);
      read_run({run.file, run.file_offset + done, 0, size}, staging_[buffer].data(),
               options().keep_cached);
      device::copy_async(to.narrow(0, run.slot_offset + done, size),
                         staging_[buffer].tensor().narrow(0, 0, size), stream);
      staged_[buffer].record(stream);
    }
  }
}

void StreamRing::fill(const Place& place, const RingBlock& block) {
  auto index = place.index;
  const auto& stream = copy_streams_[next_stream_++ % copy_streams_.size()];
  if (options().waits.copy_after_compute && place.freed_last >= 0)
    freed_[place.freed_last].block(stream);
  for (int other : place.given_up) filled_[other].block(stream);
  auto to = buffer().narrow(0, place.offset, block.layout->slot_bytes);
  Traced traced(options().lane, "block " + std::to_string(block.id), stream);
  if (block.donor.defined()) {
    device::copy_async(to.narrow(0, 0, block.donor.numel()), block.donor, stream);
  } else if (!worker_) {
    for (const auto& run : block.layout->runs) run.file->mapping()->check();
    copy_mapped(to, *block.layout, stream);
  } else {
    jobs_[index] = worker_->add(
        [this, index, to, stream, layout = block.layout, machine = sim::current_machine()] {
          sim::JoinScope join(machine);
          copy_staged(to, *layout, stream);
          filled_[index].record(stream);
        });
    return;
  }
  jobs_[index] = 0;
  filled_[index].record(stream);
}

void StreamRing::wait_filled(int index) {
  if (jobs_[index]) worker_->wait(jobs_[index]);
  if (options().waits.compute_after_copy)
    filled_[index].block(device::current_stream(options().compute));
}

void StreamRing::mark_free(int index) {
  freed_[index].record(device::current_stream(options().compute));
}

}  // namespace distorch::streaming
