#include "distorch/server/body_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "distorch/base/error.h"

namespace distorch::server {

namespace fs = std::filesystem;

namespace {

Error failure(const char* doing) {
  auto kind = errno == ENOSPC || errno == EDQUOT ? ErrorKind::OutOfMemory : ErrorKind::Usage;
  return Error(kind, "body", fmt::format("cannot be {}: {}", doing, std::strerror(errno)));
}

/// -1 with errno where there can be none.
int open_nameless(const fs::path& folder) {
  int descriptor = ::open(folder.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
  if (descriptor >= 0) return descriptor;
  // File systems that know no nameless files: one whose name is taken away at once.
  auto name = (folder / ".body_XXXXXX").string();
  descriptor = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor >= 0) ::unlink(name.c_str());
  return descriptor;
}

}  // namespace

BodyFile::BodyFile(const fs::path& folder) {
  std::error_code ignored;
  if (!folder.empty()) {
    fs::create_directories(folder, ignored);
    descriptor_ = open_nameless(folder);
  }
  if (descriptor_ < 0) descriptor_ = open_nameless(fs::temp_directory_path(ignored));
  if (descriptor_ < 0) throw failure("kept on disk");
}

BodyFile::~BodyFile() {
  if (mapped_) ::munmap(mapped_, size_);
  ::close(descriptor_);
}

void BodyFile::append(std::string_view bytes) {
  while (!bytes.empty()) {
    auto count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw failure("kept on disk");
    bytes.remove_prefix(static_cast<std::size_t>(count));
    size_ += static_cast<std::size_t>(count);
  }
}

std::string_view BodyFile::bytes() const {
  if (size_ == 0) return {};
  if (!mapped_) {
    auto* place = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor_, 0);
    if (place == MAP_FAILED) throw failure("read back");
    mapped_ = place;
  }
  return {static_cast<const char*>(mapped_), size_};
}

}  // namespace distorch::server
