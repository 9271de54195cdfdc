#include "distorch/quant/gguf.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <map>
#include <mutex>
#include <optional>
#include <tuple>

#include "distorch/base/error.h"
#include "distorch/formats/gguf_types.h"
#include "distorch/quant/gguf_decode.h"
#include "distorch/quant/gguf_in_half.h"
#include "distorch/quant/joined.h"

namespace distorch::quant {

namespace {

class GgufBlocks final : public Encoding {
 public:
  explicit GgufBlocks(const formats::BlockType& type,
                      std::optional<at::ScalarType> through = std::nullopt, bool in_half = false)
      : type_(type), through_(through), in_half_(in_half) {}

  std::string_view name() const override { return type_.name; }
  const formats::BlockType& type() const { return type_; }
  const std::vector<Companion>& companions() const override {
    static const std::vector<Companion> none;
    return none;
  }
  bool matches(formats::DType, const std::vector<bool>&) const override { return false; }
  bool rests_packed() const override { return true; }

  /// Asked for tensors that a marker calls so: no file but GGUF has such.
  std::vector<std::int64_t> shape_of(const std::vector<std::int64_t>&,
                                     const std::vector<std::vector<std::int64_t>>&) const override {
    throw Error(ErrorKind::Format, type_.name, "blocks are read from GGUF files only");
  }

  std::vector<std::int64_t> value_shape(const std::vector<std::int64_t>& shape,
                                        std::int64_t bytes) const {
    if (shape.empty() || shape[0] == 0 || row_elements(shape) % type_.elements != 0) return {bytes};
    return {shape[0], bytes / shape[0]};
  }

  at::Tensor decode(const Packed& weight, at::ScalarType dtype) const override {
    const bool direct = dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16;
    const auto first = through_.value_or(direct ? dtype : at::kFloat);
    const auto numbers = (in_half_ ? decode_in_half : decode_blocks)(
        weight.values.reshape({-1}), static_cast<int>(type_.id), first);
    return numbers.to(dtype).view(weight.shape);
  }

  Packed rows(const Packed& weight, std::int64_t first, std::int64_t count) const override {
    const auto row = row_elements(weight.shape);
    auto result = weight;
    result.shape[0] = count;
    if (row * first % type_.elements != 0 || row * count % type_.elements != 0) {
      // Blocks go across rows: the rows are taken from the decoded whole.
      result.encoding = &joined();
      result.values = decode(weight, at::kFloat).narrow(0, first, count);
      return result;
    }
    auto bytes = weight.values.reshape({-1}).narrow(0, row * first / type_.elements * type_.bytes,
                                                    row * count / type_.elements * type_.bytes);
    result.values = row % type_.elements == 0 ? bytes.view({count, -1}) : bytes;
    return result;
  }

 private:
  static std::int64_t row_elements(const std::vector<std::int64_t>& shape) {
    return shape.empty() || shape[0] == 0 ? 0 : c10::multiply_integers(shape) / shape[0];
  }

  const formats::BlockType& type_;
  std::optional<at::ScalarType> through_;
  bool in_half_;
};

const GgufBlocks* as_gguf(const Encoding* encoding) {
  return dynamic_cast<const GgufBlocks*>(encoding);
}

}  // namespace

const std::vector<const Encoding*>& gguf_encodings() {
  static const auto& list = *[] {
    auto* all = new std::vector<const Encoding*>;
    for (const auto& type : formats::block_types())
      if (!type.plain) all->push_back(new GgufBlocks(type));
    return all;
  }();
  return list;
}

std::vector<std::int64_t> value_shape_of(const Encoding& encoding,
                                         const std::vector<std::int64_t>& shape,
                                         std::int64_t bytes) {
  if (const auto* gguf = as_gguf(&encoding)) return gguf->value_shape(shape, bytes);
  auto rows = shape;
  if (rows.empty()) rows.push_back(1);
  rows.back() = 1;
  rows.back() = bytes / std::max<std::int64_t>(1, c10::multiply_integers(rows));
  return rows;
}

namespace {

/// Each lives as long as the process.
const Encoding* variant(const formats::BlockType& type, std::optional<at::ScalarType> through,
                        bool in_half) {
  using Key = std::tuple<std::string_view, std::optional<at::ScalarType>, bool>;
  static std::mutex mutex;
  static auto& known = *new std::map<Key, const Encoding*>;
  std::lock_guard lock(mutex);
  auto& one = known[{type.name, through, in_half}];
  if (!one) one = new GgufBlocks(type, through, in_half);
  return one;
}

}  // namespace

const Encoding* gguf_rounded_to(const Encoding* encoding, at::ScalarType dtype) {
  const auto* gguf = as_gguf(encoding);
  return gguf ? variant(gguf->type(), dtype, false) : nullptr;
}

const Encoding* gguf_in_half(const Encoding* encoding, std::optional<at::ScalarType> then) {
  const auto* gguf = as_gguf(encoding);
  return gguf && has_half_steps(gguf->name()) ? variant(gguf->type(), then, true) : nullptr;
}

at::Tensor rows_at(const Packed& weight, const at::Tensor& ids, at::ScalarType dtype) {
  const bool apart = as_gguf(weight.encoding) != nullptr && weight.values.dim() > 1 &&
                     weight.values.size(0) == weight.shape.at(0);
  if (!apart) return decode(weight, dtype).index_select(0, ids);
  auto some = weight;
  some.shape[0] = ids.numel();
  some.values = weight.values.index_select(0, ids);
  return decode(some, dtype);
}

}  // namespace distorch::quant
