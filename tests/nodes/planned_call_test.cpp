#include "distorch/nodes/planned_call.h"

#include <doctest/doctest.h>

using namespace distorch;
using models::Extent;
using models::InputSpec;
using nodes::plan_call;
using sampling::Conditioning;
using sampling::ConditioningItem;
using sampling::EncodeContext;
using sampling::ModelInputs;
using Sizes = std::vector<std::int64_t>;

namespace {

models::InputSpecs specs(InputSpec::Kind text) {
  const auto batch = Extent::batch();
  return {
      {.name = "x",
       .meaning = "latent",
       .shape = {batch, Extent::number(4), Extent::cells()},
       .source = InputSpec::Source::Sampler},
      {.name = "text",
       .meaning = "text",
       .kind = text,
       .shape = {batch, Extent::tokens(), Extent::number(8)}},
      {.name = "reference_latents.0",
       .meaning = "reference picture",
       .shape = {batch, Extent::number(4), Extent::any(), Extent::any()},
       .optional = true},
      {.name = "method", .meaning = "method", .kind = InputSpec::Kind::Constant, .optional = true}};
}

/// As a family does it.
ModelInputs encode(InputSpec::Kind text, const ConditioningItem& item,
                   const EncodeContext& context) {
  CHECK(context.noise.is_meta());
  ModelInputs inputs;
  inputs["text"] = {text, item.cross_attn, {}};
  if (!item.reference_latents.empty()) {
    inputs["reference_latents.0"] = {
        InputSpec::Kind::Regular, item.reference_latents[0].to(context.noise.device()) * 2, {}};
    inputs["method"] = {InputSpec::Kind::Constant, {}, 1.0};
  }
  return inputs;
}

ConditioningItem text_of(std::int64_t tokens) {
  ConditioningItem item;
  item.cross_attn = at::zeros({1, tokens, 8});
  return item;
}

nodes::PlannedCall planned(InputSpec::Kind text, const Conditioning& positive,
                           const Conditioning& negative, double cfg = 3) {
  return plan_call(specs(text), {{2, 4, 6, 5}, 4, cfg, positive, negative},
                   [&](const ConditioningItem& item, const EncodeContext& context) {
                     return encode(text, item, context);
                   });
}

}  // namespace

TEST_CASE("planned call: inputs have the sizes that the conditionings are encoded to") {
  auto item = text_of(5);
  item.reference_latents = {at::zeros({1, 4, 3, 11})};
  auto call = planned(InputSpec::Kind::Regular, {item}, {}, 1.0);
  CHECK(call.sizes.batch == 2);
  CHECK((call.sizes.cells == Sizes{6, 5}));
  CHECK(call.sizes.tokens == 5);
  CHECK((call.known.shapes.at("reference_latents.0") == Sizes{2, 4, 3, 11}));

  auto inputs =
      models::blank_inputs(specs(InputSpec::Kind::Regular), call.sizes, at::kMeta, {}, call.known);
  models::check_inputs(specs(InputSpec::Kind::Regular), inputs);
  CHECK((inputs["reference_latents.0"].sizes() == Sizes{2, 4, 3, 11}));
  CHECK((inputs["text"].sizes() == Sizes{2, 5, 8}));
  CHECK(inputs.number("method", 0) == 1.0);

  // Another picture is another plan.
  item.reference_latents = {at::zeros({1, 4, 3, 12})};
  CHECK(planned(InputSpec::Kind::Regular, {item}, {}, 1.0).key() != call.key());
}

TEST_CASE("planned call: two conditionings in one where their inputs allow it") {
  using Kind = InputSpec::Kind;
  CHECK(planned(Kind::Regular, {text_of(5)}, {text_of(5)}).sizes.batch == 4);
  // The negative is not computed.
  CHECK(planned(Kind::Regular, {text_of(5)}, {text_of(5)}, 1.0).sizes.batch == 2);
  auto apart = planned(Kind::Regular, {text_of(5)}, {text_of(6)});
  CHECK(apart.sizes.batch == 2);
  CHECK((apart.known.shapes.at("text") == Sizes{2, 6, 8}));
  // Texts that are repeated to a common length.
  auto repeated = planned(Kind::CrossAttn, {text_of(4)}, {text_of(6)});
  CHECK(repeated.sizes.batch == 4);
  CHECK((repeated.known.shapes.at("text") == Sizes{4, 12, 8}));
  CHECK(repeated.sizes.tokens == 12);
}

TEST_CASE("planned call: without a text the usual number of tokens") {
  auto call =
      plan_call(specs(InputSpec::Kind::CrossAttn), {{1, 4, 6, 5}, 4, 1.0, {}, {}},
                [](const ConditioningItem&, const EncodeContext&) { return ModelInputs{}; });
  CHECK(call.sizes.tokens == 77);
  CHECK(call.known.shapes.empty());
}

TEST_CASE(
    "planned call: a step makes as many as its conditionings need, fewer where several run at "
    "once") {
  const auto kind = InputSpec::Kind::Regular;
  const Conditioning one{text_of(5)}, other{text_of(7)}, two{text_of(5), text_of(7)};
  const auto calls = [&](const Conditioning& positive, const Conditioning& negative, int at_once) {
    const auto call = plan_call(specs(kind),
                                {.latent = {2, 4, 6, 5},
                                 .steps = 4,
                                 .cfg = 3,
                                 .positive = positive,
                                 .negative = negative,
                                 .at_once = at_once},
                                [&](const ConditioningItem& item, const EncodeContext& context) {
                                  return encode(kind, item, context);
                                });
    return std::pair(call.calls, call.sizes.batch);
  };
  using Calls = std::pair<std::int64_t, std::int64_t>;
  // Those that share a call, and those of other lengths, which do not.
  CHECK(calls(one, one, 1) == Calls{1, 4});
  CHECK(calls(one, one, 2) == Calls{1, 2});
  CHECK(calls(one, other, 1) == Calls{2, 2});
  CHECK(calls(one, other, 2) == Calls{1, 2});
  CHECK(calls(two, one, 1) == Calls{2, 4});
  CHECK(calls(two, one, 2) == Calls{2, 2});
  CHECK(calls(two, one, 3) == Calls{1, 2});
}
