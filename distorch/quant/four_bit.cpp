#include "distorch/quant/four_bit.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <tuple>

#include "distorch/base/error.h"
#include "distorch/quant/joined.h"

namespace distorch::quant {
namespace {

using at::Tensor;

enum Part { kAbsmax, kMap, kState, kNestedAbsmax, kNestedMap };

class FourBit final : public Encoding {
 public:
  FourBit(std::string kind, QuantState state = {}, std::int64_t first_block = 0)
      : kind_(std::move(kind)),
        companions_{{{"weight.absmax"}},
                    {{"weight.quant_map"}},
                    {{"weight.quant_state.bitsandbytes__" + kind_}},
                    {{"weight.nested_absmax"}, true},
                    {{"weight.nested_quant_map"}, true}},
        state_(std::move(state)),
        first_block_(first_block) {}

  std::string_view name() const override { return kind_; }
  const std::vector<Companion>& companions() const override { return companions_; }
  bool matches(formats::DType dtype, const std::vector<bool>& present) const override {
    return dtype == formats::DType::U8 && present[kState];
  }

  /// What the file says in words of a weight: its shape, by which its bytes and magnitudes go row by
  /// row.
  Reading reading(const FileTensor& values, const std::vector<FileTensor>& companions,
                  const std::string& where) const override {
    const auto words = companions[kState].bytes;
    const auto state =
        read_quant_state({reinterpret_cast<const char*>(words.data()), words.size()}, where);
    auto elements = [&](Part part) {
      const auto& tensor = companions[part];
      return tensor.is_there() ? c10::multiply_integers(tensor.shape) : 0;
    };
    const auto bytes = static_cast<std::int64_t>(values.bytes.size());
    check_sizes(state,
                {.bytes = bytes,
                 .absmax = elements(kAbsmax),
                 .map = elements(kMap),
                 .nested_absmax = elements(kNestedAbsmax),
                 .nested_map = elements(kNestedMap)},
                where);
    const auto rows = state.goes_by_rows() ? state.shape[0] : 1;
    Reading result{&four_bit(state), state.shape, {rows, bytes / rows}, {}};
    result.parts.resize(companions.size());
    using Shape = std::vector<std::int64_t>;
    result.parts[kAbsmax] = Shape{rows, elements(kAbsmax) / rows};
    // Tables are the same for all rows, however many there are.
    for (auto table : {kMap, kNestedAbsmax, kNestedMap})
      if (companions[table].is_there()) result.parts[table] = Shape{1, elements(table)};
    return result;
  }

  Tensor decode(const Packed& weight, at::ScalarType dtype) const override {
    const auto numbers = c10::multiply_integers(weight.shape);
    const bool direct = dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16;
    auto flat = unpack_four_bit(weight.values.contiguous().flatten(),
                                weight.parts[kMap].to(at::kFloat).contiguous().flatten(),
                                magnitudes(weight), state_.block, direct ? dtype : at::kFloat);
    return flat.narrow(0, 0, numbers).view(weight.shape).to(dtype);
  }

  Packed rows(const Packed& weight, std::int64_t first, std::int64_t count) const override {
    auto shape = weight.shape;
    const auto all = std::max<std::int64_t>(1, shape.at(0));
    const auto row = c10::multiply_integers(shape) / all;
    shape[0] = count;
    if (row % state_.block != 0) {
      // Blocks go over the ends of rows.
      auto some = decode(weight, at::kFloat).narrow(0, first, count);
      return {&joined(), some, {}, shape};
    }
    auto result = weight;
    result.shape = shape;
    const auto blocks = row / state_.block;
    result.encoding = from_row(first, weight.shape);
    result.values = weight.values.flatten().narrow(0, first * row / 2, count * row / 2);
    result.parts[kAbsmax] =
        weight.parts[kAbsmax].flatten().narrow(0, first * blocks, count * blocks);
    return result;
  }

  const Encoding* from_row(std::int64_t first,
                           const std::vector<std::int64_t>& shape) const override {
    const auto row = c10::multiply_integers(shape) / std::max<std::int64_t>(1, shape.at(0));
    return &four_bit(state_, first_block_ + first * (row / state_.block));
  }

  const QuantState& state() const { return state_; }

 private:
  /// One a block, float32.
  Tensor magnitudes(const Packed& weight) const {
    auto absmax = weight.parts[kAbsmax].contiguous().flatten();
    if (!state_.nested_block) return absmax.to(at::kFloat);
    auto map = weight.parts[kNestedMap].to(at::kFloat).flatten();
    auto largest = weight.parts[kNestedAbsmax].to(at::kFloat).flatten();
    auto nested = largest.unsqueeze(1)
                      .expand({largest.numel(), state_.nested_block})
                      .reshape(-1)
                      .narrow(0, first_block_, absmax.numel());
    return map.index_select(0, absmax.to(at::kInt)).mul_(nested).add_(state_.nested_offset);
  }

  std::string kind_;
  std::vector<Companion> companions_;
  QuantState state_;
  std::int64_t first_block_;
};

std::int64_t whole_number(const nlohmann::json& json, const char* name, std::int64_t otherwise) {
  const auto at = json.find(name);
  return at != json.end() && at->is_number_integer() ? at->get<std::int64_t>() : otherwise;
}

}  // namespace

const Encoding& nf4() {
  static const FourBit one("nf4");
  return one;
}

const Encoding& fp4() {
  static const FourBit one("fp4");
  return one;
}

bool QuantState::goes_by_rows() const {
  return !shape.empty() && shape[0] > 0 && numbers() / shape[0] % block == 0;
}

QuantState read_quant_state(std::string_view text, const std::string& where) {
  constexpr std::int64_t most = std::int64_t{1} << 40;
  auto fail = [&](const std::string& what) {
    throw Error(ErrorKind::Format, where, "its quant_state " + what);
  };
  const auto json = nlohmann::json::parse(text.begin(), text.end(), nullptr, false);
  if (!json.is_object()) fail("is no JSON object");
  QuantState state;
  const auto shape = json.find("shape");
  if (shape == json.end() || !shape->is_array() || shape->empty()) fail("has no 'shape'");
  std::int64_t numbers = 1;
  for (const auto& size : *shape) {
    if (!size.is_number_integer() || size.get<std::int64_t>() < 1 ||
        size.get<std::int64_t>() > most / numbers)
      fail("has a 'shape' with sizes that cannot be: " + shape->dump());
    state.shape.push_back(size.get<std::int64_t>());
    numbers *= state.shape.back();
  }
  state.block = whole_number(json, "blocksize", 64);
  if (state.block < 2 || state.block % 2 != 0 || state.block > most)
    fail(fmt::format("has a blocksize of {}, which is not even and positive", state.block));
  if (json.contains("nested_offset")) {
    state.nested_block = whole_number(json, "nested_blocksize", 256);
    if (state.nested_block < 1 || !json["nested_offset"].is_number())
      fail("has nested values that are no numbers");
    state.nested_offset = json["nested_offset"].get<double>();
  }
  return state;
}

void check_sizes(const QuantState& state, const FourBitSizes& sizes, const std::string& where) {
  const auto blocks = (state.numbers() + state.block - 1) / state.block;
  auto check = [&](const char* name, std::int64_t got, std::int64_t wanted) {
    if (got != wanted)
      throw Error(ErrorKind::Format, where,
                  fmt::format("its {} has {} elements where {} are needed", name, got, wanted));
  };
  check("codes", sizes.bytes, (state.numbers() + 1) / 2);
  check("absmax", sizes.absmax, blocks);
  check("quant_map", sizes.map, 16);
  if (!state.nested_block) return;
  check("nested_absmax", sizes.nested_absmax,
        (blocks + state.nested_block - 1) / state.nested_block);
  check("nested_quant_map", sizes.nested_map, 256);
}

const Encoding& four_bit(const QuantState& state, std::int64_t first_block) {
  static std::mutex mutex;
  using Key = std::tuple<std::int64_t, std::int64_t, double, std::int64_t>;
  static std::map<Key, std::unique_ptr<FourBit>> known;
  // Of the state only what is the same for many weights: not their shape.
  QuantState kept = state;
  kept.shape.clear();
  const auto first = state.nested_block ? first_block : 0;
  std::lock_guard lock(mutex);
  auto& one = known[{state.block, state.nested_block, state.nested_offset, first}];
  if (!one) one = std::make_unique<FourBit>("nf4", kept, first);
  return *one;
}

const QuantState* state_of(const Encoding& encoding) {
  const auto* own = dynamic_cast<const FourBit*>(&encoding);
  return own && own != &nf4() && own != &fp4() ? &own->state() : nullptr;
}

}  // namespace distorch::quant
