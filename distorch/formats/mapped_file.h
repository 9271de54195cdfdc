#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

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
/// A file that is cut short while it is mapped would normally kill the process (SIGBUS) at the next
/// touch. Here:
///  * read() and probe() throw Error(Format) with the file's name;
///  * bytes used in place (arithmetic straight from bytes()) read as zeros from the first lost page
///  on, and the next
///    check() throws. So: compute in place, then check(), before a result is believed.
/// The first open() installs a process-wide SIGBUS handler; faults outside of our mappings go to
/// the handler before it.
///
/// A file *replaced* by rename keeps its old content here for as long as this object lives; open()
/// of the same path then gives a new mapping. check() does not mind that, is_current() tells it.
///
/// All const functions may be called from several threads at once.
class MappedFile {
 public:
  /// Maps a file. The same file (device, inode, size, time) opened twice while the first is alive
  /// is mapped once. Errors: Error(MissingFile) if it is not there or not readable, Error(Format)
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

  /// Copies [offset, offset + to.size()) out of the mapping. Error(Format) if the bytes are no
  /// longer there.
  void read(std::size_t offset, std::span<std::byte> to) const;

  /// Makes every page of `range` present, so that reading it now costs no disk. Error(Format) where
  /// a page is lost.
  void probe(ByteRange range) const;

  /// Error(Format) "was truncated or replaced while in use" if the file's size or time changed
  /// since open(), or if a page was lost meanwhile. Costs one system call.
  void check() const;
  /// check() as a question.
  bool unchanged() const;
  /// Whether path() still leads to this very file and state; false after a rename over it or its
  /// removal.
  bool is_current() const;

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
  [[noreturn]] void throw_changed() const;

  std::filesystem::path path_;
  int descriptor_ = -1;
  FileIdentity identity_;
  const std::byte* data_ = nullptr;
  FaultWatch* watch_ = nullptr;  // what the SIGBUS handler knows of this mapping
};

/// Identity of an open file; for caches keyed by file content. Error(MissingFile) if the path leads
/// nowhere.
FileIdentity identity_of(const std::filesystem::path& path);

}  // namespace distorch::formats
