#include "distorch/quant/block_scaled.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>

#include "distorch/base/align.h"
#include "distorch/device/operators.h"
#include "distorch/quant/block_scaled_cuda.h"
#include "distorch/quant/faults.h"
#include "distorch/quant/nibbles.h"
#include "distorch/quant/variants.h"

namespace distorch::quant {
namespace {

using at::Tensor;
using formats::DType;

constexpr std::int64_t kTileRows = 128;
constexpr int kFourBlock = 16, kEightBlock = 32;

Tensor bytes_of(const Tensor& tensor) {
  return tensor.scalar_type() == at::kByte ? tensor : tensor.view(at::kByte);
}

/// The 256 numbers of float8_e4m3fn.
const std::array<float, 256>& small_floats() {
  static const auto table = [] {
    std::array<float, 256> list{};
    for (int bits = 0; bits < 256; ++bits)
      list[bits] =
          c10::Float8_e4m3fn(static_cast<std::uint8_t>(bits), c10::Float8_e4m3fn::from_bits());
    return list;
  }();
  return table;
}

constexpr std::array<float, 8> kFourBits = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

/// Rows of nvfp4 from byte rows: each block by a table of its sixteen products.
template <typename Number>
void decode_four(const std::uint8_t* from, const std::uint8_t* scales, Number whole, Number* to,
                 std::int64_t row, std::int64_t blocks) {
  std::array<Number, 16> table;
  for (std::int64_t block = 0; block < blocks; ++block) {
    const Number own = small_floats()[scales[blocked_index(row, block, blocks)]];
    const Number factor = whole * own;
    for (int i = 0; i < 8; ++i) {
      table[i] = Number(kFourBits[i]) * factor;
      table[i + 8] = -Number(kFourBits[i]) * factor;
    }
    for (int i = 0; i < kFourBlock / 2; ++i) {
      to[2 * i] = table[from[i] >> 4];
      to[2 * i + 1] = table[from[i] & 15];
    }
    from += kFourBlock / 2;
    to += kFourBlock;
  }
}

template <typename Number>
void decode_eight(const std::uint8_t* from, const std::uint8_t* scales, Number* to,
                  std::int64_t row, std::int64_t blocks) {
  const auto& table = small_floats();
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::uint32_t exponent = scales[blocked_index(row, block, blocks)];
    const auto factor = std::bit_cast<float>(exponent << 23);
    for (int i = 0; i < kEightBlock; ++i) to[i] = table[from[i]] * factor;
    from += kEightBlock;
    to += kEightBlock;
  }
}

/// values [N, bytes of a row]; `whole` undefined for mxfp8; `start`: the row of the first tile that
/// the first row is.
Tensor on_cpu(const Tensor& values, const Tensor& scales, const std::optional<Tensor>& whole,
              std::int64_t start, at::ScalarType dtype) {
  const auto rows = values.size(0), bytes = values.size(1);
  const auto width = whole ? 2 * bytes : bytes, blocks = width / (whole ? kFourBlock : kEightBlock);
  auto from = values.contiguous(), by = scales.contiguous();
  auto y = at::empty({rows, width}, values.options().dtype(dtype));
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, dtype, "decode_scaled_blocks", [&] {
    const auto* numbers = from.const_data_ptr<std::uint8_t>();
    const auto* factors = by.const_data_ptr<std::uint8_t>();
    const auto all = whole ? scalar_t(whole->item<float>()) : scalar_t(1);
    auto* to = y.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, rows, 4, [&](std::int64_t begin, std::int64_t end) {
      for (auto r = begin; r < end; ++r) {
        if (whole)
          decode_four(numbers + r * bytes, factors, all, to + r * width, start + r, blocks);
        else
          decode_eight(numbers + r * bytes, factors, to + r * width, start + r, blocks);
      }
    });
  });
  return y;
}

/// Where the kernels cannot be had: decoded on the host.
Tensor on_cuda(const Tensor& values, const Tensor& scales, const std::optional<Tensor>& whole,
               std::int64_t start, at::ScalarType dtype) {
  if (auto y = cuda::decode_scaled_blocks(values, scales, whole.value_or(Tensor()), start, dtype);
      y.defined())
    return y;
  std::optional<Tensor> all;
  if (whole) all = whole->cpu();
  return on_cpu(values.cpu(), scales.cpu(), all, start, dtype).to(values.device());
}

Tensor shape_only(const Tensor& values, const Tensor&, const std::optional<Tensor>& whole,
                  std::int64_t, at::ScalarType dtype) {
  return at::empty({values.size(0), values.size(1) * (whole ? 2 : 1)},
                   values.options().dtype(dtype));
}

const auto& decode_operator() {
  static const auto op =
      device::define({.schema = "decode_scaled_blocks(Tensor values, Tensor scales, Tensor? whole, "
                                "int start, ScalarType dtype) -> Tensor",
                      .cpu = torch::CppFunction(&on_cpu),
                      .cuda = torch::CppFunction(&on_cuda),
                      .meta = torch::CppFunction(&shape_only)})
          .typed<Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, std::int64_t,
                        at::ScalarType)>();
  return op;
}

struct Kind {
  bool four = false;
  int start = 0;  // rows of the first tile that are another's
  auto operator<=>(const Kind&) const = default;
};

const Encoding& block_scaled(const Kind& kind);

class BlockScaled final : public Encoding {
 public:
  explicit BlockScaled(const Kind& kind) : kind_(kind) {}

  std::string_view name() const override { return kind_.four ? "nvfp4" : "mxfp8"; }

  const std::vector<Companion>& companions() const override {
    static const std::vector<Companion> four = {{{"weight_scale"}, true},
                                                {{"weight_scale_2"}, true},
                                                {{"pre_quant_scale"}, true},
                                                {{"input_scale"}, true}};
    static const std::vector<Companion> eight = {{{"weight_scale"}, true}, {{"input_scale"}, true}};
    return kind_.four ? four : eight;
  }

  bool matches(DType, const std::vector<bool>&) const override { return false; }

  std::string fault(const FileTensor& values,
                    const std::vector<FileTensor>& companions) const override {
    const auto& scale = companions[0];
    auto own = wrong_dtype(values, {kind_.four ? DType::U8 : DType::F8_E4M3});
    if (!own.empty()) return own;
    const auto block = kind_.four ? kFourBlock / 2 : kEightBlock;  // bytes
    if (values.shape.size() != 2 || values.shape[1] % block != 0 || values.shape[1] == 0)
      return fmt::format("has the shape [{}], where rows of blocks of {} bytes are needed",
                         fmt::join(values.shape, ", "), block);
    auto shared =
        first_of({missing(scale),
                  wrong_dtype(scale, {kind_.four ? DType::F8_E4M3 : DType::F8_E8M0, DType::U8}),
                  wrong_shape(scale, blocked_shape(values.shape[0], values.shape[1] / block))});
    if (!shared.empty() || !kind_.four) return shared;
    constexpr int smoothing = 2;
    return first_of({missing(companions[1]), wrong_scale(companions[1], 1, false),
                     wrong_dtype(companions[smoothing], {DType::F32, DType::F16, DType::BF16}),
                     wrong_shape(companions[smoothing], {2 * values.shape[1]})});
  }

  std::vector<std::int64_t> shape_of(
      const std::vector<std::int64_t>& values,
      const std::vector<std::vector<std::int64_t>>& /*companions*/) const override {
    return kind_.four ? nibble_shape(values) : values;
  }

  Tensor decode(const Packed& weight, at::ScalarType dtype) const override {
    std::optional<Tensor> whole;
    if (kind_.four) whole = weight.parts[1].to(at::kFloat);
    const bool direct = dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16;
    auto y = decode_operator().call(bytes_of(weight.values), bytes_of(weight.parts[0]), whole,
                                    kind_.start, direct ? dtype : at::kFloat);
    y = y.to(dtype).view(weight.shape);
    // What inputs are multiplied with first.
    if (kind_.four && weight.parts[2].defined()) y.mul_(weight.parts[2].to(dtype));
    return y;
  }

  std::optional<std::pair<std::int64_t, std::int64_t>> part_rows(
      std::size_t part, const std::vector<std::int64_t>& /*shape*/, std::int64_t /*all*/,
      std::int64_t first, std::int64_t count) const override {
    if (part != 0) return {};
    const auto begin = align_down(kind_.start + first, kTileRows);
    return std::pair{begin, align_up(kind_.start + first + count, kTileRows) - begin};
  }

  const Encoding* from_row(std::int64_t first,
                           const std::vector<std::int64_t>& /*shape*/) const override {
    return &block_scaled({kind_.four, static_cast<int>((kind_.start + first) % kTileRows)});
  }

 private:
  Kind kind_;
};

const Encoding& block_scaled(const Kind& kind) {
  static Variants<BlockScaled, Kind> variants;
  return variants.of(kind);
}

}  // namespace

std::vector<std::int64_t> blocked_shape(std::int64_t rows, std::int64_t blocks) {
  return {align_up(rows, kTileRows), align_up(blocks, 4)};
}

const Encoding& nvfp4() { return block_scaled({true, 0}); }
const Encoding& mxfp8() { return block_scaled({false, 0}); }

}  // namespace distorch::quant
