#include <ATen/ATen.h>

#include <cmath>

#include "distorch/base/align.h"
#include "distorch/convert/encoders.h"
#include "distorch/device/parallel.h"
#include "distorch/quant/block_scaled.h"
#include "distorch/quant/int8.h"
#include "distorch/quant/quantize.h"

// Forms of ComfyUI's quantised files, some rows at a time (quant/quantize.h).
namespace distorch::convert {
namespace {

using at::Tensor;
using formats::DType;

constexpr int kGroup = 256;  // numbers that are rotated together

/// int8 with a scale a row; rows of whole groups are rotated first (ConvRot).
class RowInt8 final : public Encoder {
 public:
  explicit RowInt8(const Source& source)
      : source_(source),
        rotated_(source.numbers_of_a_row() % kGroup == 0 ? kGroup : 0),
        marker_(quant::int8_tensorwise(rotated_).marker()) {}

  at::ScalarType reads() const override { return reads_floats(source_); }

  std::vector<NewTensor> outputs() const override {
    return {{source_.name, DType::I8, source_.stored.shape, {}},
            {beside(source_.name, "weight_scale"), DType::F32, {source_.rows(), 1}, {}},
            marker_of(source_.name, marker_)};
  }

  std::vector<Tensor> encode(const Tensor& piece, std::int64_t first) override {
    auto [values, scales] = quant::whole_rows(piece, rotated_, quant::kEightBits);
    check_finite(source_, at::isfinite(scales).all().item<bool>(), "int8");
    return {values, scales.unsqueeze(1), first == 0 ? bytes_of(marker_) : Tensor()};
  }

 private:
  Source source_;
  int rotated_;
  std::string marker_;
};

/// nvfp4: four bits a number, a scale of 8 bits for 16 of them, one of 32 bits for all.
class BlockFloat4 final : public Encoder {
 public:
  explicit BlockFloat4(const Source& source)
      : source_(source),
        blocks_(source.numbers_of_a_row() / 16),
        scales_(at::zeros(quant::blocked_shape(source.rows(), blocks_), at::kByte)),
        marker_(quant::nvfp4().marker()) {}

  at::ScalarType reads() const override { return reads_floats(source_); }
  bool looks() const override { return true; }
  void look(const Tensor& piece) override {
    const auto largest = quant::largest_magnitude(piece);
    check_finite(source_, std::isfinite(largest), "nvfp4");
    largest_ = std::max(largest_, largest);
  }

  std::vector<NewTensor> outputs() const override {
    return {{source_.name, DType::U8, {source_.rows(), blocks_ * 8}, {}},
            {beside(source_.name, "weight_scale"), DType::F8_E4M3, scales_.sizes().vec(), {}},
            {beside(source_.name, "weight_scale_2"), DType::F32, {}, {}},
            marker_of(source_.name, marker_)};
  }

  std::vector<Tensor> encode(const Tensor& piece, std::int64_t first) override {
    const auto whole = quant::nvfp4_scale(largest_);
    auto [values, scales] = quant::nvfp4_rows(piece, whole);
    place(scales.view(at::kByte).contiguous(), first);
    if (first + piece.size(0) < source_.rows()) return {values};
    return {values, scales_, at::full({}, whole), bytes_of(marker_)};
  }

 private:
  /// The scales of the rows from `first` on to where tensor cores want them.
  void place(const Tensor& scales, std::int64_t first) {
    const auto* from = scales.const_data_ptr<std::uint8_t>();
    auto* to = scales_.mutable_data_ptr<std::uint8_t>();
    device::parallel_for(0, scales.size(0), 64, [&](std::int64_t begin, std::int64_t end) {
      for (auto r = begin; r < end; ++r)
        for (std::int64_t b = 0; b < blocks_; ++b)
          to[quant::blocked_index(first + r, b, blocks_)] = from[r * blocks_ + b];
    });
  }

  Source source_;
  std::int64_t blocks_;
  Tensor scales_;
  std::string marker_;
  float largest_ = 0;
};

}  // namespace

std::unique_ptr<Encoder> int8_encoder(const Source& source) {
  return source.stored.shape.size() == 2 ? std::make_unique<RowInt8>(source) : nullptr;
}

std::unique_ptr<Encoder> nvfp4_encoder(const Source& source) {
  const auto& shape = source.stored.shape;
  if (shape.size() != 2 || shape[0] % 16 != 0 || shape[1] % 16 != 0) return nullptr;
  return std::make_unique<BlockFloat4>(source);
}

}  // namespace distorch::convert
