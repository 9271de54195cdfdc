#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace distorch {

/// BLAKE3 with a result of 256 bits, as its specification (C2SP, "BLAKE3") has it: a hash for
/// contents that strangers choose, by which clients address what a server holds. About 1 GB/s.
class Blake3 {
 public:
  Blake3();
  void update(std::string_view bytes);
  /// Of all bytes so far, as 64 lower-case hexadecimal digits. More may follow.
  std::string hex() const;

 private:
  using Chain = std::array<std::uint32_t, 8>;
  /// One call of the compression function that has not been made yet: whether it is the root is
  /// known only at the end.
  struct Node {
    Chain chain{};
    std::array<std::uint32_t, 16> words{};
    std::uint64_t counter = 0;
    std::uint32_t length = 0, flags = 0;
  };
  static Chain compress(const Node& node);
  static Node parent(const Chain& left, const Chain& right);
  Node chunk_so_far() const;
  void finish_chunk();
  void add_block();

  Chain chain_;                   // of the running chunk
  std::array<char, 64> block_{};  // of it, not compressed yet
  std::size_t in_block_ = 0;
  int blocks_ = 0;  // of the running chunk, compressed
  std::uint64_t chunks_ = 0;
  std::vector<Chain> left_;  // roots of the finished subtrees, the largest first
};

/// Of a whole file. Error(MissingFile) where it cannot be read.
std::string blake3_of_file(const std::filesystem::path& file);

}  // namespace distorch
