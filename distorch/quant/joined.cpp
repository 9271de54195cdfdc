#include "distorch/quant/joined.h"

#include <algorithm>

#include "distorch/quant/variants.h"

namespace distorch::quant {
namespace {

at::Tensor numbers_of(const Packed& piece, at::ScalarType dtype) {
  return piece.encoding ? decode(piece, dtype) : piece.values.to(dtype).reshape(piece.shape);
}

Packed rows_of(const Packed& piece, std::int64_t first, std::int64_t count) {
  if (piece.encoding) return piece.rows(first, count);
  auto some = piece;
  some.values = piece.values.narrow(0, first, count);
  some.shape[0] = count;
  return some;
}

class Joined final : public Encoding {
 public:
  Joined() = default;
  explicit Joined(std::vector<PieceForm> forms) : forms_(std::move(forms)) {
    for (const auto& form : forms_)
      rests_packed_ = rests_packed_ || (form.encoding && form.encoding->rests_packed());
  }

  std::string_view name() const override { return "joined"; }
  const std::vector<Companion>& companions() const override {
    static const std::vector<Companion> none;
    return none;
  }
  bool matches(formats::DType, const std::vector<bool>&) const override { return false; }
  bool rests_packed() const override { return rests_packed_; }

  at::Tensor decode(const Packed& weight, at::ScalarType dtype) const override {
    std::vector<at::Tensor> pieces;
    for (const auto& piece : this->pieces(weight)) pieces.push_back(numbers_of(piece, dtype));
    return (pieces.size() == 1 ? pieces[0] : at::cat(pieces)).reshape(weight.shape);
  }

  at::Tensor product(const at::Tensor& x, const Packed& weight,
                     const at::Tensor& bias) const override {
    if (!rests_packed_) return {};
    std::vector<at::Tensor> columns;
    std::int64_t first = 0;
    for (const auto& piece : pieces(weight)) {
      const auto count = piece.shape[0];
      auto added = bias.defined() ? bias.narrow(0, first, count) : at::Tensor();
      first += count;
      auto y = piece.encoding ? piece.encoding->product(x, piece, added) : at::Tensor();
      columns.push_back(y.defined() ? y : quant::linear(x, alone(piece), added));
    }
    return at::cat(columns, -1);
  }

  Packed rows(const Packed& weight, std::int64_t first, std::int64_t count) const override {
    std::vector<Packed> some;
    std::int64_t begin = 0;
    const auto all = pieces(weight);
    for (const auto& piece : all) {
      const auto end = begin + piece.shape[0];
      const auto from = std::max(first, begin), to = std::min(first + count, end);
      if (from < to) some.push_back(rows_of(piece, from - begin, to - from));
      begin = end;
    }
    if (some.empty()) some.push_back(rows_of(all[0], 0, 0));
    return some.size() == 1 ? alone(some[0]) : join(some);
  }

  std::int64_t rows_in_one(const Packed& weight, std::int64_t first) const override {
    std::int64_t begin = 0;
    for (const auto& piece : pieces(weight)) {
      const auto inside = first - begin, rows = piece.shape[0];
      if (inside < rows)
        return piece.encoding ? piece.encoding->rows_in_one(piece, inside) : rows - inside;
      begin += rows;
    }
    return begin - first;
  }

  std::vector<Packed> pieces(const Packed& weight) const {
    std::vector<Packed> result;
    auto plain = [&](const at::Tensor& values) {
      result.push_back({nullptr, values, {}, weight.shape});
      result.back().shape[0] = values.size(0);
    };
    if (forms_.empty()) {
      plain(weight.values);
      for (const auto& part : weight.parts) plain(part);
      return result;
    }
    auto part = weight.parts.begin();
    for (const auto& form : forms_) {
      auto& piece = result.emplace_back(
          Packed{form.encoding, result.empty() ? weight.values : *part++, {}, form.shape});
      piece.parts.assign(part, part + static_cast<std::ptrdiff_t>(form.parts));
      part += static_cast<std::ptrdiff_t>(form.parts);
      if (weight.shape.size() == 2) piece = piece.as_matrix();
    }
    return result;
  }

 private:
  /// A piece as a weight of its own, which always has an encoding.
  static Packed alone(const Packed& piece) { return piece.encoding ? piece : join({piece}); }

  std::vector<PieceForm> forms_;  // empty: of any shape, all plain
  bool rests_packed_ = false;
};

}  // namespace

const Encoding& joined() {
  static const Joined one;
  return one;
}

const Encoding& joined(const std::vector<PieceForm>& forms) {
  static Variants<Joined, std::vector<PieceForm>> variants;
  const bool plain =
      std::all_of(forms.begin(), forms.end(), [](const PieceForm& form) { return !form.encoding; });
  return plain ? joined() : variants.of(forms);
}

bool is_joined(const Encoding* encoding) {
  return dynamic_cast<const Joined*>(encoding) != nullptr;
}

Packed join(const std::vector<Packed>& pieces) {
  const auto& first = pieces.at(0);
  Packed whole{nullptr, first.values, first.parts, first.shape};
  std::vector<PieceForm> forms;
  whole.shape[0] = 0;
  for (const auto& piece : pieces) {
    forms.push_back({piece.encoding, piece.shape, piece.parts.size()});
    whole.shape[0] += piece.shape[0];
    if (&piece == &first) continue;
    whole.parts.push_back(piece.values);
    whole.parts.insert(whole.parts.end(), piece.parts.begin(), piece.parts.end());
  }
  whole.encoding = &joined(forms);
  return whole;
}

std::vector<Packed> pieces_of(const Packed& weight) {
  const auto* encoding = dynamic_cast<const Joined*>(weight.encoding);
  return encoding ? encoding->pieces(weight) : std::vector<Packed>{};
}

}  // namespace distorch::quant
