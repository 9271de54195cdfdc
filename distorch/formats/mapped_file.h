#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "distorch/base/hash.h"

namespace distorch::formats {

struct FaultWatch;

/// Bytes [offset, offset + size) of a file.
struct ByteRange {
  std::size_t offset = 0;
  std::size_t size = 0;
};

/// Which file, and which state of it, lies behind a path.
struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;     // bytes
  std::int64_t modified = 0;  // nanoseconds since 1970
  bool operator==(const FileIdentity&) const = default;
};

/// A whole file mapped read-only and shared: its pages are the page cache, never a second copy in
/// memory.
///
/// A page that cannot be had (the file was cut short, the disk or the network failed) would
/// normally kill the process (SIGBUS) at the next touch. Here:
///  * read() and probe() throw Error(Format) with the file's name; nothing else happens, and the
///    next call tries again;
///  * bytes used in place (arithmetic straight from bytes()) read as zeros from the first lost page
///    on, and every check() from then on throws. So: compute in place, then check(), before a
///    result is believed. refresh(), called before the next use, puts the file back in the place of
///    the zeros.
/// The first open() installs a process-wide SIGBUS handler; faults outside of our mappings go to
/// the handler before it.
///
/// What counts as a change, for check() in the middle of a run:
///  * another size: always;
///  * another time of modification, the size the same: only where the content differs too. A file
///    is large and somebody may just have touched it, so not all is compared: the beginning (with
///    the header) and 16 pages spread evenly to the end, against what they were at open(). Whoever
///    writes weights anew changes the values of nearly all pages.
///  * the same time, or permissions, links, access: never.
/// Between runs the rule is stricter, since a few changed pages may hide from it: is_current() and
/// open() go by FileIdentity, so whoever keeps what was read from a file asks for the identity
/// before each run, and opens again what has another.
///
/// A file *replaced* by rename keeps its old content here for as long as this object lives; open()
/// of the same path then gives a new mapping. check() does not mind that, is_current() tells it.
///
/// All const functions may be called from several threads at once; refresh() see there.
class MappedFile {
 public:
  /// Maps a file. The same file (device, inode, size, time) opened twice while the first is alive
  /// and whole is mapped once. Errors: Error(MissingFile) if it is not there or not readable, Error(Format)
  /// if it is a folder or device.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  /// The path of the first open().
  const std::filesystem::path& path() const { return path_; }
  std::size_t size() const { return identity_.size; }
  const FileIdentity& identity() const { return identity_; }
  std::span<const std::byte> bytes() const { return {data_, size()}; }
  /// Part of bytes(). Error(Format) if it does not lie within the file as it was opened.
  std::span<const std::byte> bytes(ByteRange range) const;
  /// A descriptor opened for reading that lives as long as this object (for pread, io_uring,
  /// O_DIRECT re-open).
  int descriptor() const { return descriptor_; }

  /// Copies [offset, offset + to.size()) out of the mapping, never zeros that stand for lost pages.
  /// Error(Format) if the bytes are no longer there or cannot be read.
  void read(std::size_t offset, std::span<std::byte> to) const;

  /// Makes every page of `range` present, so that reading it now costs no disk. Error(Format) where
  /// a page is lost.
  void probe(ByteRange range) const;

  /// Error(Format) "was truncated or replaced while in use" if the file changed since open() (the
  /// rule is above), "could not be read" if a page was lost in place since open() or refresh().
  /// Costs one system call, a change of the time some reads besides.
  void check() const;
  /// check() as a question.
  bool unchanged() const;
  /// Whether path() still leads to this very file and state, whole; false after a rename over it,
  /// its removal, or another time of modification.
  bool is_current() const;
  /// Before a use: pages that were lost show the file again, unless it is shorter than it was.
  /// Never throws; check() tells how it went. Nobody may be between computing in place and his
  /// check() meanwhile: he would not hear that he computed with zeros.
  void refresh() const;

  /// Hints to the kernel; they never throw and never change what is read.
  void will_need(ByteRange range) const;   // start reading ahead
  void sequential(ByteRange range) const;  // will be read once, from front to back
  void dont_need(
      ByteRange range) const;  // give the pages back: out of this process's RSS, they stay cached
  void evict(
      ByteRange range) const;  // dont_need(), and out of the page cache where nobody else maps them

  /// How many bytes of `range` lie in the page cache now (whole pages, cut to the range).
  std::size_t resident_bytes(ByteRange range) const;

 private:
  MappedFile(std::filesystem::path path, int descriptor, FileIdentity identity);
  [[noreturn]] void throw_lost() const;
  bool lost(ByteRange range) const;
  bool same_content(std::int64_t modified) const;
  std::optional<Digest> sample() const;

  std::filesystem::path path_;
  int descriptor_ = -1;
  FileIdentity identity_;
  std::optional<Digest> sample_;  // nothing where it could not be read
  // Of the states that are known to hold the content of open(), the last one's time.
  mutable std::atomic<std::int64_t> same_since_;
  mutable std::mutex mutex_;  // for whoever compares or mends
  const std::byte* data_ = nullptr;
  FaultWatch* watch_ = nullptr;  // what the SIGBUS handler knows of this mapping
};

/// Identity of an open file; for caches keyed by file content. Error(MissingFile) if the path leads
/// nowhere.
FileIdentity identity_of(const std::filesystem::path& path);

}  // namespace distorch::formats
