#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

namespace distorch::sampling {

/// A Brownian path on [start, end] that is the same for a seed whatever is asked and in what order:
/// halving intervals, each midpoint a Brownian bridge with a seed of its own, times rounded to
/// 1e-6. Bit for bit torchsde.BrownianTree on the CPU (tolerance 1e-6, pool size 24). float32.
class BrownianTree {
 public:
  BrownianTree(double start, double end, std::vector<std::int64_t> shape, std::uint64_t seed);
  ~BrownianTree();

  /// W(to) - W(from), from <= to; times outside the path are moved to its ends.
  at::Tensor increment(double from, double to);

 private:
  struct Node;
  at::Tensor normal(std::uint32_t seed) const;
  void divide(Node& node);
  void divide_until(Node& node, double time);
  void collect(Node& node, double from, double to, std::vector<Node*>& out);
  at::Tensor value(Node& node);

  std::vector<std::int64_t> shape_;
  std::uint64_t seed_;
  std::unique_ptr<Node> root_;
  std::deque<Node*> cached_;  // nodes that hold their increment, oldest first
};

}  // namespace distorch::sampling
