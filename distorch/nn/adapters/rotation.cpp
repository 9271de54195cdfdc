#include "distorch/nn/adapters/change.h"

namespace distorch::nn {
namespace {

using at::Tensor;
using weights::Part;

/// Enough for generators up to a norm of 60, far beyond what training makes.
constexpr int inverse_steps = 14;

/// The inverse of 1 - q for skew matrices q [n, b, b], by Newton's iteration: multiplications only.
/// The eigenvalues of (1 - q)(1 - q)ᵀ lie between 1 and `largest`, so the first guess converges.
Tensor inverse_of_one_minus(const Tensor& q) {
  auto a = at::eye(q.size(-1), q.options()) - q;
  auto largest = q.square().sum({-2, -1}, true) / 2 + 1;
  auto x = a.transpose(-2, -1) * (2 / (1 + largest));
  for (int i = 0; i < inverse_steps; ++i) x = at::baddbmm(x, x, at::bmm(a, x), 2, -1);
  return x;
}

/// The rotations (1 + q)(1 - q)⁻¹ of generators q = blocks - blocksᵀ, [n, b, b] in float32. An
/// alpha bounds the norm of all q together.
Tensor rotations(const weights::Adapter& adapter) {
  auto blocks = part_of(adapter, Part::Blocks, at::kFloat);
  if (blocks.dim() == 4) blocks = blocks.flatten(0, 1);
  auto q = blocks - blocks.transpose(-2, -1);
  if (auto bound = adapter.alpha.value_or(0); bound > 0)
    q = q * (bound / (q.norm() + 1e-8)).clamp_max(1);
  return at::bmm(q + at::eye(q.size(-1), q.options()), inverse_of_one_minus(q));
}

/// t [..., n · b], each part of b numbers multiplied by its matrix [n, b, b].
Tensor by_blocks(const Tensor& t, const Tensor& matrices) {
  auto parts = t.reshape({-1, matrices.size(0), matrices.size(1)}).transpose(0, 1);
  auto turned = at::bmm(parts, matrices.transpose(1, 2).to(t.scalar_type()));
  return turned.transpose(0, 1).reshape(t.sizes());
}

/// What both kinds share: something done to the output's channels, or to the rows of W.
class Turned : public Change {
 public:
  explicit Turned(const weights::Adapter& adapter) : adapter_(adapter) {}
  double unit(bool has_magnitude) const override {
    return has_magnitude ? adapter_.alpha.value_or(0) : 1;
  }
  bool uses_weight() const override { return true; }
  Tensor rows(const Tensor& tile, const Rows& which) const override {
    return turn(tile.t(), which.first).t();
  }
  Tensor change(const Tensor&, const Tensor& y, const Before&,
                const Products& products) const override {
    auto channels = products.channels();
    return turn(y.movedim(channels, -1), 0).movedim(-1, channels);
  }

 protected:
  /// The change of numbers [..., n] that belong to the rows from `first` on.
  virtual Tensor turn(const Tensor& t, std::int64_t first) const = 0;

  weights::Adapter adapter_;
};

class Rotation final : public Turned {
 public:
  using Turned::Turned;
  std::int64_t granule() const override { return adapter_.part(Part::Blocks).size(1); }

 protected:
  Tensor turn(const Tensor& t, std::int64_t first) const override {
    auto r = rotations(adapter_);
    r = r.narrow(0, first / granule(), t.size(-1) / granule()).transpose(1, 2);
    return by_blocks(t, (r - at::eye(r.size(-1), r.options())) * adapter_.strength);
  }
};

class Butterfly final : public Turned {
 public:
  Butterfly(const weights::Adapter& adapter, const Extent& extent)
      : Turned(adapter), out_(extent.out) {}
  std::int64_t granule() const override { return out_; }

 protected:
  Tensor turn(const Tensor& t, std::int64_t) const override {
    auto sizes = adapter_.part(Part::Blocks).sizes();
    auto stages = sizes[0], count = sizes[1], width = sizes[2];
    auto s = adapter_.strength;
    auto r = rotations(adapter_) * s + at::eye(width, t.options().dtype(at::kFloat)) * (1 - s);
    auto turned = t;
    for (std::int64_t stage = 0; stage < stages; ++stage) {
      auto reach = (width / 2) << stage;
      auto shuffled = turned.unflatten(-1, {-1, 2, reach}).transpose(-2, -1).flatten(-3);
      shuffled = by_blocks(shuffled, r.narrow(0, stage * count, count));
      turned = shuffled.unflatten(-1, {-1, reach, 2}).transpose(-2, -1).flatten(-3);
    }
    if (auto rescale = part_of(adapter_, Part::Rescale, t.scalar_type()); rescale.defined())
      turned = turned * rescale.flatten();
    return turned - t;
  }

 private:
  std::int64_t out_;
};

}  // namespace

std::unique_ptr<Change> rotation(const weights::Adapter& adapter, const Extent&) {
  return std::make_unique<Rotation>(adapter);
}

std::unique_ptr<Change> butterfly(const weights::Adapter& adapter, const Extent& extent) {
  return std::make_unique<Butterfly>(adapter, extent);
}

}  // namespace distorch::nn
