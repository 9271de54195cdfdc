#include "distorch/sampling/brownian_tree.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "distorch/sampling/seed_sequence.h"

namespace distorch::sampling {
namespace {

constexpr int kPoolSize = 24;
// Increments kept for later questions: neighbours share most of the path to the root (about 24
// levels).
constexpr std::size_t kCacheSize = 48;

// To 6 decimals, ties by the exact binary value, as Python rounds: equal times compare equal.
double rounded(double time) {
  char text[64];
  std::snprintf(text, sizeof text, "%.6f", time);
  return std::strtod(text, nullptr);
}

}  // namespace

struct BrownianTree::Node {
  double start = 0;
  double end = 0;
  Node* parent = nullptr;
  bool is_left = false;
  std::uint64_t path = 0;  // the way from the root, a bit a level: the spawn key
  std::uint64_t depth = 0;

  double middle = 0;  // from here on: once divided
  std::uint32_t seed = 0;
  std::unique_ptr<Node> left;
  std::unique_ptr<Node> right;

  at::Tensor increment;  // where cached
};

BrownianTree::BrownianTree(double start, double end, std::vector<std::int64_t> shape,
                           std::uint64_t seed)
    : shape_(std::move(shape)), seed_(seed), root_(std::make_unique<Node>()) {
  root_->start = rounded(start);
  root_->end = rounded(end);
  const std::uint32_t first = SeedSequence(seed, {}, kPoolSize).generate(1)[0];
  root_->increment = normal(first) * std::sqrt(end - start);
}

BrownianTree::~BrownianTree() = default;

at::Tensor BrownianTree::normal(std::uint32_t seed) const {
  return at::randn(shape_, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kFloat));
}

void BrownianTree::divide(Node& node) {
  const double half = 0.5 * (node.end + node.start);
  node.middle = rounded(half);
  node.seed = SeedSequence(seed_, {node.path, node.depth}, kPoolSize).generate(1)[0];
  auto child = [&](double start, double end, bool is_left) {
    auto made = std::make_unique<Node>();
    made->start = start;
    made->end = end;
    made->parent = &node;
    made->is_left = is_left;
    made->path = 2 * node.path + (is_left ? 0 : 1);
    made->depth = node.depth + 1;
    return made;
  };
  node.left = child(node.start, node.middle, true);
  node.right = child(node.middle, node.end, false);
}

// Halves the interval around `time` until `time` is an end of one.
void BrownianTree::divide_until(Node& node, double time) {
  Node* at = &node;
  for (;;) {
    divide(*at);
    if (time == at->middle) {
      return;
    }
    at = time > at->middle ? at->right.get() : at->left.get();
  }
}

// The nodes that tile [from, to], in order.
void BrownianTree::collect(Node& node, double from, double to, std::vector<Node*>& out) {
  if (from == node.start && to == node.end) {
    out.push_back(&node);
    return;
  }
  if (!node.left) {
    divide_until(node, from == node.start ? to : from);
  }
  if (from < node.middle) {
    collect(*node.left, from, std::min(to, node.middle), out);
  }
  if (to > node.middle) {
    collect(*node.right, std::max(from, node.middle), to, out);
  }
}

at::Tensor BrownianTree::value(Node& node) {
  if (node.increment.defined()) {
    return node.increment;
  }
  Node& parent = *node.parent;
  const at::Tensor whole = value(parent);
  const double reciprocal = 1 / (parent.end - parent.start);
  const double left = parent.middle - parent.start;
  const double right = parent.end - parent.middle;
  const double deviation = std::sqrt(left * right * reciprocal);
  at::Tensor increment = whole * left * reciprocal + normal(parent.seed) * deviation;
  if (!node.is_left) {
    increment = whole - increment;
  }
  node.increment = increment;
  cached_.push_back(&node);
  if (cached_.size() > kCacheSize) {
    cached_.front()->increment.reset();
    cached_.pop_front();
  }
  return increment;
}

at::Tensor BrownianTree::increment(double from, double to) {
  from = rounded(std::clamp(from, root_->start, root_->end));
  to = rounded(std::clamp(to, root_->start, root_->end));
  if (!(from < to)) {
    return at::zeros(shape_, at::kFloat);
  }
  std::vector<Node*> tiles;
  collect(*root_, from, to, tiles);
  at::Tensor sum = value(*tiles.front());
  for (std::size_t i = 1; i < tiles.size(); ++i) {
    sum = sum + value(*tiles[i]);
  }
  return sum;
}

}  // namespace distorch::sampling
