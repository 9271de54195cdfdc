#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "distorch/base/align.h"
#include "distorch/base/error.h"
#include "distorch/streaming/ring_kinds.h"
#include "distorch/streaming/trace.h"

namespace distorch::streaming {

void read_stretch(const Stretch& stretch, void* to, bool keep_cached) {
  const auto& mapping = *stretch.file->mapping();
  auto* out = static_cast<char*>(to);
  std::int64_t done = 0;
  while (done < stretch.size_bytes) {
    auto count =
        ::pread(mapping.descriptor(), out + done,
                static_cast<std::size_t>(stretch.size_bytes - done), stretch.file_offset + done);
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
  if (!keep_cached) mapping.evict(stretch.range());
}

namespace {

// Direct reads want whole pages of offsets, sizes and addresses, on any disk.
// A disk takes few pieces of memory a request: in huge pages a request is larger, and reading
// faster.
constexpr std::int64_t huge_page = std::int64_t{2} << 20;

std::int64_t page_down(std::int64_t value) { return align_down(value, kPageBytes); }
std::int64_t page_up(std::int64_t value) { return align_up(value, kPageBytes); }

/// Room for a block read in whole pages.
std::int64_t direct_bytes(const Layout& layout) {
  std::int64_t bytes = 0;
  for (const auto& stretch : layout.stretches)
    bytes += page_up(stretch.file_offset + stretch.size_bytes) - page_down(stretch.file_offset);
  return bytes;
}

/// Reads whole pages around a stretch past the page cache. False where this file system cannot;
/// Error(Format) where the file no longer has the bytes.
bool read_direct(int descriptor, const Stretch& stretch, std::byte* to) {
  auto begin = page_down(stretch.file_offset), end = stretch.file_offset + stretch.size_bytes;
  const auto& mapping = *stretch.file->mapping();
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
    if (at < end && at % kPageBytes != 0) return false;  // only the end of the file may cut a page
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
  auto alignment = capacity_bytes() > 4 * huge_page ? huge_page : kPageBytes;
  bool fresh = !room_.defined();
  if (fresh)
    room_ = at::empty({capacity_bytes() + alignment}, at::TensorOptions().dtype(at::kByte));
  auto* start = reinterpret_cast<std::byte*>(
      align_up(reinterpret_cast<std::int64_t>(room_.mutable_data_ptr()), alignment));
  if (fresh && alignment == huge_page)
    ::madvise(start, static_cast<std::size_t>(capacity_bytes()), MADV_HUGEPAGE);
  return start;
}

/// Where its stretches were read to; nothing where this file system cannot do that.
std::vector<const std::byte*> ThreadRing::fill_directly(const Filled& filled,
                                                        const Layout& layout) {
  auto* to = room() + filled.offset;
  std::vector<const std::byte*> places;
  for (const auto& stretch : layout.stretches) {
    int descriptor = direct_descriptor(*stretch.file->mapping());
    if (descriptor < 0 || !read_direct(descriptor, stretch, to)) {
      direct_[stretch.file->mapping().get()] = -1;
      return {};
    }
    places.push_back(to + stretch.file_offset % kPageBytes);
    to += page_up(stretch.file_offset + stretch.size_bytes) - page_down(stretch.file_offset);
  }
  return places;
}

/// Runs on the worker.
void ThreadRing::fill_from_file(Filled& filled, const Layout& layout) {
  bool cached = true;
  for (const auto& stretch : layout.stretches)
    cached = cached && stretch.file->mapping()->resident_bytes(stretch.range()) ==
                           static_cast<std::size_t>(stretch.size_bytes);
  std::vector<const std::byte*> places;
  if (!cached && !options().keep_cached) places = fill_directly(filled, layout);
  bool in_place = places.empty();
  if (in_place) {
    // What is cached is not touched: walking its pages each step would cost the computation a core
    // for a while.
    if (!cached)
      for (const auto& stretch : layout.stretches)
        stretch.file->mapping()->will_need(stretch.range());
    for (const auto& stretch : layout.stretches) {
      if (!cached) stretch.file->mapping()->probe(stretch.range());
      places.push_back(stretch.file->mapping()->bytes(stretch.range()).data());
    }
  }
  for (const auto& stretch : layout.stretches) stretch.file->mapping()->check();
  filled.give_back = in_place && !cached && !options().keep_cached;
  filled.places = std::move(places);
}

std::shared_future<void> ThreadRing::fill(const Place& place, const RingBlock& block) {
  auto& filled = filled_[place.index];
  if (filled.job.valid()) filled.job.wait();  // one that was given up may still be at work
  filled = {};
  filled.offset = place.offset;
  if (block.donor.defined()) {
    buffer().narrow(0, place.offset, block.donor.numel()).copy_(block.donor);
    return {};
  }
  filled.layout = block.layout;
  if (!worker_) worker_ = std::make_unique<Worker>();
  filled.job = worker_->add([this, &filled, id = block.id, layout = block.layout] {
    Traced traced(options().lane, "block " + std::to_string(id),
                  c10::Stream(c10::Stream::DEFAULT, at::kCPU));
    fill_from_file(filled, *layout);
  });
  return filled.job;
}

void ThreadRing::let_use(int index) {
  const auto& filled = filled_[index];
  if (filled.layout && filled.places.size() != filled.layout->stretches.size())
    throw Error(ErrorKind::Internal, options().lane, "a block was used that had not been read");
}

/// CPU operations are done when they return. Pages that were cached before we came stay.
std::uint32_t ThreadRing::mark_free(int index) {
  const auto* layout = filled_[index].layout;
  if (layout && filled_[index].give_back)
    worker_->add([layout] {
      for (const auto& stretch : layout->stretches) stretch.file->mapping()->evict(stretch.range());
    });
  return 0;
}

void ThreadRing::come_to_rest() noexcept {
  if (worker_) worker_->drop();
  // Whose job was dropped has nobody to wait for.
  for (auto& filled : filled_) filled.job = {};
}

}  // namespace distorch::streaming
