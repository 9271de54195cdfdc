#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace distorch::quant {

/// Whether inputs can be rotated in groups of so many: a power of 4, from 4 on.
bool is_rotation(std::int64_t group);

/// x [..., K] with each group of `group` numbers of the last dimension multiplied by the regular
/// Hadamard matrix of that size: the Kronecker power of [1 1 1 -1; 1 1 -1 1; 1 -1 1 1; -1 1 1 1] over
/// √group, which is symmetric and its own inverse. So a rotated weight times rotated inputs is the
/// weight times the inputs, and rotating twice is doing nothing. Float32, in steps of pairs of bits
/// (2 · log2(group) additions a number).
/// Source: ConvRot; ComfyUI's package comfy-kitchen, tensor/int8_utils.py.
at::Tensor rotated(const at::Tensor& x, std::int64_t group);

/// The matrix itself, [group, group] float32 on the CPU.
at::Tensor rotation_matrix(std::int64_t group);

}  // namespace distorch::quant
