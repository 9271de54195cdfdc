#include <fcntl.h>
#include <sys/mman.h>
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
    auto count = ::pread(mapping.descriptor(), out + done,
                         static_cast<std::size_t>(run.size_bytes - done), run.file_offset + done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0)
      throw Error(ErrorKind::Format, mapping.path().string(),
                  std::string("cannot be read: ") + std::strerror(errno));
    if (count == 0)
      throw Error(ErrorKind::Format, mapping.path().string(),
                  "was truncated or replaced while in use");
    done += count;
  }
  mapping.check();
  if (!keep_cached) mapping.evict(run.range());
}

namespace {

// What direct reads want of offsets, sizes and addresses, on any disk.
constexpr std::int64_t page = 4096;
// A disk takes few pieces of memory a request: in huge pages a request is larger, and reading
// faster.
constexpr std::int64_t huge_page = std::int64_t{2} << 20;

std::int64_t aligned_up(std::int64_t value, std::int64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}
std::int64_t page_down(std::int64_t value) { return value / page * page; }
std::int64_t page_up(std::int64_t value) { return page_down(value + page - 1); }

/// Room for a block read in whole pages.
std::int64_t direct_bytes(const Layout& layout) {
  std::int64_t bytes = 0;
  for (const auto& run : layout.runs)
    bytes += page_up(run.file_offset + run.size_bytes) - page_down(run.file_offset);
  return bytes;
}

/// Reads whole pages around a run past the page cache. False where this file system cannot;
/// Error(Format) where the file no longer has the bytes.
bool read_direct(int descriptor, const Run& run, std::byte* to) {
  auto begin = page_down(run.file_offset), end = run.file_offset + run.size_bytes;
  const auto& mapping = *run.file->mapping();
  for (auto at = begin; at < end;) {
    auto count =
        ::pread(descriptor, to + (at - begin), static_cast<std::size_t>(page_up(end) - at), at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EINVAL) return false;
    if (count < 0)
      throw Error(ErrorKind::Format, mapping.path().string(),
                  std::string("cannot be read: ") + std::strerror(errno));
    if (count == 0)
      throw Error(ErrorKind::Format, mapping.path().string(),
                  "was truncated or replaced while in use");
    at += count;
    if (at < end && at % page != 0) return false;  // only the end of the file may cut a page
  }
  return true;
}

std::vector<std::int64_t> whole_page_sizes(const std::vector<RingBlock>& blocks) {
  std::vector<std::int64_t> sizes;
  for (const auto& block : blocks)
    sizes.push_back(std::max(direct_bytes(*block.layout), page_up(block.layout->slot_bytes)));
  return sizes;
}

}  // namespace

ThreadRing::ThreadRing(std::vector<RingBlock> blocks, const RingOptions& options)
    : Ring(blocks, whole_page_sizes(blocks), options), filled_(block_count()) {
  if (has_donors()) allocate(at::TensorOptions());
}

ThreadRing::~ThreadRing() {
  worker_.reset();
  for (const auto& [file, descriptor] : direct_)
    if (descriptor >= 0) ::close(descriptor);
}

/// A descriptor that reads past the page cache; -1 where there is none to be had.
int ThreadRing::direct_descriptor(const formats::MappedFile& mapping) {
  auto at = direct_.find(&mapping);
  if (at != direct_.end()) return at->second;
  // By descriptor, not by path: another file may have taken the path.
  auto self = "/proc/self/fd/" + std::to_string(mapping.descriptor());
  return direct_[&mapping] = ::open(self.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
}

/// The start of the memory for direct reads.
std::byte* ThreadRing::room() {
  auto alignment = capacity_bytes() > 4 * huge_page ? huge_page : page;
  bool fresh = !room_.defined();
  if (fresh)
    room_ = at::empty({capacity_bytes() + alignment}, at::TensorOptions().dtype(at::kByte));
  auto* start = reinterpret_cast<std::byte*>(
      aligned_up(reinterpret_cast<std::int64_t>(room_.mutable_data_ptr()), alignment));
  if (fresh && alignment == huge_page)
    ::madvise(start, static_cast<std::size_t>(capacity_bytes()), MADV_HUGEPAGE);
  return start;
}

bool ThreadRing::fill_directly(Filled& filled, const Layout& layout) {
  auto* to = room() + filled.offset;
  filled.places.clear();
  for (const auto& run : layout.runs) {
    int descriptor = direct_descriptor(*run.file->mapping());
    if (descriptor < 0 || !read_direct(descriptor, run, to)) {
      direct_[run.file->mapping().get()] = -1;
      return false;
    }
    filled.places.push_back(to + run.file_offset % page);
    to += page_up(run.file_offset + run.size_bytes) - page_down(run.file_offset);
  }
  return true;
}

/// Runs on the worker.
void ThreadRing::fill_from_file(Filled& filled, const Layout& layout) {
  bool cached = true;
  for (const auto& run : layout.runs)
    cached = cached && run.file->mapping()->resident_bytes(run.range()) ==
                           static_cast<std::size_t>(run.size_bytes);
  filled.give_back = false;
  if (cached || options().keep_cached || !fill_directly(filled, layout)) {
    filled.give_back = !cached && !options().keep_cached;
    filled.places.clear();
    // What is cached is not touched: walking its pages each step would cost the computation a core
    // for a while.
    if (!cached)
      for (const auto& run : layout.runs) run.file->mapping()->will_need(run.range());
    for (const auto& run : layout.runs) {
      if (!cached) run.file->mapping()->probe(run.range());
      filled.places.push_back(run.file->mapping()->bytes(run.range()).data());
    }
  }
  for (const auto& run : layout.runs) run.file->mapping()->check();
}

void ThreadRing::fill(const Place& place, const RingBlock& block) {
  auto& filled = filled_[place.index];
  if (filled.job) worker_->wait(filled.job);  // one that was given up may still be at work
  filled.layout = nullptr;
  filled.job = 0;
  filled.offset = place.offset;
  if (block.donor.defined()) {
    buffer().narrow(0, place.offset, block.donor.numel()).copy_(block.donor);
    return;
  }
  filled.layout = block.layout;
  if (!worker_) worker_ = std::make_unique<Worker>();
  filled.job = worker_->add([this, &filled, id = block.id, layout = block.layout] {
    Traced traced(options().lane, "block " + std::to_string(id),
                  c10::Stream(c10::Stream::DEFAULT, at::kCPU));
    fill_from_file(filled, *layout);
  });
}

void ThreadRing::wait_filled(int index) {
  Traced traced(options().lane + ", waiting", "wait", c10::Stream(c10::Stream::DEFAULT, at::kCPU));
  if (filled_[index].job) worker_->wait(filled_[index].job);
}

/// CPU operations are done when they return. Pages that were cached before we came stay.
void ThreadRing::mark_free(int index) {
  const auto* layout = filled_[index].layout;
  if (!layout || !filled_[index].give_back) return;
  worker_->add([layout] {
    for (const auto& run : layout->runs) run.file->mapping()->evict(run.range());
  });
}

}  // namespace distorch::streaming
