#pragma once
#include <cstdint>
#include <vector>

namespace distorch::sampling {

/// Spreads an entropy number and a spawn key over seeds, as numpy.random.SeedSequence does
/// (O'Neill's seed_seq hash). Equal inputs give numpy's words on every platform.
class SeedSequence {
 public:
  SeedSequence(std::uint64_t entropy, const std::vector<std::uint64_t>& spawn_key, int pool_size);
  /// The first `words` words of the state.
  std::vector<std::uint32_t> generate(int words) const;

 private:
  std::vector<std::uint32_t> pool_;
};

}  // namespace distorch::sampling
