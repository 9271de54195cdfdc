#include "distorch/sampling/several_calls.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/sampling/step_cache.h"
#include "tests/sampling/closed_form.h"

using namespace distorch;
using namespace distorch::sampling;
using namespace distorch::test;

namespace {

/// Makes so many calls at once: backwards, as threads may.
class Several final : public ClosedForm, public SeveralCalls {
 public:
  explicit Several(std::size_t at_once) : at_once_(at_once) {}
  std::size_t at_once() const override { return at_once_; }
  std::vector<at::Tensor> apply_all(const std::vector<NetworkCall>& calls) override {
    rounds.push_back(calls.size());
    std::vector<at::Tensor> results(calls.size());
    for (std::size_t i = calls.size(); i-- > 0;)
      results[i] = apply(calls[i].x, calls[i].sigma, calls[i].inputs, calls[i].facts);
    return results;
  }
  std::vector<std::size_t> rounds;  // calls of every step so far

 private:
  std::size_t at_once_;
};

PreparedItem item(float constant, std::int64_t tokens = 1) {
  PreparedItem one;
  one.inputs["c_crossattn"] = {ModelInput::Kind::CrossAttn, at::full({1, tokens, 4}, constant)};
  return one;
}

at::Tensor latent() { return at::arange(2 * 4 * 8 * 8, at::kFloat).view({2, 4, 8, 8}) / 500; }

std::vector<at::Tensor> one_by_one(const std::vector<const std::vector<PreparedItem>*>& lists) {
  ClosedForm plain;
  plain.largest_batch = 2;
  return predict_each(plain, lists, latent(), 3.0f);
}

}  // namespace

TEST_CASE("conditionings are shared out over calls that run at once, with the bits of one by one") {
  const std::vector<PreparedItem> positive{item(0.3f)}, negative{item(-0.1f)};
  Several model(2);
  const auto each = predict_each(model, {&positive, &negative}, latent(), 3.0f);
  const auto wanted = one_by_one({&positive, &negative});
  CHECK(at::equal(each[0], wanted[0]));
  CHECK(at::equal(each[1], wanted[1]));
  CHECK(model.rounds == std::vector<std::size_t>{2});
  CHECK(model.batches == std::vector<std::int64_t>{2, 2});
}

TEST_CASE("more conditionings than devices: as even as they can be shared") {
  std::vector<PreparedItem> positive{item(0.3f), item(0.2f)}, negative{item(-0.1f)};
  // One with an area of its own and one of another length go in calls of their own.
  positive[1].box = PreparedItem::Box{{4, 8}, {2, 0}};
  const std::vector<PreparedItem> third{item(0.5f, 7)};
  const auto wanted = one_by_one({&positive, &negative, &third});
  for (std::size_t devices : {2, 3, 8}) {
    CAPTURE(devices);
    Several model(devices);
    const auto each = predict_each(model, {&positive, &negative, &third}, latent(), 3.0f);
    for (std::size_t i = 0; i < 3; ++i) CHECK(at::equal(each[i], wanted[i]));
    CHECK(model.rounds.size() == 1);
    CHECK(model.rounds[0] >= std::min<std::size_t>(devices, 3));
  }
}

TEST_CASE("five alike on two devices: calls of three and two") {
  const std::vector<PreparedItem> list{item(0.1f), item(0.2f), item(0.3f), item(0.4f), item(0.5f)};
  Several model(2);
  predict_each(model, {&list}, latent(), 3.0f);
  CHECK(model.rounds == std::vector<std::size_t>{2});
  std::sort(model.batches.begin(), model.batches.end());
  CHECK(model.batches == std::vector<std::int64_t>{4, 6});
}

TEST_CASE("one conditioning, or a cache that learns from call to call: one after the other") {
  const std::vector<PreparedItem> positive{item(0.3f)}, negative{item(-0.1f)};
  Several model(2);
  predict_each(model, {&positive}, latent(), 3.0f);
  StepCache cache(CachedSteps{}, model.sampling());
  predict_each(model, {&positive, &negative}, latent(), 3.0f, nullptr, &cache);
  CHECK(model.rounds.empty());
}
