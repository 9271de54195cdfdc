#include "distorch/quant/signed4.h"

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

class Signed4 final : public Encoding {
 public:
  explicit Signed4(int group) : group_(group) {}

  std::string_view name() const override { return "convrot_w4a4"; }

  const std::vector<Companion>& companions() const override {
    static const std::vector<Companion> list = {{{"weight_scale"}, true}};
    return list;
  }

  bool matches(DType, const std::vector<bool>&) const override { return false; }

  std::string marker() const override {
    return fmt::format(R"({{"format": "convrot_w4a4", "convrot_groupsize": {}}})", group_);
  }

  std::string fault(const FileTensor& values,
                    const std::vector<FileTensor>& companions) const override {
    auto own = wrong_dtype(values, {DType::I8, DType::U8});
    if (!own.empty()) return own;
    if (values.shape.size() != 2 || values.shape[1] * 2 % group_ != 0)
      return fmt::format(
          "has the shape [{}], where rows of groups of {} halves of bytes are needed",
          fmt::join(values.shape, ", "), group_);
    return first_of({missing(companions[0]), wrong_scale(companions[0], values.shape[0], true)});
  }

  std::vector<std::int64_t> shape_of(
      const std::vector<std::int64_t>& values,
      const std::vector<std::vector<std::int64_t>>& /*companions*/) const override {
    return nibble_shape(values);
  }

  Tensor decode(const Packed& weight, at::ScalarType dtype) const override {
    auto values = signed_nibbles(weight.values).to(at::kFloat);
    values.mul_(weight.parts[0].to(at::kFloat).reshape({-1, 1}));
    return rotated(values, group_).to(dtype).view(weight.shape);
  }

  // Decoded they would give other products.
  bool rests_packed() const override { return true; }

  Tensor product(const Tensor& x, const Packed& weight, const Tensor& bias) const override {
    return int8_linear(x,
                       {.values = signed_nibbles(weight.values),
                        .scale = weight.parts[0],
                        .rotated = group_,
                        .levels = kFourBits},
                       bias);
  }

 private:
  int group_;
};

}  // namespace

const Encoding& convrot_w4a4(int group) {
  static Variants<Signed4, int> variants;
  return variants.of(group);
}

}  // namespace distorch::quant
