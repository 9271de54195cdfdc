#pragma once
#include <cstdint>

namespace distorch {

/// What mapped files are read, locked and given back by, on the machines that distorch runs on.
constexpr std::int64_t kPageBytes = 4096;

constexpr std::int64_t align_down(std::int64_t value, std::int64_t to) { return value / to * to; }
/// The next multiple of `to` that is no less than `value`, which is not negative.
constexpr std::int64_t align_up(std::int64_t value, std::int64_t to) {
  return align_down(value + to - 1, to);
}

}  // namespace distorch
