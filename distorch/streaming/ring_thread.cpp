#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "distorch/base/error.h"
#include "distorch/streaming/ring_kinds.h"
#include "distorch/streaming/trace.h"

namespace distorch::streaming {

Worker::Worker() : thread_([this] { loop(); }) {}

Worker::~Worker() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    jobs_.clear();
  }
  changed_.notify_all();
  thread_.join();
}

std::uint64_t Worker::add(std::function<void()> job) {
  std::lock_guard lock(mutex_);
  jobs_.push_back(std::move(job));
  changed_.notify_all();
  return ++added_;
}

void Worker::wait(std::uint64_t number) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_ >= number || failure_; });
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void Worker::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stop_ || !jobs_.empty(); });
    if (stop_) return;
    auto job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    std::exception_ptr failure;
    try {
      job();
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    ++done_;
    if (failure) failure_ = failure;
    changed_.notify_all();
  }
}

void read_run(const Run& run, void* to, bool keep_cached) {
  const auto& mapping = *run.file->mapping();
  auto* out = static_cast<char*>(to);
  std::int64_t done = 0;
  while (done < run.size_bytes) {
    auto count = ::pread(mapping.descriptor(), out + done, static_cast<std::size_t>(run.size_bytes - done), run.file_offset + done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error(ErrorKind::Format, mapping.path().string(), std::string("cannot be read: ") + std::strerror(errno));
    if (count == 0) throw Error(ErrorKind::Format, mapping.path().string(), "was truncated or replaced while in use");
    done += count;
  }
  mapping.check();
  if (!keep_cached) mapping.evict({static_cast<std::size_t>(run.file_offset), static_cast<std::size_t>(run.size_bytes)});
}

ThreadRing::ThreadRing(std::vector<RingBlock> blocks, const RingOptions& options)
    : Ring(std::move(blocks), options), jobs_(slots(), 0), filled_by_(slots(), nullptr), brought_(slots(), false) {
  if (has_donors()) allocate_slots(at::TensorOptions());
}

/// Asks the disk for the block's pages; it then works on them while another thread still waits for the block before.
void ThreadRing::bring(int slot, const Layout& layout) {
  std::int64_t missing = 0;
  for (const auto& run : layout.runs) {
    const auto& mapping = *run.file->mapping();
    formats::ByteRange range{static_cast<std::size_t>(run.file_offset), static_cast<std::size_t>(run.size_bytes)};
    if (!options().keep_cached) missing += run.size_bytes - static_cast<std::int64_t>(mapping.resident_bytes(range));
    mapping.will_need(range);
  }
  brought_[slot] = missing > 0;
}

void ThreadRing::fill(int slot, const RingBlock& block) {
  filled_by_[slot] = nullptr;
  if (block.donor.defined()) {
    bytes(slot).narrow(0, 0, block.donor.numel()).copy_(block.donor);
    jobs_[slot] = 0;
    return;
  }
  filled_by_[slot] = block.layout;
  auto asked = asker_.add([this, slot, layout = block.layout] { bring(slot, *layout); });
  jobs_[slot] = worker_.add([this, asked, id = block.id, layout = block.layout] {
    Traced traced(options().lane, "block " + std::to_string(id), c10::Stream(c10::Stream::DEFAULT, at::kCPU));
    asker_.wait(asked);
    for (const auto& run : layout->runs) {
      run.file->mapping()->probe({static_cast<std::size_t>(run.file_offset), static_cast<std::size_t>(run.size_bytes)});
      run.file->mapping()->check();
    }
  });
}

void ThreadRing::wait_filled(int slot) {
  Traced traced(options().lane + ", waiting", "wait", c10::Stream(c10::Stream::DEFAULT, at::kCPU));
  if (jobs_[slot]) worker_.wait(jobs_[slot]);
}

/// CPU operations are done when they return. Pages that were cached before we came stay.
void ThreadRing::mark_free(int slot) {
  const auto* layout = filled_by_[slot];
  if (options().keep_cached || !layout || !brought_[slot]) return;
  asker_.add([layout] {
    for (const auto& run : layout->runs)
      run.file->mapping()->evict({static_cast<std::size_t>(run.file_offset), static_cast<std::size_t>(run.size_bytes)});
  });
}

}  // namespace distorch::streaming
