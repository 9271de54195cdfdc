// What each guidance formula leaves alone, what it limits, and its numbers worked out by hand.
#include "distorch/sampling/guidance_formulas.h"

#include <doctest/doctest.h>

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "distorch/sampling/latent_operations.h"

using namespace distorch::sampling;
using at::Tensor;

namespace {

Tensor random(int seed, at::IntArrayRef shape = {2, 4, 6, 6}) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed));
}

/// One evaluation with plain guidance applied.
struct Step {
  Tensor x = random(1);
  GuidanceStep step;
  explicit Step(double cfg, float sigma = 2.0f)
      : step{.x = x,
             .sigma = sigma,
             .cfg = cfg,
             .cond = random(2),
             .uncond = random(3),
             .has_uncond = true} {
    step.denoised = plain();
  }
  Tensor plain() const { return step.uncond + step.cfg * (step.cond - step.uncond); }
};

bool close(const Tensor& a, const Tensor& b, double tolerance = 1e-4) {
  return at::allclose(a, b, tolerance, tolerance);
}

double product_of(const Tensor& a, const Tensor& b) { return (a * b).sum().item<double>(); }

}  // namespace

TEST_CASE("guidance formulas: a projection keeps, drops or weighs what lies along the positive") {
  auto guidance = random(5), cond = random(6);
  CHECK(close(formulas::projected({.parallel = 1, .norm_threshold = 0}, guidance, cond), guidance));
  auto across = formulas::projected({.parallel = 0, .norm_threshold = 0}, guidance, cond);
  for (int b = 0; b < 2; ++b) {
    CHECK(std::abs(product_of(across[b], cond[b])) < 1e-3);
    // Pythagoras: what is gone was along the positive.
    auto along = guidance[b] - across[b];
    CHECK(product_of(along, along) + product_of(across[b], across[b]) ==
          doctest::Approx(product_of(guidance[b], guidance[b])).epsilon(1e-4));
  }
  auto half = formulas::projected({.parallel = 0.5, .norm_threshold = 0}, guidance, cond);
  CHECK(close(half, (guidance + across) / 2));
  // Longer than the threshold: shortened to it; shorter: as it is.
  auto limited = formulas::projected({.parallel = 1, .norm_threshold = 3}, guidance, cond);
  for (int b = 0; b < 2; ++b) {
    CHECK(limited[b].norm().item<double>() == doctest::Approx(3).epsilon(1e-4));
    CHECK(close(limited[b] / 3, guidance[b] / guidance[b].norm()));
  }
  CHECK(close(formulas::projected({.parallel = 1, .norm_threshold = 1000}, guidance, cond),
              guidance));
}

TEST_CASE("guidance formulas: what both estimates share is all that damping keeps") {
  auto x = random(1), same = random(2);
  CHECK(close(formulas::damped(x, same, same), same, 1e-3));
  // Noises at right angles, the negative's the longer one: it is the common direction, and stays.
  auto a = at::zeros({1, 1, 2, 2}), b = at::zeros({1, 1, 2, 2}), none = at::zeros({1, 1, 2, 2});
  a[0][0][0][0] = 3;
  b[0][0][1][1] = 2;
  CHECK(close(formulas::damped(none, -b, -a), -a));
  // The shorter one has nothing in common with it.
  CHECK(close(formulas::damped(none, -a, -b), none));
}

TEST_CASE("guidance formulas: frequencies are scaled apart") {
  auto guidance = random(7, {1, 2, 8, 8});
  CHECK(close(formulas::scaled({.low = 1, .high = 1, .cutoff = 2}, guidance), guidance));
  CHECK(close(formulas::scaled({.low = 3, .high = 3, .cutoff = 2}, guidance), guidance * 3));
  // Beyond the middle all frequencies are low.
  CHECK(close(formulas::scaled({.low = 2, .high = 9, .cutoff = 20}, guidance), guidance * 2));
  CHECK(close(formulas::scaled({.low = 2, .high = 9, .cutoff = 0}, guidance), guidance * 9));
  // A constant is the lowest, a chessboard the highest frequency.
  auto even = at::full({1, 1, 8, 8}, 0.5);
  auto board = (at::arange(8).view({8, 1}) + at::arange(8)).remainder(2).to(at::kFloat) * 2 - 1;
  board = board.view({1, 1, 8, 8});
  auto both = formulas::scaled({.low = 2, .high = 5, .cutoff = 1}, even + board);
  CHECK(close(both, even * 2 + board * 5));
}

TEST_CASE("guidance formulas: rescaling brings the spread of the velocity back") {
  Step step(5);
  CHECK(close(formulas::rescaled({.multiplier = 0}, step.step), step.plain(), 1e-3));
  auto full = formulas::rescaled({.multiplier = 1}, step.step);
  auto half = formulas::rescaled({.multiplier = 0.5}, step.step);
  CHECK(close(half, (full + step.plain()) / 2, 1e-3));
  auto velocity = [&](const Tensor& x0) {
    const double total = 2.0 * 2.0 + 1;
    return (step.x / total - x0) * std::sqrt(total) / 2.0;
  };
  for (int b = 0; b < 2; ++b)
    CHECK(velocity(full)[b].std().item<double>() ==
          doctest::Approx(velocity(step.step.cond)[b].std().item<double>()).epsilon(1e-3));
}

TEST_CASE("guidance formulas: a norm is limited below a noise level, none is above it") {
  Step step(5);
  CHECK(close(formulas::renormed({.below_sigma = 2.0, .most = 1}, step.step), step.step.cond));
  CHECK(close(formulas::renormed({.below_sigma = 2.1, .most = 0}, step.step), step.plain()));
  for (double most : {0.5, 1.0}) {
    auto limited = formulas::renormed({.below_sigma = 2.1, .most = most}, step.step);
    for (int b = 0; b < 2; ++b) {
      CHECK(limited[b].norm().item<double>() ==
            doctest::Approx(most * step.step.cond[b].norm().item<double>()).epsilon(1e-3));
      CHECK(product_of(limited[b], step.plain()[b]) > 0);
    }
  }
  CHECK(close(formulas::renormed({.below_sigma = 2.1, .most = 100}, step.step), step.plain()));

  auto cells = formulas::normed({.strength = 0.5}, step.step);
  auto length = [](const Tensor& x) { return x.square().sum(1).sqrt(); };
  CHECK(close(length(cells), at::minimum(length(step.step.cond), length(step.step.denoised)) / 2,
              1e-3));
}

TEST_CASE("guidance formulas: each frame's scale, in a line or up and down") {
  auto x = at::zeros({5, 1, 1, 1});
  GuidanceStep step{.x = x,
                    .sigma = 1,
                    .cfg = 9,
                    .cond = at::ones({5, 1, 1, 1}),
                    .uncond = at::zeros({5, 1, 1, 1}),
                    .has_uncond = true};
  auto line = formulas::by_frame({.least = 1}, step).flatten();
  CHECK(close(line, at::tensor({1.0f, 3.0f, 5.0f, 7.0f, 9.0f})));
  auto triangle = formulas::by_frame({.least = 1, .triangle = true}, step).flatten();
  CHECK(close(triangle, at::tensor({1.0f, 5.0f, 9.0f, 5.0f, 1.0f})));
}

TEST_CASE("guidance formulas: the negative scaled to fit the positive best") {
  Step step(4);
  auto got = formulas::zero_star(step.step);
  for (int b = 0; b < 2; ++b) {
    auto positive = step.x[b] - step.step.cond[b], negative = step.x[b] - step.step.uncond[b];
    const double fit = product_of(positive, negative) / product_of(negative, negative);
    auto scaled = step.step.uncond[b] * fit;
    CHECK(close(got[b], scaled + 4 * (step.step.cond[b] - scaled), 1e-3));
  }
}

TEST_CASE("guidance formulas: Mahiro between the leap and plain guidance, by what is alike") {
  auto x = at::zeros({1, 2, 1, 1});
  auto pair = [](float a, float b) { return at::tensor({a, b}).view({1, 2, 1, 1}); };
  GuidanceStep step{.x = x,
                    .sigma = 1,
                    .cfg = 4,
                    .cond = pair(1, 0),
                    .uncond = pair(1, 0),
                    .has_uncond = true,
                    .denoised = pair(1, 0)};
  // The negative points the same way: plain guidance.
  CHECK(close(formulas::mahiro(step), pair(1, 0)));
  // The opposite way: the leap.
  step.uncond = pair(-1, 0);
  CHECK(close(formulas::mahiro(step), pair(4, 0)));
  // At right angles: half of each.
  step.uncond = pair(0, 1);
  CHECK(close(formulas::mahiro(step), pair(2.5, 0)));
}

TEST_CASE("guidance formulas: a blur where attention is above its mean, nowhere else") {
  auto x0 = random(9, {1, 3, 12, 12});
  auto map = at::zeros({1, 1, 3, 3});
  map[0][0][1][1] = 1.5f;
  map[0][0][0][0] = 1.0f;  // not above
  auto soft = formulas::blurred({.blur = 2.0}, x0, map);
  auto inside = [](const Tensor& t) { return t.narrow(2, 4, 4).narrow(3, 4, 4); };
  auto changed = (soft != x0).to(at::kFloat);
  CHECK(inside(changed).mean().item<float>() > 0.99f);
  CHECK(changed.sum().item<float>() == inside(changed).sum().item<float>());
  CHECK(inside(soft).std().item<double>() < 0.5 * inside(x0).std().item<double>());
  // No width is no blur; what is even stays even.
  CHECK(close(formulas::blurred({.blur = 0.0}, x0, at::full({1, 1, 3, 3}, 2.0)), x0));
  auto even = at::full({1, 3, 12, 12}, 0.7f);
  CHECK(close(formulas::blurred({.blur = 3.0}, even, at::full({1, 1, 3, 3}, 2.0)), even));
  // One bright cell becomes a bell that sums to it.
  auto spot = at::zeros({1, 1, 13, 13});
  spot[0][0][6][6] = 1;
  auto bell = formulas::blurred({.blur = 1.0}, spot, at::full({1, 1, 1, 1}, 2.0));
  CHECK(bell.sum().item<double>() == doctest::Approx(1).epsilon(1e-5));
  auto at_cell = [&](int dy, int dx) { return bell[0][0][6 + dy][6 + dx].item<double>(); };
  CHECK(at_cell(0, 1) / at_cell(0, 0) == doctest::Approx(std::exp(-0.5)).epsilon(1e-4));
  CHECK(at_cell(2, 1) / at_cell(0, 0) == doctest::Approx(std::exp(-2.5)).epsilon(1e-4));
  CHECK(at_cell(5, 0) == 0);
}

TEST_CASE("latent operations: a tone map keeps directions and halves what is as long as its top") {
  auto latent = random(4);
  auto mapped = apply_operation(TonemapReinhard{.multiplier = 0.5}, latent);
  auto length = [](const Tensor& x) { return x.square().sum(1, true).sqrt(); };
  CHECK(close(mapped / length(mapped), latent / length(latent)));
  for (int b = 0; b < 2; ++b) {
    auto lengths = length(latent)[b];
    const double top = 0.5 * (lengths.mean().item<double>() + 5 * lengths.std().item<double>());
    CHECK(close(length(mapped)[b], lengths * top / (lengths + top), 1e-3));
  }
}

TEST_CASE("latent operations: sharpening of nothing changes nothing, and one cell by its bell") {
  auto latent = random(8, {1, 4, 7, 7});
  CHECK(close(apply_operation(Sharpen{.radius = 2, .sigma = 1, .alpha = 0}, latent), latent));
  // One channel of ones with one cell turned around: directions are 1 and -1, lengths all 1.
  auto cell = at::ones({1, 1, 9, 9});
  cell[0][0][4][4] = -1;
  const double alpha = 0.1, sigma = 1.0;
  auto sharp = apply_operation(Sharpen{.radius = 1, .sigma = sigma, .alpha = alpha}, cell);
  // The bell on 3 x 3 cells at distances 0, 1 and sqrt(2).
  const double edge = std::exp(-0.5), corner = std::exp(-1.0);
  const double sum = 1 + 4 * edge + 4 * corner;
  // Taking away 10 alpha times the mean around, which is 1 less twice the cell's own part.
  auto at_cell = [&](int y, int x) { return sharp[0][0][y][x].item<double>(); };
  CHECK(at_cell(4, 4) == doctest::Approx(-1 - 10 * alpha * (2 - 2 / sum)).epsilon(1e-3));
  CHECK(at_cell(4, 5) == doctest::Approx(1 + 10 * alpha * 2 * edge / sum).epsilon(1e-3));
  CHECK(at_cell(5, 5) == doctest::Approx(1 + 10 * alpha * 2 * corner / sum).epsilon(1e-3));
  CHECK(at_cell(4, 6) == doctest::Approx(1).epsilon(1e-3));
}
