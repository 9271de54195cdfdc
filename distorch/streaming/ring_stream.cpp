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

StreamRing::StreamRing(std::vector<RingBlock> blocks, const RingOptions& options)
    : Ring(std::move(blocks), options),
      copy_stream_(device::new_stream(options.compute)),
      jobs_(slots(), 0) {
  allocate_slots(at::TensorOptions().device(options.compute));
  auto compute = device::current_stream(options.compute);
  for (int i = 0; i < slots(); ++i) {
    filled_.emplace_back(options.compute);
    freed_.emplace_back(options.compute);
    // The memory may have belonged to an earlier operation of the compute stream.
    freed_.back().record(compute);
    device::record_stream(bytes(i), copy_stream_);
  }
  if (options.registered) return;
  for (int i = 0; i < 2; ++i) {
    staging_.emplace_back(std::min(slot_bytes(), largest_staging_bytes),
                          std::vector<c10::Device>{options.compute});
    staged_.emplace_back(options.compute);
  }
  worker_ = std::make_unique<Worker>();
}

StreamRing::~StreamRing() {
  worker_.reset();
  try {
    device::synchronize(copy_stream_);
  } catch (const std::exception&) {
    // A device that vanished has nothing left to wait for.
  }
}

void StreamRing::copy_mapped(const at::Tensor& slot, const Layout& layout) {
  for (const auto& run : layout.runs)
    device::copy_async(slot.narrow(0, run.slot_offset, run.size_bytes),
                       file_bytes(run, 0, run.size_bytes), copy_stream_);
}

void StreamRing::copy_staged(const at::Tensor& slot, const Layout& layout) {
  auto staging_bytes = staging_[0].bytes();
  for (const auto& run : layout.runs) {
    for (std::int64_t done = 0; done < run.size_bytes; done += staging_bytes) {
      auto size = std::min(staging_bytes, run.size_bytes - done);
      auto buffer = next_staging_++ % staging_.size();
      if (options().waits.host_after_copy) staged_[buffer].synchronize();
      device::host_will_write(staging_[buffer].data(), size);
      read_run({run.file, run.file_offset + done, 0, size}, staging_[buffer].data(),
               options().keep_cached);
      device::copy_async(slot.narrow(0, run.slot_offset + done, size),
                         staging_[buffer].tensor().narrow(0, 0, size), copy_stream_);
      staged_[buffer].record(copy_stream_);
    }
  }
}

void StreamRing::fill(int slot, const RingBlock& block) {
  if (options().waits.copy_after_compute) freed_[slot].block(copy_stream_);
  Traced traced(options().lane, "block " + std::to_string(block.id), copy_stream_);
  if (block.donor.defined()) {
    device::copy_async(bytes(slot).narrow(0, 0, block.donor.numel()), block.donor, copy_stream_);
  } else if (!worker_) {
    for (const auto& run : block.layout->runs) run.file->mapping()->check();
    copy_mapped(bytes(slot), *block.layout);
  } else {
    jobs_[slot] =
        worker_->add([this, slot, layout = block.layout, machine = sim::current_machine()] {
          sim::JoinScope join(machine);
          copy_staged(bytes(slot), *layout);
          filled_[slot].record(copy_stream_);
        });
    return;
  }
  jobs_[slot] = 0;
  filled_[slot].record(copy_stream_);
}

void StreamRing::wait_filled(int slot) {
  if (jobs_[slot]) worker_->wait(jobs_[slot]);
  if (options().waits.compute_after_copy)
    filled_[slot].block(device::current_stream(options().compute));
}

void StreamRing::mark_free(int slot) {
  freed_[slot].record(device::current_stream(options().compute));
}

}  // namespace distorch::streaming
