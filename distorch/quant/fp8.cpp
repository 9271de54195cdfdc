#include "distorch/quant/fp8.h"

namespace distorch::quant {
namespace {

using formats::DType;

class Float8 final : public Encoding {
 public:
  Float8(const char* name, DType dtype) : name_(name), dtype_(dtype) {}

  std::string_view name() const override { return name_; }

  const std::vector<Companion>& companions() const override {
    static const std::vector<Companion> list = {
        {{"scale_weight", "weight_scale"}, true},
        {{"scale_input", "input_scale"}, true},
    };
    return list;
  }

  bool matches(DType dtype, const std::vector<bool>& present) const override {
    return dtype == dtype_ && present[0];
  }

  at::Tensor decode(const Packed& weight, at::ScalarType dtype) const override {
    auto values = weight.values.to(dtype).view(weight.shape);
    const auto& scale = weight.parts[0];
    if (!scale.defined()) return values;
    auto factor = scale.to(dtype);
    if (factor.numel() == 1) return values.mul_(factor.reshape(at::IntArrayRef{}));
    std::vector<std::int64_t> by_row(weight.shape.size(), 1);
    by_row[0] = weight.shape[0];
    return values.mul_(factor.view(by_row));
  }

 private:
  const char* name_;
  DType dtype_;
};

}  // namespace

const Encoding& float8_e4m3fn() {
  static const Float8 one("float8_e4m3fn", DType::F8_E4M3);
  return one;
}

const Encoding& float8_e5m2() {
  static const Float8 one("float8_e5m2", DType::F8_E5M2);
  return one;
}

}  // namespace distorch::quant
