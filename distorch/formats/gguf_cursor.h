#pragma once
#include <cstring>
#include <string>
#include <vector>

#include "distorch/formats/gguf.h"

namespace distorch::formats {

/// Reads a GGUF header from front to back, a piece of the file at a time. Every read is checked
/// against the file's end: Error(Format) naming the file, what was being read and the byte.
class GgufCursor {
 public:
  GgufCursor(const ByteReader& read, std::size_t file_size, const std::string& where)
      : read_(read), file_size_(file_size), where_(where) {}

  std::size_t position() const { return at_; }
  std::size_t remaining() const { return file_size_ - at_; }

  /// A number of `what`, little-endian.
  template <class Number>
  Number number(const std::string& what) {
    Number value{};
    need(sizeof value, what);
    copy(&value, sizeof value);
    return value;
  }
  /// A length and so many bytes, at most `limit`.
  std::string text(const std::string& what, std::uint64_t limit);
  void skip(std::uint64_t bytes, const std::string& what);
  /// "FILE: WHAT SENTENCE (byte N)", N being where the thing began.
  [[noreturn]] void fail(const std::string& sentence, std::size_t at) const;

 private:
  void need(std::uint64_t bytes, const std::string& what) const;
  void copy(void* to, std::size_t bytes);

  const ByteReader& read_;
  std::size_t file_size_;
  const std::string& where_;
  std::size_t at_ = 0;
  std::vector<std::byte> piece_;  // of the file from piece_begin_ on
  std::size_t piece_begin_ = 0;
};

/// Bytes of one number; 0 for strings and arrays.
std::size_t size_of(GgufType type);

/// The value that stands at the cursor. `what` names it in messages.
GgufValue read_value(GgufCursor& cursor, const std::string& what);

}  // namespace distorch::formats
