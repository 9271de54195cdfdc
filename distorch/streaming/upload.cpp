#include "distorch/streaming/upload.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <sys/mman.h>

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
  const auto readers = thread_count(options.threads);
  for (int i = 0; i < readers + options.registrars; ++i)
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

/// Pieces that follow one another in a file, from the end of the queue.
bool Upload::take_last(std::vector<Piece>& pieces) {
  constexpr std::int64_t most_bytes = std::int64_t{64} << 20;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stop_ || !pieces_.empty(); });
  if (stop_) return false;
  pieces.clear();
  for (std::int64_t bytes = 0; !pieces_.empty() && bytes < most_bytes; pieces_.pop_back()) {
    auto& piece = pieces_.back();
    if (!pieces.empty() &&
        (piece.run.file != pieces.back().run.file ||
         piece.run.file_offset + piece.run.size_bytes != pieces.back().run.file_offset))
      break;
    bytes += piece.run.size_bytes;
    pieces.push_back(std::move(piece));
  }
  return true;
}

void Upload::register_pieces() {
  constexpr std::int64_t page = 4096;
  std::vector<Piece> pieces;
  while (take_last(pieces)) {
    const auto& first = pieces.back().run;
    const auto& last = pieces.front().run;
    auto begin = first.file_offset / page * page;
    auto end = (last.file_offset + last.size_bytes + page - 1) / page * page;
    const auto* bytes = first.file->mapping()->bytes().data();
    auto ranges = device::register_shared(bytes + begin, end - begin, {device_});
    {
      std::lock_guard lock(mutex_);
      registered_.insert(registered_.end(), ranges.begin(), ranges.end());
    }
    for (const auto& piece : pieces) {
      auto from = at::from_blob(const_cast<std::byte*>(bytes + piece.run.file_offset),
                                {piece.run.size_bytes}, at::TensorOptions().dtype(at::kByte));
      device::copy_async(piece.to, from, stream_);
      sent(piece.block);
    }
  }
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
      if (options_.source == UploadSource::Read) {
        read_run(piece.run, from.mutable_data_ptr(), true);
      } else {
        constexpr std::uintptr_t page = 4096;
        constexpr int populate_read = 22;  // MADV_POPULATE_READ
        auto bytes = piece.run.file->mapping()->bytes(piece.run.range());
        auto begin = reinterpret_cast<std::uintptr_t>(bytes.data()) / page * page;
        ::madvise(reinterpret_cast<void*>(begin),
                  reinterpret_cast<std::uintptr_t>(bytes.data()) + bytes.size() - begin,
                  populate_read);
        piece.run.file->mapping()->read(
            piece.run.range().offset,
            {static_cast<std::byte*>(from.mutable_data_ptr()), bytes.size()});
      }
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
    if (thread < thread_count(options_.threads))
      copy_pieces(thread);
    else
      register_pieces();
  } catch (...) {
    std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
    pieces_.clear();
    changed_.notify_all();
  }
}

}  // namespace distorch::streaming
