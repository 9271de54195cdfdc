#include "distorch/sampling/seed_sequence.h"

namespace distorch::sampling {
namespace {

// The constants of O'Neill's randutils seed_seq, as numpy uses them.
constexpr std::uint32_t kInitA = 0x43b0d7e5U;
constexpr std::uint32_t kMultA = 0x931e8875U;
constexpr std::uint32_t kInitB = 0x8b51f9ddU;
constexpr std::uint32_t kMultB = 0x58f38dedU;
constexpr std::uint32_t kMixLeft = 0xca01f9ddU;
constexpr std::uint32_t kMixRight = 0x4973f715U;

constexpr std::uint32_t fold(std::uint32_t value) { return value ^ (value >> 16); }

// A hash whose constant moves on with every word it has seen.
class RunningHash {
 public:
  RunningHash(std::uint32_t start, std::uint32_t factor) : constant_(start), factor_(factor) {}
  std::uint32_t operator()(std::uint32_t word) {
    word ^= constant_;
    constant_ *= factor_;
    return fold(word * constant_);
  }

 private:
  std::uint32_t constant_;
  std::uint32_t factor_;
};

std::uint32_t mix(std::uint32_t left, std::uint32_t right) {
  return fold(kMixLeft * left - kMixRight * right);
}

// Little-endian 32-bit words without leading zeros; 0 is one word.
void append_words(std::uint64_t number, std::vector<std::uint32_t>& words) {
  do {
    words.push_back(static_cast<std::uint32_t>(number));
    number >>= 32;
  } while (number != 0);
}

}  // namespace

SeedSequence::SeedSequence(std::uint64_t entropy, const std::vector<std::uint64_t>& spawn_key,
                           int pool_size)
    : pool_(static_cast<std::size_t>(pool_size)) {
  std::vector<std::uint32_t> words;
  append_words(entropy, words);
  if (!spawn_key.empty() && words.size() < pool_.size()) {
    words.resize(pool_.size(), 0);  // a spawned sequence must not equal one of longer entropy
  }
  for (std::uint64_t key : spawn_key) {
    append_words(key, words);
  }
  RunningHash hash(kInitA, kMultA);
  for (std::size_t i = 0; i < pool_.size(); ++i) {
    pool_[i] = hash(i < words.size() ? words[i] : 0);
  }
  for (std::size_t from = 0; from < pool_.size(); ++from) {
    for (std::size_t to = 0; to < pool_.size(); ++to) {
      if (from != to) {
        pool_[to] = mix(pool_[to], hash(pool_[from]));
      }
    }
  }
  for (std::size_t from = pool_.size(); from < words.size(); ++from) {
    for (std::uint32_t& to : pool_) {
      to = mix(to, hash(words[from]));
    }
  }
}

std::vector<std::uint32_t> SeedSequence::generate(int words) const {
  RunningHash hash(kInitB, kMultB);
  std::vector<std::uint32_t> out;
  for (int i = 0; i < words; ++i) {
    out.push_back(hash(pool_[static_cast<std::size_t>(i) % pool_.size()]));
  }
  return out;
}

}  // namespace distorch::sampling
