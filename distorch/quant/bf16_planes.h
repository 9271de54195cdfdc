#pragma once
#include <cstdint>
#include <optional>

#include "distorch/quant/encoding.h"

namespace distorch::quant {

/// bf16 numbers without loss in about 12 bits each. The exponents of a weight's row are few: a row
/// keeps a table of its 16 most frequent ones and a code of 4 bits a number, and lists the numbers
/// whose exponent is another. Of a weight [rows, ...] with n numbers a row:
///   weight            U8 [rows, ...]            sign (bit 7) and mantissa (bits 0 to 6)
///   weight_codes      U8 [rows, (n + 1) / 2]    codes: number 2i in the low half of byte i
///   weight_exponents  U8 [rows, 16 + 4·E]       the table, then E entries of 4 bytes: the exponent,
///                                               the number's place in the row (24 bits, low first);
///                                               a place of n or more: unused
/// E, at most 65535, is the same for all rows, so that rows can be cut. Everything is little-endian.
const Encoding& bf16_planes();

/// Of one row: what every reader of the form has to agree on.
namespace planes {
inline constexpr std::int64_t kTable = 16;       // exponents of a row's table
inline constexpr std::int64_t kEscapeBytes = 4;  // of an entry
inline constexpr std::int64_t kMostNumbers = (std::int64_t{1} << 24) - 1;  // of a row
}  // namespace planes

/// Whether rows of so many numbers, none with more than so many escapes, become smaller by at least
/// a sixteenth.
bool is_worth_packing(std::int64_t numbers, std::int64_t escapes);
/// E for these rows (bf16, on the CPU): what the row with most escapes needs, a multiple of 4.
std::int64_t escapes_of(const at::Tensor& rows);
/// Rows of a weight (bf16, on the CPU) packed, with room for so many escapes each: at least what
/// escapes_of() says. Both work with all threads.
Packed pack_rows(const at::Tensor& rows, std::int64_t escapes);

/// A bf16 weight [rows, ...] (on the CPU) packed so. Nothing where that would not make
/// it smaller by at least a sixteenth: fewer than two dimensions, rows too short or too long, or
/// numbers whose exponents are spread as in random bytes. So what is written is never larger than
/// the plain tensor.
std::optional<Packed> pack_bf16(const at::Tensor& weight);

/// The numbers of planes, codes and exponents as above, in bf16 (or, with `wide`, float32), shaped
/// like `planes`: the operator distorch::bf16_planes. On CUDA one pass of a kernel of our own.
at::Tensor unpack_bf16(const at::Tensor& planes, const at::Tensor& codes,
                       const at::Tensor& exponents, bool wide);

/// The same by torch's operations, on any device: where there is no kernel.
at::Tensor unpack_bf16_by_torch(const at::Tensor& planes, const at::Tensor& codes,
                                const at::Tensor& exponents, bool wide);

}  // namespace distorch::quant
