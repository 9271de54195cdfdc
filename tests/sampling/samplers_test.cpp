#include "distorch/sampling/samplers.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "tests/sampling/closed_form.h"
#include "tests/support/dump.h"

using namespace distorch;
using namespace distorch::sampling;
using namespace distorch::test;

namespace {

// Every sampler x scheduler x seed of a dump, with the number of model evaluations.
void compare_all(const std::string& name, const std::shared_ptr<const ModelSampling>& sampling) {
  const Dump dump = load_dump(name);
  const auto manifest = load_manifest(name);
  const auto schedulers = manifest.at("schedulers").get<std::vector<std::string>>();
  const auto seeds = manifest.at("seeds").get<std::vector<std::uint64_t>>();
  double most = 0;
  std::string which;
  for (const auto& sampler : manifest.at("samplers").get<std::vector<std::string>>()) {
    double worst = 0;
    for (std::size_t s = 0; s < schedulers.size(); ++s) {
      for (std::size_t k = 0; k < seeds.size(); ++k) {
        CAPTURE(sampler);
        CAPTURE(schedulers[s]);
        CAPTURE(seeds[k]);
        ClosedForm model(sampling);
        KSamplerSettings settings;
        settings.sampler = sampler;
        settings.scheduler = schedulers[s];
        settings.steps = manifest.at("steps");
        settings.cfg = manifest.at("cfg");
        settings.seed = seeds[k];
        const at::Tensor result =
            run_ksampler(model, settings, {at::zeros({1, 4, 8, 8})}, positive(), negative());
        const double error = relative_error(
            result,
            dump.at(sampler)[static_cast<std::int64_t>(s)][static_cast<std::int64_t>(k)].unsqueeze(
                0));
        // The coefficients of lms are integrals of polynomials that nearly cancel: what a processor
        // makes of the last bits counts.
        CHECK(error <= (sampler == "lms" ? 5e-4 : 1e-4));
        worst = std::max(worst, error);
        if (k + 1 == seeds.size()) {
          CHECK(model.batches.size() ==
                manifest.at("model_calls_last_seed").at(sampler).at(s).get<std::size_t>());
        }
      }
    }
    if (worst > most) {
      most = worst;
      which = sampler;
    }
  }
  MESSAGE(name << ": largest relative difference " << most << " (" << which << ")");
}

}  // namespace

TEST_CASE("samplers: every sampler, scheduler and seed of the reference, eps model") {
  compare_all("samplers", discrete_sampling());
  compare_all("samplers_newer", discrete_sampling());
}

TEST_CASE("samplers: every sampler of the reference, flow model") {
  compare_all("samplers_flow", flow_sampling(3.0));
  compare_all("samplers_newer_flow", flow_sampling(3.0));
}

TEST_CASE("samplers: the list is the reference's, in its order, with those that came later") {
  auto names = load_manifest("samplers").at("samplers").get<std::vector<std::string>>();
  auto later = load_manifest("samplers_newer").at("samplers").get<std::vector<std::string>>();
  auto place = std::find(names.begin(), names.end(), "dpm_2");
  REQUIRE(place != names.end());
  names.insert(place, later.begin(), later.end());
  CHECK(sampler_names() == names);
}

TEST_CASE("samplers: a model that always answers the same latent ends at it") {
  class Constant : public Denoiser {
   public:
    at::Tensor operator()(const at::Tensor&, float) override { return answer; }
    GuidedPair with_uncond(const at::Tensor&, float) override { return {answer, answer}; }
    const ModelSampling& model_sampling() const override { return *sampling; }
    at::Tensor answer = at::randn({2, 4, 8, 8});
    std::shared_ptr<const ModelSampling> sampling = discrete_sampling();
  };
  Constant model;
  const Sigmas sigmas = calculate_sigmas(*model.sampling, "karras", 12);
  const std::set<std::string_view> ends_above_zero = {"dpm_fast", "dpm_adaptive", "uni_pc",
                                                      "uni_pc_bh2"};
  for (const Sampler& sampler : samplers()) {
    CAPTURE(sampler.name);
    const at::Tensor x = at::randn({2, 4, 8, 8}) * sigmas.front();
    const at::Tensor result = sampler.sample(model, x, sigmas, {});
    CHECK(at::allclose(result, model.answer, 0, ends_above_zero.count(sampler.name) ? 0.2 : 1e-3));
  }
}

TEST_CASE(
    "samplers: steps are reported in order, with the estimate, and an interrupt stops a run") {
  ClosedForm model;
  KSamplerSettings settings;
  settings.steps = 6;
  for (const std::string& name : sampler_names()) {
    CAPTURE(name);
    settings.sampler = name;
    std::vector<int> steps;
    run_ksampler(model, settings, {at::zeros({1, 4, 8, 8})}, positive(), negative(),
                 [&](const StepEvent& event) {
                   steps.push_back(event.step);
                   CHECK(event.denoised.sizes() == event.x.sizes());
                 });
    REQUIRE(!steps.empty());
    for (std::size_t i = 0; i < steps.size(); ++i) {
      CHECK(steps[i] == static_cast<int>(i));
    }
    int seen = 0;
    RunScope run(std::make_shared<RunToken>());
    CHECK_THROWS_AS(run_ksampler(model, settings, {at::zeros({1, 4, 8, 8})}, positive(), negative(),
                                 [&](const StepEvent&) {
                                   ++seen;
                                   current_run()->interrupt();
                                 }),
                    Error);
    CHECK(seen == 1);
  }
}

TEST_CASE("samplers: no noise levels or one are no steps") {
  ClosedForm model;
  for (const Sampler& sampler : samplers()) {
    CAPTURE(sampler.name);
    if (sampler.name.starts_with("uni_pc")) {
      continue;  // rescales in and out: below
    }
    CfgDenoiser denoiser(model, {}, 5.0);
    const at::Tensor x = at::randn({1, 4, 8, 8});
    CHECK(at::equal(sampler.sample(denoiser, x, {3.0f}, {}), x));
  }
  CHECK_THROWS_WITH_AS(find_sampler("eular"), doctest::Contains("euler_ancestral"), Error);
}
