#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace distorch::quant {

/// `value` (any float type) as 8-bit numbers of `dtype` (Float8_e4m3fn or Float8_e5m2), rounded up or
/// down by chance, the nearer the likelier, so that on average nothing is lost; what is too large
/// becomes the largest number. On the CPU the same seed gives the same numbers as ComfyUI's.
/// Source: ComfyUI comfy/float.py, stochastic_rounding.
at::Tensor round_by_chance(const at::Tensor& value, at::ScalarType dtype, std::uint64_t seed);

/// The CRC-32 of a text: the seed that ComfyUI takes for a weight of that name.
std::uint32_t crc32_of(const std::string& text);

}  // namespace distorch::quant
