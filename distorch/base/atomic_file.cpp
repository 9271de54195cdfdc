#include "distorch/base/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "distorch/base/error.h"

namespace distorch {

namespace {

Error failure(const std::filesystem::path& path, const char* doing) {
  auto kind = errno == ENOSPC || errno == EDQUOT ? ErrorKind::OutOfMemory : ErrorKind::Usage;
  return Error(kind, path.string(), fmt::format("cannot {}: {}", doing, std::strerror(errno)));
}

std::string own_path(int descriptor) { return fmt::format("/proc/self/fd/{}", descriptor); }

// A file in the folder of `path` that has no name yet; -1 where it would never get one.
int open_nameless(const std::filesystem::path& path) {
  auto folder = path.parent_path();
  int descriptor =
      ::open(folder.empty() ? "." : folder.c_str(), O_WRONLY | O_TMPFILE | O_CLOEXEC, 0644);
  if (descriptor < 0 || ::access(own_path(descriptor).c_str(), F_OK) == 0) return descriptor;
  ::close(descriptor);
  return -1;
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  static std::atomic<int> counter{0};
  temporary_ = path_;
  temporary_.replace_filename(
      fmt::format(".{}.{}.{}.part", path_.filename().string(), ::getpid(), counter.fetch_add(1)));
  descriptor_ = open_nameless(path_);
  if (descriptor_ >= 0) return;
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw failure(path_, "write");
  has_temporary_ = true;
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (has_temporary_) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    auto count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw failure(path_, "write");
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

void AtomicFile::write_hole(std::int64_t bytes) {
  auto end = ::lseek(descriptor_, bytes, SEEK_CUR);
  if (end < 0 || ::ftruncate(descriptor_, end) != 0) throw failure(path_, "write");
}

void AtomicFile::write_at(std::int64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    auto count = ::pwrite(descriptor_, bytes.data(), bytes.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw failure(path_, "write");
    bytes.remove_prefix(static_cast<std::size_t>(count));
    offset += count;
  }
}

// Some file systems tell only when a descriptor is closed that there was no room.
void AtomicFile::flush() {
  int copy = ::dup(descriptor_);
  if (copy < 0 || ::close(copy) != 0) throw failure(path_, "finish");
}

// False where it is not done, with errno.
bool AtomicFile::link_as(const std::filesystem::path& name) {
  if (has_temporary_) return ::link(temporary_.c_str(), name.c_str()) == 0;
  return ::linkat(AT_FDCWD, own_path(descriptor_).c_str(), AT_FDCWD, name.c_str(),
                  AT_SYMLINK_FOLLOW) == 0;
}

void AtomicFile::rename_to(const std::filesystem::path& name) {
  if (::rename(temporary_.c_str(), name.c_str()) != 0) throw failure(name, "rename into place");
  has_temporary_ = false;
}

void AtomicFile::commit() {
  flush();
  if (!has_temporary_) {
    if (!link_as(temporary_)) throw failure(path_, "name");
    has_temporary_ = true;
  }
  rename_to(path_);
}

bool AtomicFile::commit_if_absent(const std::filesystem::path& name) {
  flush();
  if (!link_as(name)) {
    if (errno == EEXIST) return false;
    if (!has_temporary_) throw failure(name, "name");
    // File systems without hard links: fall back on a rename when nothing is there.
    if (std::filesystem::exists(name)) return false;
    rename_to(name);
  }
  path_ = name;
  return true;
}

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

std::string read_file(const std::filesystem::path& path, std::size_t limit_bytes) {
  std::error_code code;
  if (std::filesystem::is_directory(path, code))
    throw Error(ErrorKind::MissingFile, path.string(), "is a folder, not a file");
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in)
    throw Error(ErrorKind::MissingFile, path.string(),
                fmt::format("cannot be read: {}", std::strerror(errno)));
  auto size = static_cast<std::size_t>(in.tellg());
  if (size > limit_bytes)
    throw Error(ErrorKind::Format, path.string(),
                fmt::format("has {} bytes, more than the {} expected here", size, limit_bytes));
  std::string bytes(size, '\0');
  in.seekg(0);
  in.read(bytes.data(), static_cast<std::streamsize>(size));
  if (!in) throw Error(ErrorKind::Format, path.string(), "ended while it was read");
  return bytes;
}

}  // namespace distorch
