#include "distorch/quant/block_scaled.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>
#include <type_traits>
#include <vector>

#include "distorch/base/align.h"
#include "distorch/device/operators.h"
#include "distorch/device/parallel.h"
#include "distorch/quant/block_scaled_cuda.h"
#include "distorch/quant/faults.h"
#include "distorch/quant/nibbles.h"
#include "distorch/quant/scaled_inputs.h"
#include "distorch/quant/small_floats.h"
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

template <typename Number>
constexpr NumberKind kind_of() {
  if (std::is_same_v<Number, float>) return NumberKind::Float;
  return std::is_same_v<Number, at::Half> ? NumberKind::Half : NumberKind::BFloat;
}

float scale_of(std::uint8_t bits) {
  return c10::Float8_e4m3fn(bits, c10::Float8_e4m3fn::from_bits());
}

/// Where on_cpu() finds what it needs.
struct Rows {
  const std::uint8_t *from, *scales;
  std::int64_t start;  // the row of the first tile that the first row is
  std::int64_t bytes, blocks;
  bool past_caches = false;
};

/// Rows begin .. end - 1 of nvfp4 (`four`, `whole` the scale of all) or mxfp8.
template <typename Number>
void decode_rows(const Rows& rows, bool four, Number whole, Number* to, std::int64_t begin,
                 std::int64_t end) {
  const auto width = (four ? 2 : 1) * rows.bytes;
  std::vector<float> factors(static_cast<std::size_t>(rows.blocks));
  for (auto r = begin; r < end; ++r) {
    for (std::int64_t block = 0; block < rows.blocks; ++block) {
      const auto scale = rows.scales[blocked_index(rows.start + r, block, rows.blocks)];
      factors[block] = four ? static_cast<float>(whole * Number(scale_of(scale)))
                            : std::bit_cast<float>(std::uint32_t{scale} << 23);
    }
    decode_small_floats({.type = four ? SmallFloat::E2M1 : SmallFloat::E4M3,
                         .kind = kind_of<Number>(),
                         .from = rows.from + r * rows.bytes,
                         .to = to + r * width,
                         .count = width,
                         .factors = factors.data(),
                         .run = four ? kFourBlock : kEightBlock,
                         .past_caches = rows.past_caches});
  }
}

template <typename Number>
void decode_all(const Rows& rows, const std::optional<Tensor>& whole, const Tensor& y) {
  const auto all = whole ? Number(whole->item<float>()) : Number(1.0f);
  auto* to = y.mutable_data_ptr<Number>();
  device::parallel_for(0, y.size(0), 4, [&](std::int64_t begin, std::int64_t end) {
    decode_rows(rows, whole.has_value(), all, to, begin, end);
  });
}

/// values [N, bytes of a row]; `whole` undefined for mxfp8; `start`: the row of the first tile that
/// the first row is.
Tensor on_cpu(const Tensor& values, const Tensor& scales, const std::optional<Tensor>& whole,
              std::int64_t start, at::ScalarType dtype) {
  const auto count = values.size(0), bytes = values.size(1);
  const auto width = whole ? 2 * bytes : bytes;
  auto from = values.contiguous(), by = scales.contiguous();
  auto y = at::empty({count, width}, values.options().dtype(dtype));
  const Rows rows{from.const_data_ptr<std::uint8_t>(),
                  by.const_data_ptr<std::uint8_t>(),
                  start,
                  bytes,
                  width / (whole ? kFourBlock : kEightBlock),
                  passes_caches(static_cast<std::int64_t>(y.nbytes()))};
  if (dtype == at::kFloat)
    decode_all<float>(rows, whole, y);
  else if (dtype == at::kHalf)
    decode_all<at::Half>(rows, whole, y);
  else
    decode_all<at::BFloat16>(rows, whole, y);
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
  int start = 0;         // rows of the first tile that are another's
  bool decoded = false;  // never multiplied as it lies
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

  std::string marker() const override {
    if (!kind_.decoded) return Encoding::marker();
    return fmt::format(R"({{"format": "{}", "full_precision_matrix_mult": true}})", name());
  }

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

  std::int64_t padding() const override { return kind_.four ? kFourBlock : kEightBlock; }

  std::vector<std::int64_t> shape_of(
      const std::vector<std::int64_t>& values,
      const std::vector<std::vector<std::int64_t>>& /*companions*/) const override {
    return kind_.four ? nibble_shape(values) : values;
  }

  // Decoded they would give other products.
  bool rests_packed_for(at::Device compute) const override {
    return !kind_.decoded && has_block_products(compute, kind_.four);
  }

  const Encoding* decoded() const override {
    return &block_scaled({kind_.four, kind_.start, true});
  }

  Tensor product(const Tensor& x, const Packed& weight, const Tensor& bias) const override {
    return kind_.decoded ? Tensor() : block_linear(x, weight, bias);
  }

  Tensor decode(const Packed& weight, at::ScalarType dtype) const override {
    std::optional<Tensor> whole;
    if (kind_.four) whole = weight.parts[1].to(at::kFloat);
    const bool direct = dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16;
    auto y = decode_operator().call(bytes_of(weight.values), bytes_of(weight.parts[0]), whole,
                                    kind_.start, direct ? dtype : at::kFloat);
    y = y.to(dtype);
    // What inputs are multiplied with first.
    if (kind_.four && weight.parts[2].defined()) y.mul_(weight.parts[2].to(dtype));
    return y.narrow(1, 0, weight.shape[1]);
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
    const auto start = static_cast<int>((kind_.start + first) % kTileRows);
    return &block_scaled({kind_.four, start, kind_.decoded});
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

const Encoding& nvfp4() { return block_scaled({.four = true}); }
const Encoding& mxfp8() { return block_scaled({.four = false}); }

}  // namespace distorch::quant
