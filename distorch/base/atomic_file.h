#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string_view>

namespace distorch {

/// A file that appears under its name only when it is complete: written without a name, so that
/// nothing is left of it where the process is killed, flushed, then named. Where the file system
/// knows no nameless files it has a temporary name beside its own, ".<name>.<process>.<n>.part".
/// Without commit() what was written goes with this object.
/// Errors: Error(OutOfMemory) where the disk is full, Error(Usage) where the folder cannot be
/// written.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view bytes);
  /// So many zeros, which take no room where the file system can keep holes.
  void write_hole(std::int64_t bytes);
  /// Writes at a place of the file, which grows as needed; write() goes on where it was.
  void write_at(std::int64_t offset, std::string_view bytes);
  /// Replaces a file of that name.
  void commit();
  /// Gives the file its name only if no other file has it; false (and still uncommitted) otherwise.
  bool commit_if_absent(const std::filesystem::path& name);
  const std::filesystem::path& path() const { return path_; }

 private:
  void flush();
  bool link_as(const std::filesystem::path& name);
  void rename_to(const std::filesystem::path& name);

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  bool has_temporary_ = false;
  int descriptor_ = -1;
};

/// Writes `bytes` to `path` through an AtomicFile.
void write_file(const std::filesystem::path& path, std::string_view bytes);

/// The whole content of a file. Error(MissingFile) when it cannot be read; Error(Format) above
/// `limit_bytes`.
std::string read_file(const std::filesystem::path& path,
                      std::size_t limit_bytes = std::size_t{1} << 31);

}  // namespace distorch
