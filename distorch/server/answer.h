#pragma once
#include <cstdint>
#include <string>

#include "distorch/server/http.h"

namespace distorch::server {

/// An open file, closed with the last owner. Move-only.
class OpenFile {
 public:
  OpenFile() = default;
  explicit OpenFile(int descriptor) : descriptor_(descriptor) {}
  OpenFile(OpenFile&& other) noexcept : descriptor_(other.descriptor_) { other.descriptor_ = -1; }
  OpenFile& operator=(OpenFile&& other) noexcept;
  ~OpenFile();

  explicit operator bool() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }
  /// Fills `buffer` from byte `offset`. False where the file has become shorter or cannot be read.
  bool read(std::uint64_t offset, char* buffer, std::size_t bytes) const;

 private:
  int descriptor_ = -1;
};

/// What is written to a connection: `head`, then either `body`, `length` bytes of `file`, or what
/// `stream` gives, in chunks (chunked()).
struct Answer {
  /// Status line and headers, ends with the empty line.
  std::string head;
  std::string body;
  OpenFile file;
  std::shared_ptr<BodyStream> stream;
  /// In bytes.
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  bool keep_alive = true;
};

struct AnswerOptions {
  bool keep_alive = true;
  /// Bodies that a handler made are compressed (level 1) where the client takes it: worth its time
  /// over a network, not on one machine.
  bool compress = false;
};

/// Puts an answer in the form of the wire: Date, Content-Length, ETag of files (from time and
/// size) and of answers that bring their own, 304 for If-None-Match, one range (206, 416; several
/// ranges are answered with the whole), gzip, no body for HEAD. A file that is not there or is no
/// regular file gives 404. Line breaks in headers are left out.
Answer make_answer(const Request& request, Response response, const AnswerOptions& options = {});

/// A piece of a body of unknown length as it goes over the wire, with the end of the body where it
/// is the last one.
std::string chunked(const std::string& text, bool ended);

}  // namespace distorch::server
