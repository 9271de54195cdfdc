#include "distorch/streaming/upload.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>

#include "distorch/base/interrupt.h"
#include "distorch/device/sim/sim.h"
#include "distorch/streaming/ring.h"

namespace distorch::streaming {

namespace {

constexpr int most_threads = 16;

int thread_count(int wanted) {
  if (wanted > 0) return wanted;
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, most_threads);
}

}  // namespace

Upload::Upload(c10::Device device, const UploadOptions& options)
    : device_(device),
      options_(options),
      stream_(device::new_stream(device)),
      buffer_(2 * thread_count(options.threads) * options.piece_bytes, {device}) {
  for (int i = 0; i < thread_count(options.threads); ++i)
    threads_.emplace_back(
        [this, i, machine = sim::current_machine(), inference = c10::InferenceMode::is_enabled()] {
          sim::JoinScope join(machine);
          c10::InferenceMode mode(inference);
          work(i);
        });
}

Upload::~Upload() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    pieces_.clear();
  }
  changed_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void Upload::add(int block, const Layout& layout, const at::Tensor& target) {
  // The memory may have belonged to an earlier operation of the compute stream.
  device::Event allocated(device_);
  allocated.record(device::current_stream(device_));
  allocated.block(stream_);
  device::record_stream(target, stream_);
  std::lock_guard lock(mutex_);
  auto& pending = pending_.try_emplace(block, device_).first->second;
  for (const auto& run : layout.runs)
    for (std::int64_t done = 0; done < run.size_bytes; done += options_.piece_bytes) {
      auto size = std::min(options_.piece_bytes, run.size_bytes - done);
      auto& piece = pieces_.emplace_back();
      piece.run = {run.file, run.file_offset + done, 0, size};
      piece.to = target.narrow(0, run.slot_offset + done, size);
      piece.block = block;
      ++pending.left;
    }
  changed_.notify_all();
}

void Upload::wait(int block) {
  std::unique_lock lock(mutex_);
  auto& pending = pending_.at(block);
  while (pending.left > 0 && !failure_) {
    throw_if_interrupted();
    changed_.wait_for(lock, std::chrono::milliseconds(100));
  }
  if (failure_) std::rethrow_exception(failure_);
  pending.arrived.block(device::current_stream(device_));
  pending_.erase(block);
}

bool Upload::take(Piece& piece) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stop_ || !pieces_.empty(); });
  if (stop_) return false;
  piece = std::move(pieces_.front());
  pieces_.pop_front();
  return true;
}

/// A piece's copy has been issued; the last one of a block marks its arrival.
void Upload::sent(int block) {
  std::lock_guard lock(mutex_);
  auto& pending = pending_.at(block);
  if (--pending.left > 0) return;
  pending.arrived.record(stream_);
  changed_.notify_all();
}

void Upload::copy_pieces(int thread) {
  device::Event copied[2] = {device::Event(device_), device::Event(device_)};
  auto halves =
      buffer_.tensor().narrow(0, 2 * thread * options_.piece_bytes, 2 * options_.piece_bytes);
  try {
    Piece piece;
    for (int half = 0; take(piece); half = 1 - half) {
      auto from = halves.narrow(0, half * options_.piece_bytes, piece.run.size_bytes);
      copied[half].synchronize();
      device::host_will_write(from.const_data_ptr(), piece.run.size_bytes);
      read_run(piece.run, from.mutable_data_ptr(), true);
      device::copy_async(piece.to, from, stream_);
      copied[half].record(stream_);
      piece.to = at::Tensor();
      sent(piece.block);
    }
  } catch (...) {
    for (auto& event : copied) event.synchronize();
    throw;
  }
  // The buffers go away with this object.
  for (auto& event : copied) event.synchronize();
}

void Upload::work(int thread) {
  c10::DeviceGuard guard(device_);
  try {
    copy_pieces(thread);
  } catch (...) {
    std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
    pieces_.clear();
    changed_.notify_all();
  }
}

}  // namespace distorch::streaming
