#pragma once
#include <cstddef>
#include <filesystem>
#include <string_view>

namespace distorch::server {

/// A large body on its way in, in a file without a name: nothing is left of it when this object
/// goes, or the process. Not for several threads.
class BodyFile {
 public:
  /// In this folder, which is made; where it cannot be written, in the system's temporary one.
  explicit BodyFile(const std::filesystem::path& folder);
  ~BodyFile();
  BodyFile(const BodyFile&) = delete;
  BodyFile& operator=(const BodyFile&) = delete;

  /// Error(OutOfMemory) where the disk is full.
  void append(std::string_view bytes);
  std::size_t size() const { return size_; }
  /// All of it, mapped: valid as long as this object, nothing is appended after the first call.
  std::string_view bytes() const;

 private:
  int descriptor_ = -1;
  std::size_t size_ = 0;
  mutable void* mapped_ = nullptr;
};

}  // namespace distorch::server
