#pragma once
#include <cstdint>

// Loops over rows of numbers in the machine's widest vectors (Highway, chosen at run time).
namespace distorch::quant::kernels {

/// Multiplies each group of `group` (a power of 4) of x[0 .. size) by the matrix of rotation.h.
void rotate(float* x, std::int64_t size, std::int64_t group);

/// The largest magnitude of x[0 .. size); NaN where one of them is no finite number.
float largest_magnitude(const float* x, std::int64_t size);

/// to[i] = x[i] / scale rounded half to even, not below `least` nor above `most`.
void to_whole(const float* x, std::int8_t* to, std::int64_t size, float scale, int least, int most);

/// to[i] = sums[i] · (row · scales[i]) + bias[i]; `scales` one number where `one_scale`, `bias` null
/// for none.
void scaled(const std::int32_t* sums, float* to, std::int64_t size, float row, const float* scales,
            bool one_scale, const float* bias);

}  // namespace distorch::quant::kernels
