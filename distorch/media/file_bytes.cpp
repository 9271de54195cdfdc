#include "distorch/media/file_bytes.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"

namespace distorch::media {

namespace {

class FileBytes : public ffmpeg::ByteSource {
 public:
  explicit FileBytes(const std::filesystem::path& path) : path_(path.string()) {
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status {};
    if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0) {
      auto reason = std::strerror(errno);
      if (descriptor_ >= 0) ::close(descriptor_);
      throw Error(ErrorKind::MissingFile, path_, fmt::format("cannot be read: {}", reason));
    }
    size_ = status.st_size;
    if (S_ISREG(status.st_mode)) return;
    ::close(descriptor_);
    throw Error(ErrorKind::MissingFile, path_, "is no file");
  }
  ~FileBytes() override { ::close(descriptor_); }
  FileBytes(const FileBytes&) = delete;

  std::int64_t size() const override { return size_; }
  std::size_t read_at(std::int64_t offset, char* to, std::size_t count) override {
    throw_if_interrupted();
    std::size_t done = 0;
    while (done < count) {
      auto got =
          ::pread(descriptor_, to + done, count - done, offset + static_cast<std::int64_t>(done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0)
        throw Error(ErrorKind::Format, path_,
                    fmt::format("cannot be read: {}", std::strerror(errno)));
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    return done;
  }

 private:
  std::string path_;
  int descriptor_ = -1;
  std::int64_t size_ = 0;
};

}  // namespace

std::unique_ptr<ffmpeg::ByteSource> file_bytes(const std::filesystem::path& path) {
  return std::make_unique<FileBytes>(path);
}

}  // namespace distorch::media
