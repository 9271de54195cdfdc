#include "distorch/sampling/model_sampling.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "tests/support/dump.h"

using namespace distorch;
using namespace distorch::sampling;
using namespace distorch::test;

namespace {

std::map<std::string, std::shared_ptr<const ModelSampling>> models() {
  return {{"eps", discrete_sampling()},
          {"v", discrete_sampling({.prediction = Prediction::V})},
          {"flow_shift3", flow_sampling(3.0)},
          {"flux_shift1.15", flux_sampling(1.15)}};
}

at::Tensor as_tensor(const Sigmas& sigmas) { return at::tensor(sigmas, at::kFloat); }

}  // namespace

TEST_CASE("model sampling: tables, percentages and timesteps of the reference") {
  const Dump dump = load_dump("sigmas");
  const auto manifest = load_manifest("sigmas");
  for (const auto& [name, model] : models()) {
    CAPTURE(name);
    const at::Tensor wanted = dump.at(name + "/table");
    at::Tensor table = as_tensor(model->sigmas());
    if (table.size(0) > 1000) {
      table = table.slice(0, 0, std::nullopt, 10);
    }
    CHECK(relative_error(table, wanted) < 1e-6);
    CHECK(at::allclose(table, wanted, 1e-5, 0));  // each entry, small ones too
    const auto& facts = manifest.at("models").at(name);
    CHECK(model->sigmas().size() == facts.at("count").get<std::size_t>());
    for (const auto& [percent, sigma] : facts.at("percent_to_sigma").items()) {
      CHECK(model->percent_to_sigma(std::stod(percent)) ==
            doctest::Approx(sigma.get<double>()).epsilon(1e-5));
    }
    const at::Tensor timesteps = model->timestep(dump.at(name + "/probe_sigma")).to(at::kFloat);
    CHECK(at::allclose(timesteps, dump.at(name + "/probe_timestep"), 1e-6, 1e-6));
  }
}

TEST_CASE("model sampling: models that a workflow can switch to, as ComfyUI's classes have them") {
  const std::map<std::string, std::shared_ptr<const ModelSampling>> models = {
      {"flow_1000_3", flow_sampling(3.0)},   {"flow_1_1.73", flow_sampling(1.73, 1.0)},
      {"flow_1_6", flow_sampling(6.0, 1.0)}, {"flow_1000_1", flow_sampling(1.0)},
      {"flux_0.7", flux_sampling(0.7)},      {"cascade_1", cascade_sampling(1.0)},
      {"cascade_2", cascade_sampling(2.0)},  {"cosmos", cosmos_flow_sampling(0.01, 80.0)}};
  const Dump dump = load_dump("model_sampling");
  const auto facts = load_manifest("model_sampling").at("models");
  CHECK(facts.size() == models.size());
  const at::Tensor x = dump.at("x"), output = dump.at("output"), some = dump.at("some");
  for (const auto& [name, model] : models) {
    CAPTURE(name);
    auto close = [&](const at::Tensor& got, const char* what) {
      CAPTURE(what);
      CHECK(at::allclose(got, dump.at(name + "/" + what), 1e-4, 1e-5));
    };
    CHECK(model->sigmas().size() == facts.at(name).at("count").get<std::size_t>());
    at::Tensor table = as_tensor(model->sigmas());
    close(table.size(0) > 1000 ? table.slice(0, 0, std::nullopt, 10) : table, "table");
    for (const auto& [percent, sigma] : facts.at(name).at("percent_to_sigma").items())
      CHECK(model->percent_to_sigma(std::stod(percent)) ==
            doctest::Approx(sigma.get<double>()).epsilon(1e-4));
    close(model->timestep(dump.at("sigmas")), "timestep");
    close(model->sigma(model->timestep(some)), "sigma");
    close(model->calculate_input(some, x), "input");
    close(model->calculate_denoised(some, output, x), "denoised");
    close(model->noise_scaling(some, output, x), "noised");
  }
}

TEST_CASE(
    "model sampling: discrete timesteps are the nearest levels, in between goes by logarithm") {
  auto model = discrete_sampling();
  for (std::size_t i : {0U, 1U, 137U, 500U, 999U}) {
    CHECK(model->timestep(model->sigmas()[i]) == i);
    CHECK(model->sigma(static_cast<float>(i)) == doctest::Approx(model->sigmas()[i]).epsilon(1e-6));
  }
  const double middle = std::sqrt(static_cast<double>(model->sigmas()[10]) * model->sigmas()[11]);
  CHECK(model->sigma(10.5f) == doctest::Approx(middle).epsilon(1e-5));
  CHECK(model->timestep(1e9f) == 999);
  CHECK(model->sigma(-5.0f) == doctest::Approx(model->sigma_min()).epsilon(1e-6));
}

TEST_CASE("model sampling: flow timesteps follow sigma, the shift acts on even times") {
  CHECK(flow_sampling(3.0)->timestep(0.25f) == 250);
  CHECK(flow_sampling(3.0)->sigma(500.0f) == doctest::Approx(0.75));
  CHECK(flow_sampling(1.0)->sigma(500.0f) == doctest::Approx(0.5));
  CHECK(flux_sampling(1.15)->timestep(0.25f) == 0.25f);
  CHECK(flux_sampling(0.0)->sigma(0.25f) == doctest::Approx(0.25));
}

TEST_CASE("model sampling: continuous levels are even in log sigma") {
  auto edm = continuous_edm_sampling(Prediction::Edm, 0.002, 120.0, 1.0);
  CHECK(edm->sigma_min() == doctest::Approx(0.002).epsilon(1e-5));
  CHECK(edm->sigma_max() == doctest::Approx(120.0).epsilon(1e-5));
  CHECK(edm->sigma(edm->timestep(3.7f)) == doctest::Approx(3.7).epsilon(1e-5));
  CHECK(edm->percent_to_sigma(0.5) == doctest::Approx(std::sqrt(0.002 * 120.0)).epsilon(1e-5));
}

TEST_CASE("model sampling: a network that knows the noise gives the clean latent back") {
  const at::Tensor x0 = at::randn({2, 4, 3, 3});
  const at::Tensor noise = at::randn({2, 4, 3, 3});
  const at::Tensor sigma = at::tensor({0.3f, 0.8f});
  const at::Tensor s = sigma.view({2, 1, 1, 1});

  auto eps = discrete_sampling();
  const at::Tensor x = eps->noise_scaling(sigma, noise, x0);
  CHECK(at::allclose(eps->calculate_denoised(sigma, noise, x), x0, 1e-4, 1e-5));

  auto v = discrete_sampling({.prediction = Prediction::V});
  const at::Tensor velocity = (noise - s * x0) / (1 + s * s).sqrt();
  CHECK(at::allclose(v->calculate_denoised(sigma, velocity, x), x0, 1e-4, 1e-5));

  auto flow = flow_sampling(3.0);
  const at::Tensor mixed = flow->noise_scaling(sigma, noise, x0);
  CHECK(at::allclose(flow->calculate_denoised(sigma, noise - x0, mixed), x0, 1e-4, 1e-5));
}

TEST_CASE(
    "model sampling: input scaling gives unit variance, the highest level adds the latent's own") {
  auto eps = discrete_sampling();
  const at::Tensor x = at::full({1, 4, 2, 2}, 5.0);
  CHECK(eps->calculate_input(at::tensor({3.0f}), x).max().item().toFloat() ==
        doctest::Approx(5.0 / std::sqrt(10.0)));
  const at::Tensor scaled =
      eps->noise_scaling(3.0f, at::ones({1, 4, 2, 2}), at::zeros({1, 4, 2, 2}), true);
  CHECK(scaled.max().item().toFloat() == doctest::Approx(std::sqrt(10.0)));
  CHECK(at::equal(flow_sampling(1.0)->calculate_input(at::tensor({0.5f}), x), x));
}

TEST_CASE("model sampling: zero terminal SNR ends at a sigma that is high but finite") {
  auto model = discrete_sampling({.prediction = Prediction::V, .zero_terminal_snr = true});
  CHECK(model->sigma_max() > 4000);
  CHECK(std::isfinite(model->sigma_max()));
  CHECK(model->sigma_min() == doctest::Approx(discrete_sampling()->sigma_min()).epsilon(1e-3));
}

TEST_CASE("model sampling: impossible betas are refused") {
  CHECK_THROWS_AS(discrete_sampling({.linear_end = 1.5}), Error);
  CHECK_THROWS_AS(discrete_sampling({.timesteps = 1}), Error);
}
