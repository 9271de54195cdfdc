#include "distorch/quant/codebook4.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/quant/faults.h"
#include "distorch/quant/int8.h"
#include "distorch/quant/nibbles.h"
#include "distorch/quant/rotation.h"
#include "distorch/quant/variants.h"

namespace distorch::quant {
namespace {

using at::Tensor;
using formats::DType;

struct Groups {
  int scaled = 16, rotated = 256;
  auto operator<=>(const Groups&) const = default;
};

class Codebook4 final : public Encoding {
 public:
  explicit Codebook4(const Groups& groups) : groups_(groups) {}

  std::string_view name() const override { return "asym_w4a8_int8"; }

  const std::vector<Companion>& companions() const override {
    static const std::vector<Companion> list = {{{"weight_s_rel"}, true},
                                                {{"weight_s_channel"}, true},
                                                {{"weight_codebook"}, true},
                                                {{"weight_correction"}, true}};
    return list;
  }

  bool matches(DType, const std::vector<bool>&) const override { return false; }

  std::string marker() const override {
    return fmt::format(
        R"({{"format": "asym_w4a8_int8", "group_size": {}, "convrot_groupsize": {}}})",
        groups_.scaled, groups_.rotated);
  }

  std::string fault(const FileTensor& values,
                    const std::vector<FileTensor>& companions) const override {
    constexpr int levels = 16, multiple = 16;
    auto own = wrong_dtype(values, {DType::I8, DType::U8});
    if (!own.empty()) return own;
    const auto width = values.shape.size() == 2 ? values.shape[1] * 2 : 0;
    if (width == 0 || width % groups_.rotated != 0 || width % groups_.scaled != 0 ||
        width % multiple != 0)
      return fmt::format(
          "has the shape [{}], where rows of groups of {} and of {} halves of bytes "
          "are needed",
          fmt::join(values.shape, ", "), groups_.scaled, groups_.rotated);
    const auto rows = values.shape[0];
    if (companions[3].is_there())
      return "has a 'weight_correction', which ComfyUI does not read either";
    return first_of(
        {missing(companions[0]),
         wrong_dtype(companions[0], {DType::F8_E4M3, DType::U8, DType::F32}),
         wrong_shape(companions[0], {rows, width / groups_.scaled}), missing(companions[1]),
         wrong_shape(companions[1], {rows}), wrong_scale(companions[1], rows, true),
         wrong_dtype(companions[2], {DType::F32}), wrong_shape(companions[2], {levels})});
  }

  std::vector<std::int64_t> shape_of(
      const std::vector<std::int64_t>& values,
      const std::vector<std::vector<std::int64_t>>& /*companions*/) const override {
    return nibble_shape(values);
  }

  std::optional<std::pair<std::int64_t, std::int64_t>> part_rows(
      std::size_t part, const std::vector<std::int64_t>& shape, std::int64_t all,
      std::int64_t first, std::int64_t count) const override {
    constexpr std::size_t codebook = 2;
    if (part == codebook) return {};
    return Encoding::part_rows(part, shape, all, first, count);
  }

  Tensor decode(const Packed& weight, at::ScalarType dtype) const override {
    auto values = whole_numbers(weight).to(at::kFloat);
    values.mul_(weight.parts[1].to(at::kFloat).reshape({-1, 1}));
    return rotated(values, groups_.rotated).to(dtype).view(weight.shape);
  }

  // Decoded they would give other products.
  bool rests_packed() const override { return true; }

  Tensor product(const Tensor& x, const Packed& weight, const Tensor& bias) const override {
    return int8_linear(
        x, {.values = whole_numbers(weight), .scale = weight.parts[1], .rotated = groups_.rotated},
        bias);
  }

 private:
  Tensor whole_numbers(const Packed& weight) const {
    auto scales = weight.parts[0];
    if (scales.scalar_type() == at::kByte) scales = scales.view(at::kFloat8_e4m3fn);
    auto levels = weight.parts[2];
    if (!levels.defined())
      levels = at::arange(-8, 8, at::TensorOptions().dtype(at::kFloat).device(scales.device()));
    return nibbles_by_table(weight.values, scales.to(at::kFloat), levels, groups_.scaled);
  }

  Groups groups_;
};

}  // namespace

const Encoding& asym_w4a8_int8(int group, int rotated) {
  static Variants<Codebook4, Groups> variants;
  return variants.of({group, rotated});
}

}  // namespace distorch::quant
