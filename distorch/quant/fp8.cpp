#include "distorch/quant/fp8.h"

#include <map>
#include <mutex>

#include "distorch/quant/faults.h"

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
  bool decoded_;  // never multiplied as it lies
};

}  // namespace

const Encoding& float8_e4m3fn() {
  static const Float8 one("float8_e4m3fn", DType::F8_E4M3);
  return one;
}

bool has_products(at::Device device) {
  if (!device.is_cuda()) return false;
  static std::mutex mutex;
  static std::map<int, bool> known;
  std::lock_guard lock(mutex);
  auto [at, is_new] = known.emplace(device.index(), false);
  if (!is_new) return at->second;
  try {
    auto ones = at::ones({16, 16}, at::TensorOptions().device(device)).to(at::kFloat8_e4m3fn);
    auto scale = at::ones({}, at::TensorOptions().device(device).dtype(at::kFloat));
    at::_scaled_mm(ones, ones.t(), scale, scale, {}, {}, at::kBFloat16);
    at->second = true;
  } catch (const c10::Error&) {
    // A card from before such products: weights are cast.
  }
  return at->second;
}

at::Tensor fast_linear(const at::Tensor& x, const Packed& weight, const at::Tensor& bias) {
  constexpr std::int64_t multiple = 16;
  constexpr double largest = 448;
  const auto dtype = x.scalar_type();
  const bool half = dtype == at::kHalf || dtype == at::kBFloat16;
  const auto& w = weight.values;
  if (!half || weight.encoding != &float8_e4m3fn() || w.scalar_type() != at::kFloat8_e4m3fn ||
      w.dim() != 2 || w.size(0) % multiple != 0 || w.size(1) % multiple != 0 ||
      !has_products(x.device()))
    return {};
  auto one = [&] { return at::ones({}, at::TensorOptions().device(x.device()).dtype(at::kFloat)); };
  auto scale = weight.parts.empty() || !weight.parts[0].defined() ? one() : weight.parts[0];
  if (scale.numel() != 1) return {};
  auto input_scale = weight.parts.size() > 1 ? weight.parts[1] : at::Tensor();
  auto rows = x.reshape({-1, w.size(1)});
  auto packed = input_scale.defined()
                    ? (rows * input_scale.reciprocal().to(dtype)).to(at::kFloat8_e4m3fn)
                    : rows.clamp(-largest, largest).to(at::kFloat8_e4m3fn);
  if (!input_scale.defined()) input_scale = one();
  std::optional<at::Tensor> added;
  if (bias.defined()) added = bias.to(dtype);
  auto as_number = [](const at::Tensor& t) { return t.to(at::kFloat).reshape(at::IntArrayRef{}); };
  auto y = at::_scaled_mm(packed.contiguous(), w.t(), as_number(input_scale), as_number(scale),
                          added, {}, dtype);
  auto sizes = x.sizes().vec();
  sizes.back() = w.size(0);
  return y.view(sizes);
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
