#include "distorch/convert/encoders.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "distorch/base/error.h"
#include "distorch/quant/bf16_planes.h"
#include "distorch/quant/fp8.h"
#include "distorch/quant/quantize.h"

namespace distorch::convert {

using at::Tensor;
using formats::DType;

std::string beside(const std::string& weight, const std::string& ending) {
  return weight.substr(0, weight.rfind('.') + 1) + ending;
}

NewTensor marker_of(const std::string& weight, const std::string& text) {
  return {beside(weight, "comfy_quant"), DType::U8, {static_cast<std::int64_t>(text.size())}, {}};
}

Tensor bytes_of(const std::string& text) {
  auto bytes = at::empty({static_cast<std::int64_t>(text.size())}, at::kByte);
  std::memcpy(bytes.mutable_data_ptr(), text.data(), text.size());
  return bytes;
}

at::ScalarType reads_floats(const Source& source) {
  const auto& stored = source.stored;
  return !stored.encoding && stored.dtype == DType::BF16 ? at::kBFloat16 : at::kFloat;
}

void check_finite(const Source& source, bool finite, const std::string& type) {
  if (finite) return;
  throw Error(ErrorKind::Format, source.stored.file->path().string(),
              fmt::format("'{0}' has numbers that {1} cannot hold (NaN, infinite or too large); "
                          "--keep '{0}=keep' leaves it as it is",
                          source.name, type));
}

namespace {

class PackedPlanes final : public Encoder {
 public:
  explicit PackedPlanes(const Source& source)
      : source_(source), numbers_(source.numbers_of_a_row()) {}

  at::ScalarType reads() const override { return at::kBFloat16; }
  bool looks() const override { return true; }
  void look(const Tensor& piece) override {
    looked_ = true;
    if (quant::is_worth_packing(numbers_, escapes_))
      escapes_ = std::max(escapes_, quant::escapes_of(piece));
  }

  std::vector<NewTensor> outputs() const override {
    const auto& shape = source_.stored.shape;
    if (looked_ && !quant::is_worth_packing(numbers_, escapes_))
      return {{source_.name, DType::BF16, shape, {}}};
    const auto rows = source_.rows();
    // No row is worth packing whose escapes take more than its codes.
    const auto entries = looked_ ? escapes_ : numbers_ / 2;
    return {{source_.name, DType::U8, shape, {}},
            {beside(source_.name, "weight_codes"), DType::U8, {rows, (numbers_ + 1) / 2}, {}},
            {beside(source_.name, "weight_exponents"),
             DType::U8,
             {rows, quant::planes::kTable + quant::planes::kEscapeBytes * entries},
             {}},
            marker_of(source_.name, text_)};
  }

  std::vector<Tensor> encode(const Tensor& piece, std::int64_t first) override {
    if (!quant::is_worth_packing(numbers_, escapes_)) return {piece};
    auto packed = quant::pack_rows(piece, escapes_);
    return {packed.values, packed.parts[0], packed.parts[1],
            first == 0 ? bytes_of(text_) : Tensor()};
  }

 private:
  const std::string text_ = R"({"format": "bf16_planes"})";
  Source source_;
  std::int64_t numbers_, escapes_ = 0;
  bool looked_ = false;
};

class ScaledFloat8 final : public Encoder {
 public:
  explicit ScaledFloat8(const Source& source) : source_(source) {}

  at::ScalarType reads() const override { return reads_floats(source_); }
  bool looks() const override { return true; }
  void look(const Tensor& piece) override {
    const auto largest = quant::largest_magnitude(piece);
    check_finite(source_, std::isfinite(largest), "fp8_scaled");
    largest_ = std::max(largest_, largest);
  }

  std::vector<NewTensor> outputs() const override {
    return {{source_.name, DType::F8_E4M3, source_.stored.shape, {}},
            {beside(source_.name, "weight_scale"), DType::F32, {}, {}},
            marker_of(source_.name, text_)};
  }

  std::vector<Tensor> encode(const Tensor& piece, std::int64_t first) override {
    constexpr float most = 448;
    const float scale = largest_ > 0 ? largest_ / most : 1;
    auto numbers = quant::e4m3_of(piece, scale);
    if (first > 0) return {numbers, Tensor(), Tensor()};
    return {numbers, at::full({}, scale), bytes_of(text_)};
  }

 private:
  const std::string text_ = R"({"format": "float8_e4m3fn"})";
  Source source_;
  float largest_ = 0;
};

}  // namespace

std::unique_ptr<Encoder> packed_encoder(const Source& source) {
  const auto& stored = source.stored;
  const bool is_bf16 =
      stored.encoding == &quant::bf16_planes() || (!stored.encoding && stored.dtype == DType::BF16);
  if (!is_bf16 || stored.shape.size() < 2 || !quant::is_worth_packing(source.numbers_of_a_row(), 0))
    return nullptr;
  return std::make_unique<PackedPlanes>(source);
}

std::unique_ptr<Encoder> fp8_encoder(const Source& source) {
  return source.stored.shape.size() == 2 ? std::make_unique<ScaledFloat8>(source) : nullptr;
}

}  // namespace distorch::convert
