// Which shapes an adapter's tensors may have for a weight, against rules written out by hand.
#include <doctest/doctest.h>

#include "distorch/weights/adapter.h"

using namespace distorch;
using namespace distorch::weights;
using Shape = std::vector<std::int64_t>;
using enum Part;

namespace {

struct Case {
  const char* what;
  AdapterKind kind;
  Shape weight;
  PartShapes parts;
};

bool fits(const Case& c, const Shape& reshape = {}) {
  return misfit(c.kind, c.parts, c.weight, reshape).empty();
}

using enum AdapterKind;

/// Adapters that fit; the tests take them apart.
std::vector<Case> fitting() {
  return {
      {"matrix", LowRank, {6, 4}, {{Up, {6, 2}}, {Down, {2, 4}}}},
      {"matrix with 1x1", LowRank, {6, 4}, {{Up, {6, 2, 1, 1}}, {Down, {2, 4, 1, 1}}}},
      {"kernel in the second factor",
       LowRank,
       {6, 4, 3, 3},
       {{Up, {6, 2, 1, 1}}, {Down, {2, 4, 3, 3}}}},
      {"kernel between the factors",
       LowRank,
       {6, 4, 3, 3},
       {{Up, {6, 2, 1, 1}}, {Down, {2, 4, 1, 1}}, {Mid, {2, 2, 3, 3}}}},
      {"hadamard", Hadamard, {6, 4}, {{W1a, {6, 2}}, {W1b, {2, 4}}, {W2a, {6, 3}}, {W2b, {3, 4}}}},
      {"hadamard with cores",
       Hadamard,
       {6, 4, 3, 3},
       {{W1a, {2, 6}},
        {W1b, {5, 4}},
        {W2a, {2, 6}},
        {W2b, {5, 4}},
        {T1, {2, 5, 3, 3}},
        {T2, {2, 5, 3, 3}}}},
      {"kronecker", Kronecker, {6, 4}, {{W1, {2, 2}}, {W2, {3, 2}}}},
      {"kronecker of products",
       Kronecker,
       {6, 4},
       {{W1a, {2, 5}}, {W1b, {5, 2}}, {W2a, {3, 7}}, {W2b, {7, 2}}}},
      {"kronecker of a kernel", Kronecker, {6, 4, 3, 3}, {{W1, {2, 2}}, {W2, {3, 2, 3, 3}}}},
      {"kronecker with a core",
       Kronecker,
       {6, 4, 3, 3},
       {{W1, {2, 2}}, {W2a, {7, 3}}, {W2b, {5, 2}}, {T2, {7, 5, 3, 3}}}},
      {"generalized",
       Generalized,
       {6, 4},
       {{A1, {4, 2}}, {A2, {2, 4}}, {B1, {6, 2}}, {B2, {2, 4}}}},
      {"generalized, old",
       Generalized,
       {6, 4},
       {{A1, {2, 4}}, {A2, {4, 2}}, {B1, {2, 4}}, {B2, {6, 2}}}},
      {"rotation", Rotation, {6, 4}, {{Blocks, {2, 3, 3}}}},
      {"butterfly", Butterfly, {8, 4}, {{Blocks, {2, 2, 4, 4}}}},
      {"butterfly, rescaled", Butterfly, {8, 4}, {{Blocks, {3, 4, 2, 2}}, {Rescale, {8, 1}}}},
      {"difference", Difference, {6, 4}, {{Value, {6, 4}}}},
      {"difference of a vector", Difference, {6}, {{Value, {6}}}},
      {"replacement", Replacement, {6, 4}, {{Value, {24}}}},
  };
}

}  // namespace

TEST_CASE("adapter shapes: every kind fits as its formula says") {
  for (const auto& c : fitting()) CHECK_MESSAGE(fits(c), c.what);
}

TEST_CASE("adapter shapes: one size of one tensor that is one off is refused") {
  for (const auto& c : fitting())
    for (const auto& [part, shape] : c.parts)
      for (std::size_t i = 0; i < shape.size(); ++i) {
        auto wrong = c;
        wrong.parts[part][i] += 1;
        // A trailing dimension of a rank-1 difference is no wrong one.
        CAPTURE(c.what);
        CAPTURE(static_cast<int>(part));
        CAPTURE(i);
        CHECK_FALSE(fits(wrong));
      }
}

TEST_CASE("adapter shapes: a weight of another size is refused, whichever dimension") {
  for (const auto& c : fitting())
    for (std::size_t i = 0; i < c.weight.size(); ++i) {
      // A rotation turns rows, whatever their number of columns.
      if (i > 0 && (c.kind == Rotation || c.kind == Butterfly)) continue;
      auto wrong = c;
      wrong.weight[i] += 1;
      CAPTURE(c.what);
      CAPTURE(i);
      CHECK_FALSE(fits(wrong));
    }
}

TEST_CASE("adapter shapes: a magnitude is one of the rows or one of the columns") {
  for (auto c : fitting()) {
    if (c.kind == Difference || c.kind == Replacement) continue;
    CAPTURE(c.what);
    const auto out = c.weight[0], in = c.weight[1];
    for (const Shape& right :
         {Shape{out, 1}, Shape{out}, Shape{out, 1, 1, 1}, Shape{1, in}, Shape{1, in, 1, 1}}) {
      c.parts[Magnitude] = right;
      CHECK(fits(c));
    }
    for (const Shape& wrong : {Shape{}, Shape{out + 1}, Shape{out, 2}, Shape{in, 1}, Shape{1, out},
                               Shape{1, in, 3, 3}}) {
      c.parts[Magnitude] = wrong;
      CHECK_FALSE(fits(c));
    }
  }
}

TEST_CASE("adapter shapes: a weight may be made larger first, never smaller") {
  const Case c{"wider", LowRank, {6, 4}, {{Up, {6, 2}}, {Down, {2, 8}}}};
  CHECK_FALSE(fits(c));
  CHECK(fits(c, {6, 8}));
  CHECK_FALSE(fits(c, {6, 7}));
  CHECK(misfit(c.kind, c.parts, c.weight, {5, 8}) == "would reshape [6, 4] to [5, 8]");
  CHECK(misfit(c.kind, c.parts, c.weight, {6, 8, 1}) == "would reshape [6, 4] to [6, 8, 1]");
}

TEST_CASE("adapter shapes: the sentence has all shapes and the weight's") {
  CHECK(misfit(LowRank, {{Up, {6, 2}}, {Down, {3, 4}}}, {6, 4}) ==
        "has tensors of shape [6, 2], [3, 4], which do not make a change of a weight of shape [6, "
        "4]");
}

TEST_CASE("adapter shapes: the blocks of a butterfly are even, and as many as rows can be halved") {
  auto butterfly = [](const Shape& blocks, std::int64_t rows) {
    return misfit(Butterfly, {{Blocks, blocks}}, {rows, 4}).empty();
  };
  CHECK(butterfly({1, 4, 2, 2}, 8));
  CHECK(butterfly({3, 4, 2, 2}, 8));        // 2 · 2² rows are shuffled together
  CHECK_FALSE(butterfly({4, 4, 2, 2}, 8));  // 2 · 2³ are more than there are
  CHECK_FALSE(butterfly({0, 4, 2, 2}, 8));
  CHECK_FALSE(butterfly({1, 3, 3, 3}, 9));
  CHECK_FALSE(butterfly({1, 4, 2, 4}, 8));
  CHECK_FALSE(butterfly({41, 4, 2, 2}, 8));
  CHECK_FALSE(butterfly({64, 4, 2, 2}, 8));
  CHECK_FALSE(butterfly({4, 2, 2}, 8));
  auto rescaled = [](const Shape& rescale) {
    return misfit(Butterfly, {{Blocks, {1, 4, 2, 2}}, {Rescale, rescale}}, {8, 4}).empty();
  };
  CHECK(rescaled({8, 1}));
  CHECK(rescaled({1}));
  CHECK(rescaled({}));
  CHECK_FALSE(rescaled({4}));
}

TEST_CASE("adapter: nothing changes at strength 0, unless it replaces or widens") {
  for (auto kind : {LowRank, Hadamard, Kronecker, Generalized, Rotation, Butterfly, Difference}) {
    CHECK(Adapter{.kind = kind, .strength = 0}.is_nothing());
    CHECK_FALSE(Adapter{.kind = kind, .strength = -0.5}.is_nothing());
    CHECK_FALSE(Adapter{.kind = kind, .reshape = {2, 2}, .strength = 0}.is_nothing());
  }
  CHECK_FALSE(Adapter{.kind = Replacement, .strength = 0}.is_nothing());
}

TEST_CASE(
    "adapter shapes: factors have a rank, rows and columns, and the first Kronecker one no "
    "kernel") {
  auto refused = [](AdapterKind kind, const Shape& weight, const PartShapes& parts) {
    return !misfit(kind, parts, weight).empty();
  };
  CHECK(refused(LowRank, {6, 4}, {{Up, {6, 0}}, {Down, {0, 4}}}));
  CHECK(refused(LowRank, {6, 4}, {{Up, {6}}, {Down, {1, 4}}}));
  CHECK(refused(LowRank, {1, 4}, {{Up, {}}, {Down, {1, 4}}}));
  CHECK(refused(Hadamard, {6, 4}, {{W1a, {6, 0}}, {W1b, {0, 4}}, {W2a, {6, 3}}, {W2b, {3, 4}}}));
  CHECK(refused(Kronecker, {6, 4}, {{W1, {}}, {W2, {6, 4}}}));
  CHECK(refused(Kronecker, {6, 4}, {{W1, {6}}, {W2, {1, 4}}}));
  CHECK(refused(Kronecker, {6, 4}, {{W1, {6, 4}}, {W2, {}}}));
  CHECK(refused(Kronecker, {6, 4, 3, 3}, {{W1, {1, 1, 3, 3}}, {W2, {6, 4}}}));
  CHECK(refused(Kronecker, {6, 4}, {{W1a, {2, 0}}, {W1b, {0, 2}}, {W2, {3, 2}}}));
  CHECK_FALSE(refused(Kronecker, {6, 4}, {{W1, {1, 1}}, {W2, {6, 4}}}));
  CHECK_FALSE(refused(Kronecker, {6, 4, 3, 3}, {{W1, {2, 2, 1, 1}}, {W2, {3, 2, 3, 3}}}));
}
