#include "distorch/base/hash.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <array>
#include <cstring>
#include <random>

namespace distorch {

namespace {

using Secret = std::array<char, 192>;  // as long as XXH3's own

const Secret& process_secret() {
  static const Secret secret = [] {
    Secret drawn;
    std::random_device random;
    for (std::size_t at = 0; at < drawn.size(); at += sizeof(unsigned)) {
      unsigned word = random();
      std::memcpy(drawn.data() + at, &word, sizeof word);
    }
    return drawn;
  }();
  return secret;
}

}  // namespace

Digest digest(std::string_view bytes, std::uint64_t seed) {
  auto hash = XXH3_128bits_withSeed(bytes.data(), bytes.size(), seed);
  return {hash.high64, hash.low64};
}

Digest keyed_digest(std::string_view bytes) {
  const auto& secret = process_secret();
  auto hash = XXH3_128bits_withSecret(bytes.data(), bytes.size(), secret.data(), secret.size());
  return {hash.high64, hash.low64};
}

std::string hex(const Digest& digest) {
  return fmt::format("{:016x}{:016x}", digest.high, digest.low);
}

}  // namespace distorch
