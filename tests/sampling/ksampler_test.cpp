#include "distorch/sampling/ksampler.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "tests/sampling/closed_form.h"
#include "tests/support/dump.h"

using namespace distorch;
using namespace distorch::sampling;
using namespace distorch::test;

namespace {

KSamplerSettings settings_of(const nlohmann::json& entry, const nlohmann::json& defaults) {
  KSamplerSettings settings;
  settings.sampler = entry.at("sampler");
  settings.scheduler = defaults.at("scheduler");
  settings.steps = defaults.at("steps");
  settings.seed = defaults.at("seed");
  settings.cfg = entry.value("cfg", defaults.at("cfg").get<double>());
  settings.denoise = entry.value("denoise", 1.0);
  if (entry.at("node") == "KSamplerAdvanced") {
    settings.add_noise = entry.at("add_noise") == "enable";
    settings.start_step = entry.at("start_at_step").get<int>();
    settings.last_step = entry.at("end_at_step").get<int>();
    settings.force_full_denoise = entry.at("return_with_leftover_noise") == "disable";
  }
  return settings;
}

KSamplerSettings eight_steps(const std::string& sampler = "euler") {
  KSamplerSettings settings;
  settings.sampler = sampler;
  settings.steps = 8;
  settings.cfg = 5.0;
  settings.seed = 42;
  return settings;
}

const Latent kEmpty = {at::zeros({1, 4, 8, 8})};

}  // namespace

TEST_CASE("ksampler: img2img, inpainting, batches and KSamplerAdvanced as in the reference") {
  const Dump dump = load_dump("sampler_cases");
  const auto manifest = load_manifest("sampler_cases");
  REQUIRE(manifest.at("cases").size() > 100);
  for (const auto& entry : manifest.at("cases")) {
    const std::string key = entry.at("key");
    CAPTURE(key);
    const std::string input = entry.at("latent");
    Latent latent = {input == "zeros" ? at::zeros({1, 4, 8, 8}) : dump.at(input)};
    if (entry.contains("noise_mask")) {
      latent.noise_mask = dump.at(entry.at("noise_mask").get<std::string>());
    }
    latent.batch_index = entry.value("batch_index", std::vector<std::int64_t>{});
    ClosedForm model;
    const at::Tensor result = run_ksampler(model, settings_of(entry, manifest.at("defaults")),
                                           latent, positive(), negative());
    CHECK(relative_error(result, dump.at(key)) <= 1e-4);
  }
}

TEST_CASE("ksampler advanced: two runs that hand over leftover noise equal one") {
  for (const char* sampler :
       {"euler", "heun", "ddim", "dpm_2"}) {  // no memory of earlier steps, no noise
    CAPTURE(sampler);
    ClosedForm model;
    const at::Tensor whole =
        run_ksampler(model, eight_steps(sampler), kEmpty, positive(), negative());
    for (int cut : {1, 4, 7}) {
      KSamplerSettings first = eight_steps(sampler);
      first.last_step = cut;
      KSamplerSettings second = eight_steps(sampler);
      second.start_step = cut;
      second.add_noise = false;
      const Latent middle = {run_ksampler(model, first, kEmpty, positive(), negative())};
      CHECK(relative_error(run_ksampler(model, second, middle, positive(), negative()), whole) <
            1e-5);
    }
  }
}

TEST_CASE("ksampler advanced: ending early with full denoise gives a clean latent") {
  ClosedForm model;
  KSamplerSettings settings = eight_steps();
  settings.last_step = 3;
  const at::Tensor noisy = run_ksampler(model, settings, kEmpty, positive(), negative());
  settings.force_full_denoise = true;
  const at::Tensor clean = run_ksampler(model, settings, kEmpty, positive(), negative());
  const at::Tensor whole = run_ksampler(model, eight_steps(), kEmpty, positive(), negative());
  CHECK(relative_error(clean, noisy) > 0.3);
  CHECK(relative_error(clean, whole) < relative_error(noisy, whole));
}

TEST_CASE("ksampler: nothing to do gives the latent back untouched") {
  ClosedForm model;
  const Latent latent = {at::randn({1, 4, 8, 8})};
  KSamplerSettings none = eight_steps();
  none.denoise = 0.0;
  CHECK(at::equal(run_ksampler(model, none, latent, positive(), negative()), latent.samples));
  KSamplerSettings past = eight_steps();
  past.start_step = 8;
  CHECK(at::equal(run_ksampler(model, past, latent, positive(), negative()), latent.samples));
  KSamplerSettings before = eight_steps();
  before.start_step = 0;
  before.last_step = 0;
  CHECK(at::equal(run_ksampler(model, before, latent, positive(), negative()), latent.samples));
  CHECK(model.batches.empty());
}

TEST_CASE("ksampler: an inpainted latent keeps what the mask leaves out") {
  Latent latent = {at::randn({2, 4, 8, 8})};
  latent.noise_mask = at::zeros({8, 8});
  latent.noise_mask.narrow(1, 4, 4).fill_(1);
  for (const char* sampler : {"euler", "dpmpp_2m_sde", "ddim", "euler_cfg_pp"}) {
    CAPTURE(sampler);
    ClosedForm model;
    const at::Tensor out =
        run_ksampler(model, eight_steps(sampler), latent, positive(), negative());
    CHECK(at::allclose(out.narrow(3, 0, 4), latent.samples.narrow(3, 0, 4), 1e-4, 1e-5));
    CHECK_FALSE(at::allclose(out.narrow(3, 4, 4), latent.samples.narrow(3, 4, 4), 0.1, 0.1));
  }
}

TEST_CASE("ksampler: cfg 1 does not compute the negative, CFG++ does; a pair is one call") {
  ClosedForm model;
  KSamplerSettings settings = eight_steps();
  run_ksampler(model, settings, kEmpty, positive(), negative());
  CHECK(model.batches == std::vector<std::int64_t>(8, 2));
  model.batches.clear();
  settings.cfg = 1.0;
  run_ksampler(model, settings, kEmpty, positive(), negative());
  CHECK(model.batches == std::vector<std::int64_t>(8, 1));
  model.batches.clear();
  settings.sampler = "euler_cfg_pp";
  run_ksampler(model, settings, kEmpty, positive(), negative());
  CHECK(model.batches == std::vector<std::int64_t>(8, 2));
}

TEST_CASE("ksampler: a latent that becomes NaN is named with its step") {
  class Breaks : public ClosedForm {
   public:
    at::Tensor apply(const at::Tensor& x, const at::Tensor& sigma, const BatchedInputs& inputs,
                     const CallFacts& facts) override {
      at::Tensor out = ClosedForm::apply(x, sigma, inputs, facts);
      if (batches.size() == 3) {
        out[0][1][2][3] = std::numeric_limits<float>::quiet_NaN();
      }
      return out;
    }
  };
  for (const char* sampler : {"euler", "dpmpp_2m", "dpmpp_sde", "uni_pc", "ipndm"}) {
    CAPTURE(sampler);
    Breaks model;
    const int step = std::string(sampler) == "dpmpp_sde" ? 2 : 3;  // two evaluations a step
    CHECK_THROWS_WITH_AS(
        run_ksampler(model, eight_steps(sampler), kEmpty, positive(), negative()),
        doctest::Contains(
            ("the latent became NaN at step " + std::to_string(step) + " of 8").c_str()),
        Error);
  }
  Breaks adaptive;
  CHECK_THROWS_WITH_AS(
      run_ksampler(adaptive, eight_steps("dpm_adaptive"), kEmpty, positive(), negative()),
      doctest::Contains("became NaN"), Error);
}

TEST_CASE("ksampler: requests that make no sense are refused") {
  ClosedForm model;
  KSamplerSettings settings = eight_steps("eulr");
  CHECK_THROWS_AS(run_ksampler(model, settings, kEmpty, positive(), negative()), Error);
  settings = eight_steps();
  settings.steps = 0;
  CHECK_THROWS_AS(run_ksampler(model, settings, kEmpty, positive(), negative()), Error);
  CHECK_THROWS_AS(
      run_ksampler(model, eight_steps(), {at::zeros({4, 8, 8})}, positive(), negative()), Error);
  Latent indexed = {at::zeros({2, 4, 8, 8})};
  indexed.batch_index = {0, 1, 2};
  CHECK_THROWS_AS(run_ksampler(model, eight_steps(), indexed, positive(), negative()), Error);
}

TEST_CASE("ksampler: the model's latent scale is taken in and out, but not of an empty latent") {
  class Scaled : public ClosedForm {
   public:
    at::Tensor process_latent_in(const at::Tensor& latent) const override {
      return latent * 0.18215;
    }
    at::Tensor process_latent_out(const at::Tensor& latent) const override {
      return latent / 0.18215;
    }
  };
  const Latent latent = {at::randn({1, 4, 8, 8})};
  KSamplerSettings settings = eight_steps();
  settings.denoise = 0.5;
  ClosedForm plain;
  Scaled scaled;
  const at::Tensor wanted =
      run_ksampler(plain, settings, {latent.samples * 0.18215}, positive(), negative()) / 0.18215;
  CHECK(relative_error(run_ksampler(scaled, settings, latent, positive(), negative()), wanted) <
        1e-6);
}

TEST_CASE("ksampler: an empty latent takes the model's channels and frames") {
  class Video : public ClosedForm {
   public:
    std::int64_t latent_channels() const override { return 16; }
    int latent_dimensions() const override { return 3; }
  };
  Video model;
  CHECK(fix_empty_latent_channels(model, at::zeros({1, 4, 8, 8})).sizes() ==
        at::IntArrayRef({1, 16, 1, 8, 8}));
  CHECK(fix_empty_latent_channels(model, at::ones({1, 4, 8, 8})).sizes() ==
        at::IntArrayRef({1, 4, 1, 8, 8}));
}
