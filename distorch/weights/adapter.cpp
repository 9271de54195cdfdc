#include "distorch/weights/adapter.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace distorch::weights {
namespace {

using Shape = std::vector<std::int64_t>;

/// A shape as a matrix: the first dimension, and all others taken together.
struct Matrix {
  std::int64_t rows = 0, columns = 0;
  bool operator==(const Matrix&) const = default;
};

Matrix matrix(const Shape& shape) {
  Matrix result{shape.empty() ? 1 : shape[0], 1};
  for (std::size_t i = 1; i < shape.size(); ++i) result.columns *= shape[i];
  return result;
}

/// Answers for one adapter and one weight. Each kind returns whether it fits.
class Fit {
 public:
  Fit(const PartShapes& parts, const Shape& weight)
      : parts_(parts),
        weight_(weight),
        whole_(matrix(weight)),
        in_(weight.size() > 1 ? weight[1] : 1),
        kernel_(in_ ? whole_.columns / in_ : 0) {}

  bool low_rank() const {
    auto up = of(Part::Up), down = of(Part::Down);
    if (!has(Part::Mid)) return product(up, down) == whole_;
    const auto& mid = parts_.at(Part::Mid);
    return mid.size() > 1 && mid[0] == up.columns && mid[1] == down.rows && mid[0] == mid[1] &&
           down.columns == in_ && matrix(mid).columns / mid[1] == kernel_ && up.rows == whole_.rows;
  }

  bool hadamard() const {
    return factors(Part::W1a, Part::W1b, Part::T1) == whole_ &&
           factors(Part::W2a, Part::W2b, Part::T2) == whole_;
  }

  bool kronecker() const {
    auto first = has(Part::W1) ? of(Part::W1) : product(of(Part::W1a), of(Part::W1b));
    auto second = has(Part::W2) ? of(Part::W2) : factors(Part::W2a, Part::W2b, Part::T2);
    // A second factor with a kernel of its own must have the weight's.
    if (has(Part::W2) && parts_.at(Part::W2).size() > 2)
      if (auto own = second.columns / std::max<std::int64_t>(1, parts_.at(Part::W2)[1]);
          own != kernel_)
        return false;
    return first.rows * second.rows == whole_.rows &&
           first.columns * second.columns == whole_.columns;
  }

  bool generalized() const {
    auto a1 = of(Part::A1), a2 = of(Part::A2), b1 = of(Part::B1), b2 = of(Part::B2);
    bool is_new = product(b1, b2) == whole_ && product(a1, a2) == Matrix{in_, in_};
    bool is_old =
        product(b2, b1) == whole_ && product(a2, a1) == Matrix{whole_.columns, whole_.columns};
    return is_new || is_old;
  }

  bool rotation() const {
    const auto& blocks = parts_.at(Part::Blocks);
    return blocks.size() == 3 && blocks[1] == blocks[2] && blocks[0] * blocks[1] == whole_.rows;
  }

  bool butterfly() const {
    const auto& blocks = parts_.at(Part::Blocks);
    if (blocks.size() != 4 || blocks[2] != blocks[3] || blocks[2] % 2 ||
        blocks[1] * blocks[2] != whole_.rows)
      return false;
    if (blocks[0] < 1 || blocks[0] > 40) return false;
    auto last = blocks[2] << (blocks[0] - 1);
    if (last == 0 || whole_.rows % last) return false;
    return !has(Part::Rescale) || count(Part::Rescale) == whole_.rows || count(Part::Rescale) == 1;
  }

  bool value() const { return count(Part::Value) == whole_.rows * whole_.columns; }

  bool magnitude() const {
    if (!has(Part::Magnitude)) return true;
    const auto& shape = parts_.at(Part::Magnitude);
    if (shape.empty()) return false;
    return shape[0] == whole_.rows ? count(Part::Magnitude) == whole_.rows
                                   : shape[0] == 1 && count(Part::Magnitude) == in_;
  }

 private:
  bool has(Part part) const { return parts_.count(part) != 0; }
  Matrix of(Part part) const { return has(part) ? matrix(parts_.at(part)) : Matrix{}; }
  std::int64_t count(Part part) const { return of(part).rows * of(part).columns; }
  static Matrix product(Matrix a, Matrix b) {
    return a.columns == b.rows && a.columns > 0 ? Matrix{a.rows, b.columns} : Matrix{};
  }
  /// A product with a core between the factors (which are then [i, out], [j, in]) or without.
  Matrix factors(Part first, Part second, Part core) const {
    auto a = of(first), b = of(second);
    if (!has(core)) return product(a, b);
    const auto& t = parts_.at(core);
    if (t.size() < 2 || t[0] != a.rows || t[1] != b.rows) return {};
    return {a.columns, b.columns * matrix(t).columns / t[1]};
  }

  const PartShapes& parts_;
  const Shape& weight_;
  Matrix whole_;
  std::int64_t in_, kernel_;
};

/// Whether it can be a factor of a product: it has rows and columns, and the first of a Kronecker
/// product no kernel.
bool is_factor(Part part, const Shape& shape) {
  if (part == Part::Value || part == Part::Magnitude || part == Part::Rescale) return true;
  return shape.size() >= 2 && (part != Part::W1 || matrix(shape).columns == shape[1]);
}

bool are_factors(const PartShapes& parts) {
  return std::all_of(parts.begin(), parts.end(),
                     [](const auto& part) { return is_factor(part.first, part.second); });
}

bool fits(AdapterKind kind, const Fit& fit) {
  switch (kind) {
    case AdapterKind::LowRank: return fit.low_rank();
    case AdapterKind::Hadamard: return fit.hadamard();
    case AdapterKind::Kronecker: return fit.kronecker();
    case AdapterKind::Generalized: return fit.generalized();
    case AdapterKind::Rotation: return fit.rotation();
    case AdapterKind::Butterfly: return fit.butterfly();
    case AdapterKind::Difference:
    case AdapterKind::Replacement: return fit.value();
  }
  return false;
}

}  // namespace

at::Tensor Adapter::part(Part which) const {
  auto at = parts.find(which);
  return at == parts.end() ? at::Tensor() : at->second;
}

std::string misfit(AdapterKind kind, const PartShapes& parts, Shape shape, const Shape& reshape) {
  if (!reshape.empty()) {
    bool grows = reshape.size() == shape.size();
    for (std::size_t i = 0; grows && i < shape.size(); ++i) grows = reshape[i] >= shape[i];
    if (!grows)
      return fmt::format("would reshape [{}] to [{}]", fmt::join(shape, ", "),
                         fmt::join(reshape, ", "));
    shape = reshape;
  }
  Fit fit(parts, shape);
  if (are_factors(parts) && fits(kind, fit) && fit.magnitude()) return "";
  std::vector<std::string> shapes;
  for (const auto& [part, its] : parts) shapes.push_back(fmt::format("[{}]", fmt::join(its, ", ")));
  return fmt::format(
      "has tensors of shape {}, which do not make a change of a weight of shape [{}]",
      fmt::join(shapes, ", "), fmt::join(shape, ", "));
}

}  // namespace distorch::weights
