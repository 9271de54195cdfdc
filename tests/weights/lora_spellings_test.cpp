// How LoRA files write what they change: each spelling alone, several at once, and what is missing.
#include <doctest/doctest.h>

#include "distorch/weights/lora.h"
#include "tests/support/tensor_files.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::weights;
using enum Part;
using enum AdapterKind;
using NamedTensors = std::map<std::string, at::Tensor>;

namespace {

/// A model of one layer with a bias: "w.weight" [6, 4], "w.bias" [6].
const Manifest& model() {
  static Manifest manifest;
  if (manifest.weights().empty()) {
    auto scope = Scope(manifest).block("only") / "w";
    scope.weight("weight", {6, 4});
    scope.weight("bias", {6});
  }
  return manifest;
}

LoraFile match(const TensorFiles& files, const NamedTensors& tensors,
               const LoraTargets& names = {{"x", "w.weight"}}, const Manifest& manifest = model()) {
  return match_lora(files.checkpoint(tensors), names, manifest);
}

struct Spelling {
  AdapterKind kind;
  std::vector<std::pair<Part, std::string>> endings;
  std::map<Part, std::vector<std::int64_t>> shapes;
};

const std::map<Part, std::vector<std::int64_t>> low_rank{{Up, {6, 2}}, {Down, {2, 4}}};

/// In the order in which the later one wins.
std::vector<Spelling> spellings() {
  return {
      {LowRank, {{Up, ".lora_up.weight"}, {Down, ".lora_down.weight"}}, low_rank},
      {LowRank, {{Up, "_lora.up.weight"}, {Down, "_lora.down.weight"}}, low_rank},
      {LowRank, {{Up, ".lora_B.weight"}, {Down, ".lora_A.weight"}}, low_rank},
      {LowRank, {{Up, ".lora.up.weight"}, {Down, ".lora.down.weight"}}, low_rank},
      {LowRank, {{Up, ".lora_B"}, {Down, ".lora_A"}}, low_rank},
      {LowRank,
       {{Up, ".lora_linear_layer.up.weight"}, {Down, ".lora_linear_layer.down.weight"}},
       low_rank},
      {LowRank, {{Up, ".lora_B.default.weight"}, {Down, ".lora_A.default.weight"}}, low_rank},
      {LowRank, {{Up, ".up.weight"}, {Down, ".down.weight"}}, low_rank},
      {Hadamard,
       {{W1a, ".hada_w1_a"}, {W1b, ".hada_w1_b"}, {W2a, ".hada_w2_a"}, {W2b, ".hada_w2_b"}},
       {{W1a, {6, 2}}, {W1b, {2, 4}}, {W2a, {6, 3}}, {W2b, {3, 4}}}},
      {Kronecker, {{W1, ".lokr_w1"}, {W2, ".lokr_w2"}}, {{W1, {2, 2}}, {W2, {3, 2}}}},
      {Kronecker,
       {{W1a, ".lokr_w1_a"}, {W1b, ".lokr_w1_b"}, {W2a, ".lokr_w2_a"}, {W2b, ".lokr_w2_b"}},
       {{W1a, {2, 1}}, {W1b, {1, 2}}, {W2a, {3, 1}}, {W2b, {1, 2}}}},
      {Generalized,
       {{A1, ".a1.weight"}, {A2, ".a2.weight"}, {B1, ".b1.weight"}, {B2, ".b2.weight"}},
       {{A1, {4, 2}}, {A2, {2, 4}}, {B1, {6, 2}}, {B2, {2, 4}}}},
      {Rotation, {{Blocks, ".oft_blocks"}}, {{Blocks, {2, 3, 3}}}},
      {Difference, {{Value, ".w_norm"}}, {{Value, {6, 4}}}},
      {Difference, {{Value, ".diff"}}, {{Value, {6, 4}}}},
      {Replacement, {{Value, ".set_weight"}}, {{Value, {6, 4}}}},
  };
}

NamedTensors written(const Spelling& spelling, double value) {
  NamedTensors tensors;
  for (const auto& [part, ending] : spelling.endings)
    tensors["x" + ending] = at::full(spelling.shapes.at(part), value, at::kFloat);
  return tensors;
}

}  // namespace

TEST_CASE("lora spellings: each is read as its kind, every tensor as its part") {
  TensorFiles files;
  for (const auto& spelling : spellings()) {
    auto ending = spelling.endings[0].second;
    CAPTURE(ending);
    auto lora = match(files, written(spelling, 1));
    REQUIRE(lora.adapters.size() == 1);
    const auto& named = lora.adapters[0];
    CHECK((named.kind == spelling.kind));
    CHECK(named.weight == "w.weight");
    CHECK(named.parts.size() == spelling.endings.size());
    for (const auto& [part, text] : spelling.endings)
      CHECK(named.parts.at(part).shape == spelling.shapes.at(part));
    CHECK(lora.unknown.empty());
    CHECK(lora.left_out.empty());
  }
}

TEST_CASE("lora spellings: alpha and magnitude go with every kind but whole values") {
  TensorFiles files;
  for (const auto& spelling : spellings()) {
    auto ending = spelling.endings[0].second;
    CAPTURE(ending);
    auto tensors = written(spelling, 1);
    tensors["x.alpha"] = at::full({1}, 0.25f);
    tensors["x.dora_scale"] = at::ones({6, 1});
    auto lora = match(files, tensors);
    REQUIRE(lora.adapters.size() == 1);
    bool is_value = spelling.kind == Difference || spelling.kind == Replacement;
    CHECK(lora.adapters[0].alpha == (is_value ? std::nullopt : std::optional(0.25)));
    CHECK((lora.adapters[0].parts.count(Magnitude) == 1) == !is_value);
    CHECK(lora.unknown.empty());
    CHECK(lora.left_out.empty());
  }
}

TEST_CASE("lora spellings: a tensor that is missing is named beside the one that is there") {
  TensorFiles files;
  for (const auto& spelling : spellings()) {
    if (spelling.endings.size() == 1) continue;
    for (std::size_t lost = 1; lost < spelling.endings.size(); ++lost) {
      auto tensors = written(spelling, 1);
      auto missing = "x" + spelling.endings[lost].second;
      tensors.erase(missing);
      auto there = "x" + spelling.endings[0].second;
      if (spelling.kind == Kronecker) {
        there = "x.lokr_*";
        missing = missing.substr(0, std::string("x.lokr_w1").size());
      }
      CHECK(refusal([&] { match(files, tensors); }) ==
            "format|model.safetensors|has '" + there + "' but not '" + missing + "'");
    }
  }
  NamedTensors cores = written(spellings()[8], 1);
  cores["x.hada_t1"] = at::ones({2, 2, 1, 1});
  CHECK(refusal([&] { match(files, cores); }) ==
        "format|model.safetensors|has 'x.hada_t1' but not 'x.hada_t2'");
}

TEST_CASE("lora spellings: of several low-rank ones the first counts, of several kinds the last") {
  TensorFiles files;
  auto all = spellings();
  for (std::size_t i = 0; i < all.size(); ++i)
    for (std::size_t j = i + 1; j < all.size(); ++j) {
      // Both write into the same parts of one adapter.
      if (all[i].kind == Kronecker && all[j].kind == Kronecker) continue;
      auto both = written(all[i], 1);
      both.merge(written(all[j], 2));
      auto lora = match(files, both);
      REQUIRE(lora.adapters.size() == 1);
      auto wins = all[i].kind == LowRank && all[j].kind == LowRank ? i : j;
      CAPTURE(all[i].endings[0].second);
      CAPTURE(all[j].endings[0].second);
      CHECK((lora.adapters[0].kind == all[wins].kind));
      auto read = read_adapter(lora.adapters[0], at::kCPU);
      CHECK(read.part(all[wins].endings[0].first).flatten()[0].item<float>() ==
            (wins == i ? 1.0f : 2.0f));
      // Tensors of a low-rank spelling that did not count were used by nobody.
      CHECK(lora.left_out.size() + lora.unknown.size() == (wins == i ? all[j].endings.size() : 0));
    }
}

TEST_CASE("lora spellings: differences of the bias stand beside those of the weight") {
  TensorFiles files;
  auto weights_of = [](const LoraFile& lora) {
    std::vector<std::string> names;
    for (const auto& named : lora.adapters) names.push_back(named.weight);
    return names;
  };
  using Names = std::vector<std::string>;
  auto bias = at::ones({6});
  CHECK(weights_of(match(files, {{"x.diff_b", bias}})) == Names{"w.bias"});
  CHECK(weights_of(match(files, {{"x.lora_B.bias", bias}})) == Names{"w.bias"});
  CHECK(weights_of(match(files, {{"x.w_norm", at::ones({6, 4})}, {"x.b_norm", bias}})) ==
        Names{"w.bias", "w.weight"});
  // A bias of a norm means nothing without the norm's weight.
  auto lone = match(files, {{"x.b_norm", bias}});
  CHECK(lone.adapters.empty());
  CHECK(lone.left_out.size() == 1);
  // A weight that is not called so has no bias beside it.
  Manifest other;
  Scope(other).block("only").weight("w.scale", {6});
  Scope(other).block("two").weight("w.bias", {6});
  auto none = match(files, {{"x.diff_b", bias}}, {{"x", "w.scale"}}, other);
  CHECK(none.adapters.empty());
  // A scale may lie in the file under its own name.
  auto scale = match(files, {{"x", bias}}, {{"x", "w.scale"}}, other);
  REQUIRE(scale.adapters.size() == 1);
  CHECK((scale.adapters[0].kind == Replacement));
}

TEST_CASE("lora spellings: blocks of four dimensions are a butterfly") {
  TensorFiles files;
  auto lora =
      match(files, {{"x.oft_blocks", at::ones({1, 3, 2, 2})}, {"x.rescale", at::ones({6, 1})}});
  REQUIRE(lora.adapters.size() == 1);
  CHECK((lora.adapters[0].kind == Butterfly));
  CHECK(lora.adapters[0].parts.count(Rescale) == 1);
}

TEST_CASE("lora spellings: an alpha is one number") {
  TensorFiles files;
  for (const auto& shape : {std::vector<std::int64_t>{2}, {0}, {1, 2}}) {
    auto tensors = written(spellings()[0], 1);
    tensors["x.alpha"] = at::ones(shape);
    CHECK(refusal([&] {
            match(files, tensors);
          }).starts_with("format|model.safetensors|'x.alpha' has shape ["));
  }
}

TEST_CASE("lora spellings: a weight that the file makes larger") {
  TensorFiles files;
  NamedTensors tensors{{"x.lora_up.weight", at::ones({6, 2})},
                       {"x.lora_down.weight", at::ones({2, 8})},
                       {"x.reshape_weight", at::tensor({6, 8}, at::kFloat)}};
  auto lora = match(files, tensors);
  REQUIRE(lora.adapters.size() == 1);
  CHECK(lora.adapters[0].reshape == std::vector<std::int64_t>{6, 8});
  tensors["x.reshape_weight"] = at::tensor({6, 2}, at::kFloat);
  lora = match(files, tensors);
  REQUIRE(lora.left_out.size() == 1);
  CHECK(lora.left_out[0] == "the adapter of 'w.weight' would reshape [6, 4] to [6, 2]");
}

TEST_CASE("lora spellings: the publisher's control files widen the first layer, no others do") {
  TensorFiles files;
  Manifest flux;
  auto scope = Scope(flux).block("only");
  scope.weight("img_in.weight", {6, 4});
  const LoraTargets names{{"img_in", "img_in.weight"}};
  NamedTensors tensors{{"img_in.lora_A.weight", at::ones({2, 8})},
                       {"img_in.lora_B.weight", at::ones({6, 2})}};
  CHECK(match(files, tensors, names, flux).left_out.size() == 1);
  tensors["single_blocks.0.norm.key_norm.scale"] = at::ones({3});
  auto control = match(files, tensors, names, flux);
  REQUIRE(control.adapters.size() == 1);
  CHECK(control.adapters[0].reshape == std::vector<std::int64_t>{6, 8});
  tensors["img_in.lora_A.weight"] = at::ones({2, 4});
  control = match(files, tensors, names, flux);
  REQUIRE(control.adapters.size() == 1);
  CHECK(control.adapters[0].reshape.empty());
}

TEST_CASE("lora spellings: a matrix in pieces gives each piece its rows, swapped ones turned") {
  TensorFiles files;
  Manifest pieces;
  auto scope = Scope(pieces).block("only");
  scope.weight("q", {2, 4});
  scope.weight("k", {4, 4});
  LoraTarget whole("q");
  whole.piece = {0, 2, 6};
  LoraTarget rest("k");
  rest.piece = {2, 4, 6};
  whole.others = {rest};
  auto up = at::arange(12, at::kFloat).view({6, 2});
  auto magnitude = at::arange(6, at::kFloat).view({6, 1});
  auto lora = match(files,
                    {{"x.lora_up.weight", up},
                     {"x.lora_down.weight", at::ones({2, 4})},
                     {"x.dora_scale", magnitude}},
                    {{"x", whole}}, pieces);
  REQUIRE(lora.adapters.size() == 2);
  CHECK(lora.adapters[0].weight == "k");
  auto k = read_adapter(lora.adapters[0], at::kCPU), q = read_adapter(lora.adapters[1], at::kCPU);
  CHECK(at::equal(q.part(Up), up.narrow(0, 0, 2)));
  CHECK(at::equal(k.part(Up), up.narrow(0, 2, 4)));
  CHECK(at::equal(k.part(Down), at::ones({2, 4})));
  CHECK(at::equal(k.part(Magnitude), magnitude.narrow(0, 2, 4)));

  // A magnitude of columns, a kind whose rows cannot be told apart, and an odd number of rows.
  auto refused = match(files,
                       {{"x.lora_up.weight", up},
                        {"x.lora_down.weight", at::ones({2, 4})},
                        {"x.dora_scale", at::ones({1, 4})}},
                       {{"x", whole}}, pieces);
  CHECK(refused.adapters.empty());
  REQUIRE(refused.left_out.size() == 2);
  CHECK(refused.left_out[0].ends_with(
      "is for a matrix that the model's file keeps in pieces, and this kind of adapter needs it "
      "whole"));
  CHECK(match(files, {{"x.oft_blocks", at::ones({2, 3, 3})}}, {{"x", whole}}, pieces)
            .left_out.size() == 2);

  LoraTarget turned("w.weight");
  turned.swapped = true;
  auto swapped =
      match(files, {{"x.diff", at::arange(24, at::kFloat).view({6, 4})}}, {{"x", turned}});
  REQUIRE(swapped.adapters.size() == 1);
  auto value = read_adapter(swapped.adapters[0], at::kCPU).part(Value);
  // Rows begin with 0, 4, 8 | 12, 16, 20.
  CHECK(at::equal(value.select(1, 0), at::tensor({12.f, 16.f, 20.f, 0.f, 4.f, 8.f})));
}

TEST_CASE(
    "lora spellings: what no name leads to is unknown, what a known name has besides is said") {
  TensorFiles files;
  auto lora = match(files, {{"x.lora_up.weight", at::ones({6, 2})},
                            {"x.lora_down.weight", at::ones({2, 4})},
                            {"x.lora_down.bias", at::ones({2})},
                            {"xx.lora_up.weight", at::ones({1})},
                            {".x", at::ones({1})},
                            {"y", at::ones({1})}});
  CHECK(lora.adapters.size() == 1);
  CHECK(lora.unknown == std::vector<std::string>{".x", "xx.lora_up.weight", "y"});
  REQUIRE(lora.left_out.size() == 1);
  CHECK(lora.left_out[0] ==
        "'x.lora_down.bias' belongs to 'w.weight', but no kind of adapter that distorch knows has "
        "a tensor '.lora_down.bias'");
}

TEST_CASE("adapter: strength, rows and alpha are those that it was made with") {
  TensorFiles files;
  auto tensors = written(spellings()[0], 1);
  tensors["x.alpha"] = at::full({}, 8.0f);
  auto lora = match(files, tensors);
  auto adapter = make_adapter(lora.adapters[0], {at::zeros({6, 2}), at::ones({2, 4})}, -0.75);
  CHECK(adapter.strength == -0.75);
  CHECK(adapter.alpha == 8.0);
  CHECK(adapter.rows == 0);
  CHECK(adapter.part(Up).sum().item<float>() == 0);
  CHECK(read_adapter(lora.adapters[0], at::kCPU).strength == 1.0);
  CHECK(lora.adapters[0].size_bytes() == (6 * 2 + 2 * 4) * 4);
}
