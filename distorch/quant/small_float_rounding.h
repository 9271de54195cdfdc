#pragma once
#include <cstdint>

// Rounding float32 to floating-point numbers of eight and four bits, halves to even, on the CPU:
// Highway, in this thread; knows nothing of torch.
namespace distorch::quant::kernels {

/// x / scale as float8_e4m3fn; what is beyond 448 becomes 448, NaN stays NaN.
void to_e4m3(const float* x, std::uint8_t* to, std::int64_t size, float scale);

/// nvfp4: of each 16 numbers a scale (e4m3, of their largest magnitude over 6 and `whole`) and eight
/// bytes of codes, the first of two numbers in the upper half. `size` is whole 16s.
struct Nvfp4Job {
  const float* from = nullptr;
  std::uint8_t *values = nullptr, *scales = nullptr;
  std::int64_t size = 0;
  float whole = 1;
};
void to_nvfp4(const Nvfp4Job& job);

}  // namespace distorch::quant::kernels
