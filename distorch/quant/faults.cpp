#include "distorch/quant/faults.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace distorch::quant {

using formats::DType;

namespace {

std::int64_t elements(const FileTensor& tensor) { return c10::multiply_integers(tensor.shape); }

float number_at(const FileTensor& tensor, std::int64_t index) {
  const auto* at = tensor.bytes.data() + index * formats::bits_of(tensor.dtype) / 8;
  if (tensor.dtype == DType::F32) {
    float value = 0;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, at, sizeof bits);
  if (tensor.dtype == DType::F16) return c10::Half(bits, c10::Half::from_bits());
  return c10::BFloat16(bits, c10::BFloat16::from_bits());
}

}  // namespace

std::string wrong_dtype(const FileTensor& tensor, const std::vector<DType>& wanted) {
  if (!tensor.is_there()) return {};
  if (std::find(wanted.begin(), wanted.end(), tensor.dtype) != wanted.end()) return {};
  std::vector<std::string> names;
  for (auto dtype : wanted) names.emplace_back(formats::name_of(dtype));
  return fmt::format("has '{}' of type {}, where {} is needed", tensor.name,
                     formats::name_of(tensor.dtype), fmt::join(names, " or "));
}

std::string missing(const FileTensor& tensor) {
  return tensor.is_there() ? std::string() : fmt::format("has no '{}'", tensor.name);
}

std::string wrong_shape(const FileTensor& tensor, const std::vector<std::int64_t>& wanted) {
  if (!tensor.is_there() || tensor.shape == wanted) return {};
  return fmt::format("has '{}' of shape [{}], where [{}] is needed", tensor.name,
                     fmt::join(tensor.shape, ", "), fmt::join(wanted, ", "));
}

std::string wrong_scale(const FileTensor& scale, std::int64_t rows, bool by_row) {
  if (!scale.is_there()) return {};
  auto fault = wrong_dtype(scale, {DType::F32, DType::F16, DType::BF16});
  if (!fault.empty()) return fault;
  const auto count = elements(scale);
  const bool each = by_row && count == rows && !scale.shape.empty() && scale.shape[0] == rows;
  if (count != 1 && !each)
    return fmt::format("has '{}' of shape [{}], where one number{} is needed", scale.name,
                       fmt::join(scale.shape, ", "),
                       by_row ? fmt::format(" or [{}, 1]", rows) : "");
  for (std::int64_t i = 0; i < count; ++i) {
    const float value = number_at(scale, i);
    if (!std::isfinite(value) || value == 0)
      return fmt::format("has '{}' with the value {} at {}, which scales nothing", scale.name,
                         value, i);
  }
  return {};
}

std::string first_of(std::initializer_list<std::string> faults) {
  for (const auto& fault : faults)
    if (!fault.empty()) return fault;
  return {};
}

}  // namespace distorch::quant
