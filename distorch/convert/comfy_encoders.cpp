#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/Float8_e4m3fn.h>

#include <cmath>
#include <cstring>

#include "distorch/base/align.h"
#include "distorch/convert/encoders.h"

// Forms of ComfyUI's quantised files, rounded to nearest as its package comfy-kitchen does in float32
// (tensor/int8.py, tensor/nvfp4.py and its eager back end).
namespace distorch::convert {
namespace {

using at::Tensor;
using formats::DType;

constexpr std::int64_t kGroup = 256;  // numbers that are rotated together

/// The regular Hadamard matrix of kGroup over its root: a power of the one of four.
const Tensor& rotation() {
  static const Tensor matrix = [] {
    const auto four =
        at::tensor({1, 1, 1, -1, 1, 1, -1, 1, 1, -1, 1, 1, -1, 1, 1, 1}, at::kFloat).view({4, 4});
    auto whole = four;
    while (whole.size(0) < kGroup) whole = at::kron(whole, four);
    return whole / std::sqrt(static_cast<double>(kGroup));
  }();
  return matrix;
}

/// int8 with a scale a row; rows of whole groups are rotated first (ConvRot).
class RowInt8 final : public Encoder {
 public:
  explicit RowInt8(const Source& source)
      : source_(source), rotated_(source.numbers_of_a_row() % kGroup == 0) {}

  at::ScalarType reads() const override { return at::kFloat; }

  std::vector<NewTensor> outputs() const override {
    return {{source_.name, DType::I8, source_.stored.shape, {}},
            {beside(source_.name, "weight_scale"), DType::F32, {source_.rows(), 1}, {}},
            marker_of(source_.name, text())};
  }

  std::vector<Tensor> encode(const Tensor& piece, std::int64_t first) override {
    constexpr float most = 127, least_scale = 1e-30f;
    auto numbers = piece;
    if (rotated_) numbers = numbers.unflatten(1, {-1, kGroup}).matmul(rotation().t()).flatten(1);
    auto scale = (numbers.abs().amax({1}, true) / most).clamp_min(least_scale);
    auto values = (numbers / scale).round_().clamp_(-most - 1, most).to(at::kChar);
    return {values, scale, first == 0 ? bytes_of(text()) : Tensor()};
  }

 private:
  std::string text() const {
    return rotated_ ? R"({"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 256})"
                    : R"({"format": "int8_tensorwise"})";
  }

  Source source_;
  bool rotated_;
};

/// 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives: the nearest, halves to the even code.
std::uint8_t four_bits(float value) {
  const float size = std::abs(value);
  const int code = (size > 0.25f) + (size >= 0.75f) + (size > 1.25f) + (size >= 1.75f) +
                   (size > 2.5f) + (size >= 3.5f) + (size > 5.0f);
  return static_cast<std::uint8_t>(code | (std::signbit(value) ? 8 : 0));
}

/// nvfp4: four bits a number, a scale of 8 bits for 16 of them, one of 32 bits for all.
class BlockFloat4 final : public Encoder {
 public:
  explicit BlockFloat4(const Source& source)
      : source_(source),
        rows_(source.rows()),
        blocks_(source.numbers_of_a_row() / kBlock),
        scales_(at::zeros({align_up(rows_, 128) * align_up(blocks_, std::int64_t{4})}, at::kByte)) {
  }

  at::ScalarType reads() const override { return at::kFloat; }
  bool looks() const override { return true; }
  void look(const Tensor& piece) override {
    if (piece.numel() > 0) largest_ = std::max(largest_, piece.abs().max().item<float>());
  }

  std::vector<NewTensor> outputs() const override {
    return {{source_.name, DType::U8, {rows_, blocks_ * kBlock / 2}, {}},
            {beside(source_.name, "weight_scale"),
             DType::F8_E4M3,
             {align_up(rows_, 128), align_up(blocks_, std::int64_t{4})},
             {}},
            {beside(source_.name, "weight_scale_2"), DType::F32, {}, {}},
            marker_of(source_.name, text_)};
  }

  std::vector<Tensor> encode(const Tensor& piece, std::int64_t first) override {
    constexpr float most = 6 * 448;
    const float whole = largest_ / most;
    const auto numbers = piece.contiguous();
    const auto count = numbers.size(0);
    auto packed = at::empty({count, blocks_ * kBlock / 2}, at::kByte);
    const auto* from = numbers.const_data_ptr<float>();
    auto* to = packed.mutable_data_ptr<std::uint8_t>();
    at::parallel_for(0, count, 8, [&](std::int64_t begin, std::int64_t end) {
      for (auto row = begin; row < end; ++row)
        for (std::int64_t block = 0; block < blocks_; ++block)
          pack(from + (row * blocks_ + block) * kBlock, to + (row * blocks_ + block) * kBlock / 2,
               whole, first + row, block);
    });
    if (first + count < rows_) return {packed};
    return {packed, scales_, at::full({}, whole), bytes_of(text_)};
  }

 private:
  static constexpr std::int64_t kBlock = 16;

  void pack(const float* from, std::uint8_t* to, float whole, std::int64_t row,
            std::int64_t block) {
    constexpr float most = 6, most_scale = 448;
    float largest = 0;
    for (std::int64_t i = 0; i < kBlock; ++i) largest = std::max(largest, std::abs(from[i]));
    const float wanted = whole > 0 ? std::min(largest / most / whole, most_scale) : 0;
    const c10::Float8_e4m3fn scale(wanted);
    place(row, block) = scale.x;
    const float step = whole * static_cast<float>(scale);
    auto code = [&](std::int64_t i) -> int {
      return step == 0 ? 0 : four_bits(std::clamp(from[i] / step, -most, most));
    };
    for (std::int64_t i = 0; i < kBlock / 2; ++i)
      to[i] = static_cast<std::uint8_t>(code(2 * i) << 4 | code(2 * i + 1));
  }

  /// Where tensor cores want a block's scale: tiles of 128 rows and 4 blocks, in which four rows that
  /// are 32 apart lie side by side.
  std::uint8_t& place(std::int64_t row, std::int64_t block) {
    const auto tiles = align_up(blocks_, std::int64_t{4}) / 4;
    const auto tile = row / 128 * tiles + block / 4;
    return scales_.mutable_data_ptr<std::uint8_t>()[tile * 512 + row % 32 * 16 +
                                                    row % 128 / 32 * 4 + block % 4];
  }

  const std::string text_ = R"({"format": "nvfp4"})";
  Source source_;
  std::int64_t rows_, blocks_;
  Tensor scales_;
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
