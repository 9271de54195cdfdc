#include "distorch/sampling/guidance_pipeline.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/sampling/step_cache.h"
#include "tests/sampling/closed_form.h"

using namespace distorch;
using namespace distorch::sampling;
using namespace distorch::test;

// The formulas themselves are compared with ComfyUI's through the nodes (tests/nodes,
// nodes_guidance); here are those that need networks which tests/nodes has not.
namespace {

/// Answers the prompt's constants, 10 less for every skipped block, and remembers what was asked.
class Skipping : public ClosedForm {
 public:
  at::Tensor apply(const at::Tensor& x, const at::Tensor&, const BatchedInputs& inputs,
                   const CallFacts& facts) override {
    asked.push_back(facts.change ? facts.change->skipped : std::set<std::string>());
    rows.push_back(x.size(0));
    const at::Tensor c = inputs.at("c_crossattn").value.select(1, 0).unsqueeze(-1).unsqueeze(-1);
    return c.expand_as(x) - 10.0 * static_cast<double>(asked.back().size());
  }
  std::vector<std::set<std::string>> asked;
  std::vector<std::int64_t> rows;
};

struct Run {
  explicit Run(const GuidanceStages& stages, double cfg = 3.0)
      : guidance(stages),
        denoiser(model,
                 prepare_conditioning(model, prompt({1, 2, 3, 4}), prompt({0, 0, 0, 0}),
                                      {at::zeros({1, 4, 8, 8})}),
                 cfg, {&guidance}) {}
  float at(float sigma) {
    return denoiser(at::zeros({1, 4, 8, 8}), sigma)[0][0][0][0].item().toFloat();
  }

  Skipping model;
  Guidance guidance;
  CfgDenoiser denoiser;
};

const std::set<std::string> kBlocks = {"double_blocks.7", "single_blocks.3"};

}  // namespace

TEST_CASE("guidance: away from the network without some blocks, between two noise levels") {
  Run run({SkipLayers{.blocks = kBlocks, .scale = 2.0, .sigma_start = 5.0f, .sigma_end = 1.0f}});
  CHECK(run.at(9.0f) == doctest::Approx(3));  // 0 + (1 - 0) * 3
  CHECK(run.model.asked.size() == 1);
  CHECK(run.at(5.0f) == doctest::Approx(3 + 20 * 2));
  REQUIRE(run.model.asked.size() == 3);
  CHECK(run.model.asked[1].empty());
  CHECK(run.model.asked[2] == kBlocks);
  CHECK(run.model.rows == std::vector<std::int64_t>{2, 2, 1});
  CHECK(run.at(0.5f) == doctest::Approx(3));
}

TEST_CASE("guidance: the spread after skipped blocks can be brought back") {
  Run run({SkipLayers{
      .blocks = kBlocks, .scale = 1.0, .sigma_start = 5.0f, .sigma_end = 1.0f, .rescaling = 1.0}});
  const at::Tensor out = run.denoiser(at::zeros({1, 4, 8, 8}), 2.0f);
  const at::Tensor cond =
      at::tensor({1.0f, 2.0f, 3.0f, 4.0f}).view({1, 4, 1, 1}).expand({1, 4, 8, 8});
  CHECK(out.std().item().toFloat() == doctest::Approx(cond.std().item().toFloat()));
}

TEST_CASE("guidance: only the negative is computed without blocks") {
  Run run({SkipLayersOfNegative{.blocks = kBlocks, .sigma_start = 5.0f, .sigma_end = 1.0f}});
  CHECK(run.at(2.0f) == doctest::Approx(-20 + (1 + 20) * 3));
  CHECK(run.model.asked == std::vector<std::set<std::string>>{{}, kBlocks});
  run.model.asked.clear();
  CHECK(run.at(9.0f) == doctest::Approx(3));
  CHECK(run.model.asked.size() == 1);
  Run alone({SkipLayersOfNegative{.blocks = kBlocks, .sigma_start = 5.0f}}, 1.0);
  CHECK(alone.at(2.0f) == doctest::Approx(1));
  CHECK(alone.model.asked.size() == 1);
}

TEST_CASE("guidance: an unknown stage order changes nothing but the order within a group") {
  Run one({EpsilonScaling{1.1}, RescaleCfg{0.5}, CfgNorm{0.9}});
  Run other({RescaleCfg{0.5}, EpsilonScaling{1.1}, CfgNorm{0.9}});
  CHECK(one.at(2.0f) == other.at(2.0f));
  Run swapped({RescaleCfg{0.5}, CfgNorm{0.9}, EpsilonScaling{1.1}});
  CHECK(one.at(2.0f) != swapped.at(2.0f));
}

TEST_CASE("step cache: nothing is reused before the range, after it, or for what was not there") {
  const auto sampling = flow_sampling(1.0);
  StepCache cache({.threshold = 3.0, .start_percent = 0.2, .end_percent = 0.8}, *sampling);
  int computed = 0;
  const int owner = 0, late = 0;
  auto ask = [&](float sigma, std::vector<const void*> owners) {
    cache.begin();
    const auto rows = static_cast<std::int64_t>(owners.size());
    return cache.through(at::full({rows, 4, 16, 16}, sigma), sigma, owners, [&] {
      ++computed;
      return at::full({rows, 4, 16, 16}, 2 * sigma);
    });
  };
  for (float sigma : {1.0f, 0.9f}) {
    ask(sigma, {&owner});
  }
  CHECK(computed == 2);
  for (float sigma : {0.8f, 0.7f, 0.6f}) {
    ask(sigma, {&owner});  // the third knows a rate
  }
  CHECK(computed == 4);
  CHECK(cache.skipped() == 1);
  ask(0.5f, {&owner, &late});
  CHECK(computed == 5);
  ask(0.1f, {&owner});
  CHECK(computed == 6);
}

TEST_CASE("step cache: a reused result is the input and what was the difference") {
  const auto sampling = flow_sampling(1.0);
  StepCache cache({.threshold = 3.0, .start_percent = 0.0, .end_percent = 1.0}, *sampling);
  const int owner = 0;
  at::Tensor out;
  for (float sigma : {0.9f, 0.8f, 0.7f}) {
    cache.begin();
    out = cache.through(at::full({1, 4, 8, 8}, sigma), sigma, {&owner},
                        [&] { return at::full({1, 4, 8, 8}, 3 * sigma); });
  }
  CHECK(cache.skipped() == 1);
  CHECK(out.max().item().toFloat() == doctest::Approx(0.7 + 2 * 0.8));
}

TEST_CASE("latent operations: sharpening needs room for its radius") {
  CHECK_THROWS_WITH_AS(apply_operation(Sharpen{.radius = 9}, at::ones({1, 4, 8, 8})),
                       doctest::Contains("9"), Error);
  const at::Tensor even = at::ones({1, 4, 12, 12});
  CHECK(at::allclose(apply_operation(Sharpen{.radius = 3}, even), even, 1e-4, 1e-4));
}
