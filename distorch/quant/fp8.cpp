#include "distorch/quant/fp8.h"

#include "distorch/quant/faults.h"
#include "distorch/quant/fp8_operators.h"

namespace distorch::quant {
namespace {

using formats::DType;

class Float8 final : public Encoding {
 public:
  Float8(const char* name, DType dtype, bool decoded = false)
      : name_(name), dtype_(dtype), decoded_(decoded) {}

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

  std::string marker() const override {
    if (!decoded_) return Encoding::marker();
    return R"({"format": "float8_e4m3fn", "full_precision_matrix_mult": true})";
  }

  std::string fault(const FileTensor& values,
                    const std::vector<FileTensor>& companions) const override {
    const auto rows = values.shape.empty() ? 1 : values.shape[0];
    return first_of({wrong_dtype(values, {dtype_}), wrong_scale(companions[0], rows, true),
                     wrong_scale(companions[1], rows, false)});
  }

  at::Tensor decode(const Packed& weight, at::ScalarType dtype) const override {
    const auto bytes = weight.values.view(at::kByte).view(weight.shape);
    return decode_float8(bytes, weight.parts[0], dtype_ == DType::F8_E5M2, dtype);
  }

  // Decoded they would give other products.
  bool rests_packed_for(at::Device compute) const override {
    return dtype_ == DType::F8_E4M3 && !decoded_ && has_products(compute);
  }

  const Encoding* decoded() const override {
    return dtype_ == DType::F8_E4M3 ? &float8_e4m3fn_decoded() : this;
  }

  at::Tensor product(const at::Tensor& x, const Packed& weight,
                     const at::Tensor& bias) const override {
    return decoded_ ? at::Tensor() : fast_linear(x, weight, bias);
  }

 private:
  const char* name_;
  DType dtype_;
  bool decoded_;  // never multiplied as it lies
};

}  // namespace

const Encoding& float8_e4m3fn() {
  static const Float8 one("float8_e4m3fn", DType::F8_E4M3);
  return one;
}

const Encoding& float8_e4m3fn_decoded() {
  static const Float8 one("float8_e4m3fn", DType::F8_E4M3, true);
  return one;
}

const Encoding& float8_e5m2() {
  static const Float8 one("float8_e5m2", DType::F8_E5M2);
  return one;
}

}  // namespace distorch::quant
