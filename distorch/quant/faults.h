#pragma once
#include <string>

#include "distorch/quant/encoding.h"

// What Encoding::fault() is made of. Each returns the end of a sentence about the weight, empty
// where nothing is wrong; a tensor that is not there has only the fault of being missing().
namespace distorch::quant {

/// The elements of the tensor are of one of these types.
std::string wrong_dtype(const FileTensor& tensor, const std::vector<formats::DType>& wanted);
/// "has no 'weight_scale'" where it is not there.
std::string missing(const FileTensor& tensor);
std::string wrong_shape(const FileTensor& tensor, const std::vector<std::int64_t>& wanted);
/// A scale in float32, float16 or bfloat16: one for all rows ([] or all of its sizes 1) or, with
/// `by_row`, one for each ([rows] or [rows, 1, ...]); every one a number other than zero.
std::string wrong_scale(const FileTensor& scale, std::int64_t rows, bool by_row);
/// The first of the sentences that is not empty.
std::string first_of(std::initializer_list<std::string> faults);

}  // namespace distorch::quant
