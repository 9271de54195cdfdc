#include "distorch/base/blake3.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <fstream>

#include "distorch/base/error.h"

namespace distorch {

namespace {

constexpr std::size_t kBlock = 64;
constexpr int kBlocksInChunk = 16;
constexpr std::uint32_t kChunkStart = 1, kChunkEnd = 2, kParent = 4, kRoot = 8;

constexpr std::array<std::uint32_t, 8> kStart = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                                                 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};
/// Which word of a round becomes which of the next one.
constexpr std::array<int, 16> kOrder = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};
constexpr int kRounds = 7;

/// The words of every round, by their place in the block.
constexpr auto kSchedule = [] {
  std::array<std::array<int, 16>, kRounds> schedule{};
  for (int i = 0; i < 16; ++i) schedule[0][i] = i;
  for (int round = 1; round < kRounds; ++round)
    for (int i = 0; i < 16; ++i) schedule[round][i] = schedule[round - 1][kOrder[i]];
  return schedule;
}();

inline void mix(std::uint32_t& a, std::uint32_t& b, std::uint32_t& c, std::uint32_t& d,
                std::uint32_t x, std::uint32_t y) {
  a += b + x;
  d = std::rotr(d ^ a, 16);
  c += d;
  b = std::rotr(b ^ c, 12);
  a += b + y;
  d = std::rotr(d ^ a, 8);
  c += d;
  b = std::rotr(b ^ c, 7);
}

std::array<std::uint32_t, 16> words_of(const char* bytes) {
  std::array<std::uint32_t, 16> words{};
  for (std::size_t i = 0; i < kBlock; ++i)
    words[i / 4] |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[i]))
                    << (8 * (i % 4));
  return words;
}

}  // namespace

Blake3::Blake3() : chain_(kStart) {}

Blake3::Chain Blake3::compress(const Node& node) {
  std::array<std::uint32_t, 16> v{};
  std::copy(node.chain.begin(), node.chain.end(), v.begin());
  std::copy(kStart.begin(), kStart.begin() + 4, v.begin() + 8);
  v[12] = static_cast<std::uint32_t>(node.counter);
  v[13] = static_cast<std::uint32_t>(node.counter >> 32);
  v[14] = node.length;
  v[15] = node.flags;
  for (const auto& s : kSchedule) {
    const auto& m = node.words;
    mix(v[0], v[4], v[8], v[12], m[s[0]], m[s[1]]);
    mix(v[1], v[5], v[9], v[13], m[s[2]], m[s[3]]);
    mix(v[2], v[6], v[10], v[14], m[s[4]], m[s[5]]);
    mix(v[3], v[7], v[11], v[15], m[s[6]], m[s[7]]);
    mix(v[0], v[5], v[10], v[15], m[s[8]], m[s[9]]);
    mix(v[1], v[6], v[11], v[12], m[s[10]], m[s[11]]);
    mix(v[2], v[7], v[8], v[13], m[s[12]], m[s[13]]);
    mix(v[3], v[4], v[9], v[14], m[s[14]], m[s[15]]);
  }
  Chain result;
  for (int i = 0; i < 8; ++i) result[i] = v[i] ^ v[i + 8];
  return result;
}

Blake3::Node Blake3::parent(const Chain& left, const Chain& right) {
  Node node{kStart, {}, 0, kBlock, kParent};
  std::copy(left.begin(), left.end(), node.words.begin());
  std::copy(right.begin(), right.end(), node.words.begin() + 8);
  return node;
}

/// Its last block, of which there always is one: an empty input has an empty one.
Blake3::Node Blake3::chunk_so_far() const {
  return {chain_, words_of(block_.data()), chunks_, static_cast<std::uint32_t>(in_block_),
          kChunkEnd | (blocks_ == 0 ? kChunkStart : 0)};
}

/// More bytes follow the full block, so it is not the last one.
void Blake3::add_block() {
  if (blocks_ + 1 == kBlocksInChunk) return finish_chunk();
  chain_ =
      compress({chain_, words_of(block_.data()), chunks_, kBlock, blocks_ == 0 ? kChunkStart : 0});
  ++blocks_;
  block_.fill(0);
  in_block_ = 0;
}

/// More bytes follow the full chunk: every subtree that it completes is not the root.
void Blake3::finish_chunk() {
  auto chain = compress(chunk_so_far());
  ++chunks_;
  for (auto count = chunks_; (count & 1) == 0; count >>= 1) {
    chain = compress(parent(left_.back(), chain));
    left_.pop_back();
  }
  left_.push_back(chain);
  chain_ = kStart;
  blocks_ = 0;
  block_.fill(0);
  in_block_ = 0;
}

void Blake3::update(std::string_view bytes) {
  while (!bytes.empty()) {
    if (in_block_ == kBlock) add_block();
    const auto taken = std::min(kBlock - in_block_, bytes.size());
    std::copy_n(bytes.data(), taken, block_.data() + in_block_);
    in_block_ += taken;
    bytes.remove_prefix(taken);
  }
}

std::string Blake3::hex() const {
  auto node = chunk_so_far();
  for (auto left = left_.rbegin(); left != left_.rend(); ++left)
    node = parent(*left, compress(node));
  node.flags |= kRoot;
  std::string text;
  for (auto word : compress(node))
    for (int shift = 0; shift < 32; shift += 8) text += fmt::format("{:02x}", word >> shift & 255);
  return text;
}

std::string blake3_of_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  Blake3 hash;
  std::string piece(std::size_t{1} << 20, '\0');
  while (in) {
    in.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    hash.update({piece.data(), static_cast<std::size_t>(in.gcount())});
  }
  if (!in.eof() || in.bad()) throw Error(ErrorKind::MissingFile, file.string(), "cannot be read");
  return hash.hex();
}

}  // namespace distorch
