// Every sampler without noise against the exact solution of its equation, at two numbers of steps:
// the error is as small as its order says, and falls as fast.
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "distorch/sampling/samplers.h"

using namespace distorch::sampling;

namespace {

/// Standard deviation of the data.
constexpr double kData = 1.5;

/// The best estimate where the clean latent is normal: then x(sigma) is x(sigma') times
/// sqrt(kData² + sigma²) over sqrt(kData² + sigma'²).
class NormalData : public Denoiser {
 public:
  at::Tensor operator()(const at::Tensor& x, float sigma) override {
    ++calls;
    return x * (kData * kData / (kData * kData + static_cast<double>(sigma) * sigma));
  }
  GuidedPair with_uncond(const at::Tensor& x, float sigma) override {
    auto answer = (*this)(x, sigma);
    return {answer, answer};
  }
  const ModelSampling& model_sampling() const override { return *sampling; }
  int calls = 0;
  std::shared_ptr<const ModelSampling> sampling = discrete_sampling();
};

double error_of(std::string_view sampler, int steps) {
  constexpr double kHigh = 10, kLow = 0.5;
  Sigmas sigmas;
  for (int i = 0; i <= steps; ++i)
    sigmas.push_back(static_cast<float>(kHigh * std::pow(kLow / kHigh, i / double(steps))));
  NormalData model;
  SamplerContext context;
  context.seed = 1;
  context.options.eta = 0.0;
  const at::Tensor x = at::tensor({3.0f, -1.0f}).view({1, 2, 1, 1});
  const at::Tensor result = find_sampler(sampler).sample(model, x, sigmas, context);
  auto scale = [](double sigma) { return std::sqrt(kData * kData + sigma * sigma); };
  const at::Tensor wanted = x * (scale(kLow) / scale(kHigh));
  return ((result - wanted) / wanted).abs().max().item<double>();
}

struct Expected {
  double error;                    // at 40 steps, half as much again as the method has
  double least_ratio, most_ratio;  // of the errors at 20 and at 40 steps
};

}  // namespace

TEST_CASE("samplers: the error at 40 steps and its order, against the exact solution") {
  const Expected first{0.025, 1.7, 2.2};
  const std::map<std::string_view, Expected> samplers = {
      {"euler", first},
      {"euler_ancestral", first},
      {"gradient_estimation", first},
      {"heun", {1.0e-3, 3.5, 4.6}},
      {"dpm_2", {4.7e-4, 3.5, 4.6}},
      {"dpm_2_ancestral", {4.7e-4, 3.5, 4.6}},
      {"lms", {1.8e-4, 6, 10}},
      {"dpmpp_2m", {1.6e-4, 2.6, 4.0}},
      {"dpmpp_2m_sde", {1.6e-4, 2.6, 4.0}},
      {"ipndm", {2.0e-4, 3.2, 4.5}},
      {"ipndm_v", {2.6e-4, 4.5, 7.5}},
      {"deis", {1.1e-4, 3.8, 6.0}},
      {"res_multistep", {4.8e-4, 3.2, 4.5}},
      {"res_multistep_ancestral", {4.8e-4, 3.2, 4.5}},
      {"dpmpp_2s_ancestral", {4.6e-4, 3.4, 4.5}},
      {"dpmpp_sde", {4.6e-4, 3.4, 4.5}},
      {"seeds_2", {4.6e-4, 3.4, 4.5}},
      {"dpmpp_3m_sde", {5.3e-5, 4.5, 9}},
  };
  for (const auto& [name, expected] : samplers) {
    CAPTURE(name);
    const double coarse = error_of(name, 20), fine = error_of(name, 40);
    CHECK(fine < expected.error);
    CHECK(coarse / fine > expected.least_ratio);
    CHECK(coarse / fine < expected.most_ratio);
  }
  // Beyond what float32 can tell at 40 steps.
  CHECK(error_of("seeds_3", 10) < 5e-5);
  CHECK(error_of("seeds_3", 40) < 5e-6);
}

TEST_CASE("samplers: how often the model is asked in twelve steps that end above 0") {
  const std::map<std::string_view, int> calls = {
      {"euler", 12}, {"lms", 12},          {"dpmpp_2m", 12}, {"deis", 12},    {"ipndm", 12},
      {"heun", 24},  {"dpmpp_2m_sde", 12}, {"dpm_2", 24},    {"seeds_2", 24}, {"seeds_3", 36}};
  Sigmas sigmas;
  for (int i = 0; i <= 12; ++i) sigmas.push_back(static_cast<float>(10 - 0.5 * i));
  for (const auto& [name, wanted] : calls) {
    CAPTURE(name);
    NormalData model;
    int reported = 0;
    SamplerContext context;
    context.options.eta = 0.0;
    context.on_step = [&](const StepEvent& event) {
      CHECK(event.total == 12);
      CHECK(event.sigma == sigmas[static_cast<std::size_t>(event.step)]);
      ++reported;
    };
    find_sampler(name).sample(model, at::ones({1, 1, 1, 1}), sigmas, context);
    CHECK(model.calls == wanted);
    CHECK(reported == 12);
  }
}

TEST_CASE(
    "samplers: a factor of 0 on fresh noise is no fresh noise, another seed another picture") {
  Sigmas sigmas = {10, 6, 3, 1, 0.5f};
  for (std::string_view name : {"euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral",
                                "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "seeds_2", "er_sde"}) {
    CAPTURE(name);
    auto run = [&](std::uint64_t seed, double s_noise) {
      NormalData model;
      SamplerContext context;
      context.seed = seed;
      context.options.s_noise = s_noise;
      return find_sampler(name).sample(model, at::ones({1, 1, 4, 4}), sigmas, context);
    };
    CHECK(at::equal(run(1, 1.0), run(1, 1.0)));
    CHECK_FALSE(at::allclose(run(1, 1.0), run(2, 1.0)));
    const at::Tensor quiet = run(1, 0.0);
    CHECK(at::equal(quiet, run(2, 0.0)));
    // All cells began alike and nothing told them apart.
    CHECK(at::allclose(quiet, quiet[0][0][0][0].expand_as(quiet)));
  }
}
