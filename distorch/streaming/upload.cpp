#include "distorch/streaming/upload.h"

#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>

#include "distorch/base/run_token.h"
#include "distorch/device/thread_state.h"
#include "distorch/streaming/ring.h"

namespace distorch::streaming {

namespace {

// More bring nothing: the processor's memory is the limit. The others are for who computes with
// what has arrived.
constexpr int most_threads = 12;

int thread_count(int wanted) {
  if (wanted > 0) return wanted;
  auto present = static_cast<int>(std::thread::hardware_concurrency());
  return std::clamp((3 * present + 2) / 4, 1, most_threads);
}

}  // namespace

Upload::Upload(c10::Device device, const UploadOptions& options)
    : device_(device), options_(options), stream_(device::new_stream(device)) {
  try {
    start(thread_count(options.threads));
  } catch (...) {
    stop();
    throw;
  }
}

Upload::~Upload() { stop(); }

/// Where the system has no more threads to give, those that there are do the work.
void Upload::start(int threads) {
  for (int i = 0; i < threads; ++i) try {
      threads_.emplace_back([this, state = device::ThreadState::capture()] {
        device::ThreadState::Scope inherited(state);
        work();
      });
    } catch (const std::system_error&) {
      if (threads_.empty()) throw;
      return;
    }
}

void Upload::stop() noexcept {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    coming_.clear();
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
  std::int64_t pieces = 0;
  for (const auto& stretch : layout.stretches)
    pieces += (stretch.size_bytes + options_.piece_bytes - 1) / options_.piece_bytes;
  std::lock_guard lock(mutex_);
  auto& pending = pending_.try_emplace(block, device_).first->second;
  pending.left = pieces;
  if (pieces == 0) return;
  coming_.push_back({block, &layout, target});
  changed_.notify_all();
}

void Upload::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

void Upload::wait(int block) {
  std::unique_lock lock(mutex_);
  auto at = pending_.find(block);
  if (at == pending_.end()) return;
  auto& pending = at->second;
  while (pending.left > 0 && !failure_) {
    throw_if_interrupted();
    changed_.wait_for(lock, std::chrono::milliseconds(100));
  }
  if (failure_) std::rethrow_exception(failure_);
  pending.arrived.block(device::current_stream(device_));
  pending_.erase(block);
}

bool Upload::failed() const {
  std::lock_guard lock(mutex_);
  return failure_ != nullptr;
}

bool Upload::take(Piece& piece) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stop_ || closed_ || !coming_.empty(); });
  if (stop_ || coming_.empty()) return false;
  auto& next = coming_.front();
  const auto& stretch = next.layout->stretches[next.stretch];
  auto size = std::min(options_.piece_bytes, stretch.size_bytes - next.done);
  piece.stretch = {stretch.file, stretch.file_offset + next.done, stretch.slot_offset + next.done,
                   size};
  piece.target = next.target;
  piece.block = next.block;
  next.done += size;
  while (next.stretch < next.layout->stretches.size() &&
         next.done == next.layout->stretches[next.stretch].size_bytes) {
    ++next.stretch;
    next.done = 0;
  }
  if (next.stretch == next.layout->stretches.size()) coming_.pop_front();
  return true;
}

/// The piece has been read into `from`: it is copied on with others. The caller keeps `from` until
/// finish() of the batch.
std::shared_ptr<Upload::Batch> Upload::send(const Piece& piece, const at::Tensor& from) {
  std::lock_guard lock(mutex_);
  if (!open_) open_ = std::make_shared<Batch>(device_);
  auto batch = open_;
  batch->copies.push_back(
      {piece.target.narrow(0, piece.stretch.slot_offset, piece.stretch.size_bytes), from});
  batch->blocks.push_back(piece.block);
  if (batch->copies.size() >= options_.batch_pieces || coming_.empty()) issue(*batch);
  return batch;
}

/// Under the lock: batches are issued one after the other, and the last piece of a block marks its
/// arrival.
void Upload::issue(Batch& batch) {
  if (open_.get() == &batch) open_.reset();
  batch.issued = true;
  try {
    device::copy_async(std::exchange(batch.copies, {}), stream_);
  } catch (...) {
    batch.done.record(stream_);  // some may have been issued
    throw;
  }
  batch.done.record(stream_);
  for (int block : batch.blocks) {
    auto& pending = pending_.at(block);
    if (--pending.left == 0) pending.arrived.record(stream_);
  }
  changed_.notify_all();
}

/// The host waits until the batch has been copied.
void Upload::finish(Batch* batch) {
  if (!batch) return;
  {
    std::lock_guard lock(mutex_);
    if (!batch->issued) issue(*batch);
  }
  batch->done.synchronize();
}

void Upload::copy_pieces() {
  // Its pages are made by this thread, while others make theirs.
  device::HostBuffer buffer(2 * options_.piece_bytes, {device_});
  const auto halves = buffer.tensor();
  std::shared_ptr<Batch> used[2];
  try {
    Piece piece;
    for (int half = 0; take(piece); half = 1 - half) {
      auto from = halves.narrow(0, half * options_.piece_bytes, piece.stretch.size_bytes);
      finish(used[half].get());
      device::host_will_write(from.const_data_ptr(), piece.stretch.size_bytes);
      read_stretch(piece.stretch, from.mutable_data_ptr(), true);
      used[half] = send(piece, from);
      piece.target = at::Tensor();
    }
  } catch (...) {
    for (auto& batch : used) {
      try {
        finish(batch.get());
      } catch (const std::exception&) {
        // What went wrong first is told.
      }
    }
    throw;
  }
  for (auto& batch : used) finish(batch.get());
}

void Upload::work() {
  c10::DeviceGuard guard(device_);
  try {
    copy_pieces();
  } catch (...) {
    std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
    coming_.clear();
    changed_.notify_all();
  }
}

}  // namespace distorch::streaming
