#include "distorch/formats/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/formats/fault_guard.h"

namespace distorch::formats {

namespace {

std::size_t page_bytes() {
  static const auto size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

FileIdentity identity_from(const struct stat& s) {
  return {static_cast<std::uint64_t>(s.st_dev), static_cast<std::uint64_t>(s.st_ino),
          static_cast<std::uint64_t>(s.st_size),
          std::int64_t{s.st_mtim.tv_sec} * 1'000'000'000 + s.st_mtim.tv_nsec};
}

Error missing(const std::filesystem::path& path) {
  return Error(ErrorKind::MissingFile, path.string(),
               fmt::format("cannot be opened: {}", std::strerror(errno)));
}

/// Closes on every way out until released.
struct Descriptor {
  int number = -1;
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
  int release() { return std::exchange(number, -1); }
};

/// Live mappings by (device, inode). Never destroyed: mappings may outlive static objects.
struct Cache {
  std::mutex mutex;
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::weak_ptr<const MappedFile>> files;
};
Cache& cache() {
  static auto* c = new Cache;
  return *c;
}

/// Rounds to pages: outwards (every page touched by the range) or inwards (pages wholly inside it).
ByteRange whole_pages(ByteRange range, bool outwards) {
  auto page = page_bytes();
  auto begin = range.offset, end = range.offset + range.size;
  begin = (outwards ? begin : begin + page - 1) / page * page;
  end = (outwards ? end + page - 1 : end) / page * page;
  return {begin, end > begin ? end - begin : 0};
}

ByteRange cut_to(ByteRange range, std::size_t size) {
  auto offset = std::min(range.offset, size);
  return {offset, std::min(range.size, size - offset)};
}

void advise(const std::byte* data, std::size_t size, ByteRange range, int advice) {
  auto pages = whole_pages(cut_to(range, size), true);
  if (data == nullptr || pages.size == 0) return;
  ::madvise(const_cast<std::byte*>(data) + pages.offset, pages.size, advice);
}

}  // namespace

FileIdentity identity_of(const std::filesystem::path& path) {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0) throw missing(path);
  return identity_from(s);
}

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  // NONBLOCK: a named pipe must not hang us; it means nothing for regular files.
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.number < 0) throw missing(path);
  struct stat s {};
  if (::fstat(file.number, &s) != 0) throw missing(path);
  if (S_ISDIR(s.st_mode)) throw Error(ErrorKind::Format, path.string(), "is a folder, not a file");
  if (!S_ISREG(s.st_mode)) throw Error(ErrorKind::Format, path.string(), "is not a regular file");
  auto identity = identity_from(s);

  auto& known = cache();
  std::lock_guard lock(known.mutex);
  auto& slot = known.files[{identity.device, identity.inode}];
  if (auto live = slot.lock(); live && live->identity_ == identity && live->unchanged())
    return live;
  std::shared_ptr<MappedFile> fresh(new MappedFile(path, file.release(), identity));
  slot = fresh;
  std::erase_if(known.files, [](const auto& entry) { return entry.second.expired(); });
  return fresh;
}

MappedFile::MappedFile(std::filesystem::path path, int descriptor, FileIdentity identity)
    : path_(std::move(path)),
      descriptor_(descriptor),
      identity_(identity),
      sample_(sample()),
      same_since_(identity.modified) {
  if (identity_.size == 0) return;
  void* data = ::mmap(nullptr, identity_.size, PROT_READ, MAP_SHARED, descriptor_, 0);
  if (data == MAP_FAILED) {
    auto reason = errno;
    ::close(descriptor_);
    throw Error(
        reason == ENOMEM ? ErrorKind::OutOfMemory : ErrorKind::Format, path_.string(),
        fmt::format("cannot be mapped ({} bytes): {}", identity_.size, std::strerror(reason)));
  }
  data_ = static_cast<const std::byte*>(data);
  watch_ = watch_faults(data, identity_.size);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    unwatch_faults(watch_);
    ::munmap(const_cast<std::byte*>(data_), identity_.size);
  }
  ::close(descriptor_);
}

std::span<const std::byte> MappedFile::bytes(ByteRange range) const {
  if (range.offset > size() || range.size > size() - range.offset)
    throw Error(ErrorKind::Format, path_.string(),
                fmt::format("bytes {} to {} were asked for, the file has {}", range.offset,
                            range.offset + range.size, size()));
  return bytes().subspan(range.offset, range.size);
}

void MappedFile::throw_lost() const {
  struct stat s {};
  bool known = ::fstat(descriptor_, &s) == 0;
  if (known && static_cast<std::uint64_t>(s.st_size) != identity_.size)
    throw Error(ErrorKind::Format, path_.string(),
                fmt::format("was truncated or replaced while in use ({} bytes then, {} now)",
                            identity_.size, s.st_size));
  if (known && !same_content(identity_from(s).modified))
    throw Error(ErrorKind::Format, path_.string(), "was truncated or replaced while in use");
  throw Error(ErrorKind::Format, path_.string(),
              "could not be read (the disk or the network failed); the next use tries again");
}

bool MappedFile::lost(ByteRange range) const {
  if (watch_ == nullptr || !watch_->lost_pages.load(std::memory_order_acquire)) return false;
  auto end = reinterpret_cast<std::uintptr_t>(data_) + range.offset + range.size;
  return range.size > 0 && end > watch_->lost_from.load(std::memory_order_acquire);
}

std::optional<Digest> MappedFile::sample() const {
  constexpr std::size_t beginning = std::size_t{1} << 16, page = 4096, pages = 16;
  std::string bytes;
  auto take = [&](std::size_t offset, std::size_t size) {
    size = std::min(size, identity_.size - offset);
    auto before = bytes.size();
    bytes.resize(before + size);
    auto got = ::pread(descriptor_, bytes.data() + before, size, static_cast<off_t>(offset));
    return got == static_cast<ssize_t>(size);
  };
  bool whole = take(0, beginning);
  if (identity_.size > beginning) {
    auto rest = identity_.size - beginning;
    for (std::size_t i = 1; i <= pages; ++i)
      whole = whole && take(beginning + (rest > page ? (rest - page) / pages * i : 0), page);
  }
  return whole ? std::optional(digest(bytes)) : std::nullopt;
}

bool MappedFile::same_content(std::int64_t modified) const {
  if (modified == same_since_.load(std::memory_order_acquire)) return true;
  std::lock_guard lock(mutex_);
  if (!sample_ || sample() != sample_) return false;
  same_since_.store(modified, std::memory_order_release);
  return true;
}

void MappedFile::read(std::size_t offset, std::span<std::byte> to) const {
  auto from = bytes({offset, to.size()});
  if (!guarded_copy(to.data(), from.data(), from.size()) || lost({offset, to.size()})) throw_lost();
}

void MappedFile::probe(ByteRange range) const {
  auto part = bytes(range);
  if (part.empty()) return;
  auto pages = whole_pages(range, true);
#ifdef MADV_POPULATE_READ
  // One system call instead of a touch a page; kernels before 5.14 answer EINVAL.
  bool there =
      ::madvise(const_cast<std::byte*>(data_) + pages.offset, pages.size, MADV_POPULATE_READ) == 0;
#else
  bool there = false;
#endif
  if (!there && !guarded_touch(part.data(), part.size())) throw_lost();
  if (lost(range)) throw_lost();
}

bool MappedFile::unchanged() const {
  if (lost({0, size()})) return false;
  struct stat s {};
  return ::fstat(descriptor_, &s) == 0 && static_cast<std::uint64_t>(s.st_size) == identity_.size &&
         same_content(identity_from(s).modified);
}

void MappedFile::check() const {
  if (!unchanged()) throw_lost();
}

bool MappedFile::is_current() const {
  struct stat s {};
  return unchanged() && ::stat(path_.c_str(), &s) == 0 && identity_from(s) == identity_;
}

void MappedFile::refresh() const {
  if (!lost({0, size()})) return;
  std::lock_guard lock(mutex_);
  struct stat s {};
  if (::fstat(descriptor_, &s) != 0 || static_cast<std::uint64_t>(s.st_size) < identity_.size)
    return;
  auto begin = reinterpret_cast<std::uintptr_t>(data_);
  auto from = forget_lost_pages(*watch_);
  if (from >= begin + size()) return;
  auto* at = reinterpret_cast<void*>(from);
  auto bytes = begin + size() - from;
  if (::mmap(at, bytes, PROT_READ, MAP_SHARED | MAP_FIXED, descriptor_,
             static_cast<off_t>(from - begin)) != at)
    note_lost_pages(*watch_, from);
}

void MappedFile::will_need(ByteRange range) const { advise(data_, size(), range, MADV_WILLNEED); }

void MappedFile::sequential(ByteRange range) const {
  advise(data_, size(), range, MADV_SEQUENTIAL);
}

void MappedFile::dont_need(ByteRange range) const { advise(data_, size(), range, MADV_DONTNEED); }

void MappedFile::evict(ByteRange range) const {
  dont_need(range);
  auto pages = whole_pages(cut_to(range, size()), false);
  if (pages.size != 0)
    ::posix_fadvise(descriptor_, static_cast<off_t>(pages.offset), static_cast<off_t>(pages.size),
                    POSIX_FADV_DONTNEED);
}

std::size_t MappedFile::resident_bytes(ByteRange range) const {
  range = cut_to(range, size());
  auto page = page_bytes();
  auto pages = whole_pages(range, true);
  std::vector<unsigned char> present(16384);
  std::size_t total = 0;
  for (auto at = pages.offset; at < pages.offset + pages.size;) {
    auto count = std::min(present.size(), (pages.offset + pages.size - at) / page);
    if (::mincore(const_cast<std::byte*>(data_) + at, count * page, present.data()) != 0)
      return total;
    for (std::size_t i = 0; i < count; ++i) {
      if ((present[i] & 1) == 0) continue;
      auto begin = std::max(at + i * page, range.offset);
      auto end = std::min(at + (i + 1) * page, range.offset + range.size);
      total += end - begin;
    }
    at += count * page;
  }
  return total;
}

}  // namespace distorch::formats
