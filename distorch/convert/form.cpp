#include "distorch/convert/form.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/convert/blocks.h"
#include "distorch/convert/encoders.h"

namespace distorch::convert {

using at::Tensor;
using formats::DType;

bool Source::is_float() const {
  if (stored.encoding) return true;
  switch (stored.dtype) {
    case DType::F16:
    case DType::BF16:
    case DType::F32:
    case DType::F64:
    case DType::F8_E4M3:
    case DType::F8_E5M2: return true;
    default: return false;
  }
}

std::int64_t Source::numbers_of_a_row() const {
  return rows() == 0 ? 0 : c10::multiply_integers(stored.shape) / rows();
}

at::ScalarType torch_type(DType dtype) {
  weights::Stored stored;
  stored.dtype = dtype;
  return weights::to_torch(stored);
}

namespace {

/// Numbers of another type, or of the same.
class Plain final : public Encoder {
 public:
  Plain(const Source& source, DType dtype)
      : tensor_{source.name, dtype, source.stored.shape, {}}, from_(source.stored.dtype) {}

  at::ScalarType reads() const override { return torch_type(tensor_.dtype); }
  std::vector<NewTensor> outputs() const override { return {tensor_}; }

  std::vector<Tensor> encode(const Tensor& piece, std::int64_t first) override {
    const bool narrower = tensor_.dtype == DType::F16 && from_ != DType::F16;
    if (narrower && !warned_ && at::isinf(piece).any().item<bool>()) {
      log::warn("'{}' has numbers beyond those of float16, which become infinite", tensor_.name);
      warned_ = true;
    }
    return {piece};
  }

 private:
  NewTensor tensor_;
  DType from_;
  bool warned_ = false;
};

std::unique_ptr<Encoder> to_bf16(const Source& source) {
  return plain_encoder(source, DType::BF16);
}
std::unique_ptr<Encoder> to_f16(const Source& source) { return plain_encoder(source, DType::F16); }
std::unique_ptr<Encoder> to_f32(const Source& source) { return plain_encoder(source, DType::F32); }

}  // namespace

std::unique_ptr<Encoder> plain_encoder(const Source& source, DType dtype) {
  return std::make_unique<Plain>(source, dtype);
}

const std::vector<Form>& forms() {
  static const std::vector<Form> list = [] {
    std::vector<Form> all = {
        {"bf16", "16 bits: the range of float32", true, false, to_bf16},
        {"f16", "16 bits: half precision", true, false, to_f16},
        {"f32", "32 bits", true, false, to_f32},
        {"packed", "bf16 without loss in about 12 bits (others stay as they are)", false, false,
         packed_encoder},
        {"fp8_scaled", "8-bit floating point (e4m3) with a scale a matrix", false, false,
         fp8_encoder},
        {"int8", "8 bits with a scale a row, rotated (ConvRot)", false, false, int8_encoder},
        {"nvfp4", "4-bit floating point with a scale a 16", false, false, nvfp4_encoder},
    };
    for (const auto& type : block_types())
      if (type.pack)
        all.push_back({type.name, fmt::format("GGUF, {:.4g} bits", 8.0 * type.bytes / type.numbers),
                       false, true, [name = type.name](const Source& source) {
                         return block_encoder(source, name);
                       }});
    return all;
  }();
  return list;
}

const Form& form_named(const std::string& name) {
  std::vector<std::string_view> names;
  for (const auto& form : forms()) {
    if (form.name == name) return form;
    names.push_back(form.name);
  }
  throw Error(ErrorKind::Usage, name,
              fmt::format("is no type of weights; there are {}", fmt::join(names, ", ")));
}

Tensor read_rows(const Source& source, std::int64_t first, std::int64_t count,
                 at::ScalarType dtype) {
  const auto& stored = source.stored;
  if (!stored.encoding) {
    auto whole = weights::mapped_tensor(stored);
    if (whole.dim() == 0) whole = whole.view({1});
    return whole.narrow(0, first, count).to(dtype);
  }
  std::vector<Tensor> tensors;
  for (const auto& part : weights::tensors_of(stored)) tensors.push_back(mapped_tensor(part));
  auto packed = weights::packed_from(stored, tensors.data());
  if (first > 0 || count < source.rows()) packed = packed.rows(first, count);
  return quant::decode(packed, dtype);
}

}  // namespace distorch::convert
