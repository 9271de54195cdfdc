#pragma once
#include <string>
#include <string_view>

#include "distorch/device/cuda/nvrtc.h"
#include "distorch/quant/encoding.h"

namespace distorch::quant {

/// Numbers of 4 bits with a table of what they stand for and a largest magnitude for each block of
/// them: NF4 and FP4 as bitsandbytes saves them. Of a weight "layer.weight":
///   weight                                  U8, two numbers a byte in row order, the first in the
///                                           high half
///   weight.absmax                           float32, one a block; or U8, see below
///   weight.quant_map                        float32 [16]
///   weight.quant_state.bitsandbytes__nf4    JSON as bytes (or ...__fp4): what QuantState has
///   weight.nested_absmax, .nested_quant_map float32: where the magnitudes are numbers of 8 bits
/// number = quant_map[code] · absmax[block], absmax = nested_quant_map[byte] ·
/// nested_absmax[block / nested_block] + nested_offset, all in float32, then rounded to the type
/// that is asked for. Source: behaviour of bitsandbytes 0.4x, functional.py (QuantState) and its
/// dequantisation.
const Encoding& nf4();
const Encoding& fp4();

/// What "quant_state" says.
struct QuantState {
  std::vector<std::int64_t> shape;  // of the weight
  std::int64_t block = 64;          // numbers of a magnitude
  std::int64_t nested_block = 0;    // magnitudes of a nested one; 0: they are not nested
  double nested_offset = 0;

  std::int64_t numbers() const { return c10::multiply_integers(shape); }
  /// Whether rows can be cut: they are whole blocks.
  bool goes_by_rows() const;
};

/// Reads the JSON. Error(Format) that says what is wrong with it; `where` names file and weight.
QuantState read_quant_state(std::string_view json, const std::string& where);

/// Checks the parts' sizes (bytes of the weight; elements of absmax, quant_map, nested ones)
/// against the state. Error(Format).
struct FourBitSizes {
  std::int64_t bytes = 0, absmax = 0, map = 0, nested_absmax = 0, nested_map = 0;
};
void check_sizes(const QuantState& state, const FourBitSizes& sizes, const std::string& where);

/// The way of packing of a weight with this state, from block `first_block` on. Lives as long as the
/// process; has nf4()'s companions and name.
const Encoding& four_bit(const QuantState& state, std::int64_t first_block = 0);
/// Null for another encoding than those of four_bit().
const QuantState* state_of(const Encoding& encoding);

/// [2 · codes.numel()] in `dtype` (float32, float16 or bf16): map[code] · absmax[i / block], the
/// operator distorch::four_bit. codes U8, map float32 [16], absmax float32, all contiguous.
at::Tensor unpack_four_bit(const at::Tensor& codes, const at::Tensor& map, const at::Tensor& absmax,
                           std::int64_t block, at::ScalarType dtype);

/// The source of its kernel, compiled by device::cuda::define_of(dtype).
const device::cuda::KernelSource& four_bit_source();

}  // namespace distorch::quant
