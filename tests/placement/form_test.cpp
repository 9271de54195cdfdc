#include "distorch/placement/form.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "machines.h"

using namespace distorch;
using namespace distorch::placement;

namespace {

constexpr double kSteps = 20;

/// `count` blocks of `stored` GiB that convert to `converted` GiB; 0.1 s each, decoding apart.
ModelForms forms(int count, double stored, double converted, double decode_s,
                 double convert_s = 0) {
  auto bare = even_model(count, gib(stored), 0.1);
  return both_forms(bare, std::vector<BlockForms>(static_cast<std::size_t>(count),
                                                  {gib(converted), decode_s, convert_s}));
}

}  // namespace

TEST_CASE("form: both models of one description") {
  auto bare = even_model(2, gib(1), 0.1);
  bare.blocks[0].seconds = {0.1, -1, 0.4};
  auto both = both_forms(bare, {{gib(2), 0.02, 3}, {gib(2), 0.03, 4}});
  CHECK(both.stored.blocks[0].seconds == std::vector<double>{0.1 + 0.02, -1, 0.4 + 0.02});
  CHECK(both.stored.bytes() == gib(2));
  CHECK(both.converted.blocks[0].seconds == bare.blocks[0].seconds);
  CHECK(both.converted.bytes() == gib(4));
  CHECK(both.decode_s == doctest::Approx(0.05));
  CHECK(both.convert_s == 7);
  CHECK_THROWS_AS(both_forms(bare, {{gib(2), 0, 0}}), Error);
}

TEST_CASE("form: packed weights are converted where all fits and decoding costs") {
  auto system = two_cards();
  auto costly = choose_form(system, forms(10, 1, 2, 0.02), kSteps);  // 17 % of a step
  CHECK(costly.form == Form::Converted);
  CHECK(costly.step_s == doctest::Approx(1.0));
  CHECK(costly.placement.bytes[0] == gib(20));

  auto cheap = choose_form(system, forms(10, 1, 2, 0.01), kSteps);  // 9 %
  CHECK(cheap.form == Form::Stored);
  CHECK(cheap.step_s == doctest::Approx(1.1));
  CHECK(cheap.reason == "decoding is 9.1 % of a step");

  // 28 GiB converted would stream; as stored all of it stays.
  auto large = choose_form(system, forms(14, 1, 2, 0.05), kSteps);
  CHECK(large.form == Form::Stored);
  CHECK(large.placement.bytes[0] == gib(14));
}

TEST_CASE("form: converting packed weights must pay within the steps that follow") {
  auto system = two_cards();
  CHECK(choose_form(system, forms(10, 1, 2, 0.02, 0.3), kSteps).form == Form::Converted);
  CHECK(choose_form(system, forms(10, 1, 2, 0.02, 0.3), 10).form == Form::Stored);
}

TEST_CASE("form: what becomes smaller is converted") {
  auto system = two_cards();
  auto fits = choose_form(system, forms(10, 2, 1, 0.01), kSteps);
  CHECK(fits.form == Form::Converted);
  CHECK(fits.placement.bytes[0] == gib(10));
  // As stored half of it streams.
  auto streams = choose_form(system, forms(20, 2, 1, 0.001), kSteps);
  CHECK(streams.form == Form::Converted);
  CHECK(streams.placement.bytes[0] == gib(20));
  // No decoding to save, nothing to wait for: fewer bytes still win.
  CHECK(choose_form(system, forms(10, 2, 1, 0), kSteps).form == Form::Converted);
  // Not where the conversion takes longer than all the decoding.
  CHECK(choose_form(system, forms(10, 2, 1, 0.01, 1), kSteps).form == Form::Stored);
}

TEST_CASE("form: the same bytes in another dtype are converted") {
  auto system = two_cards();
  CHECK(choose_form(system, forms(10, 1, 1, 0.001), kSteps).form == Form::Converted);
  CHECK(choose_form(system, forms(10, 1, 1, 0), kSteps).form == Form::Converted);
}

TEST_CASE("form: what runs once stays as stored, unless only the other form fits") {
  auto system = two_cards();
  auto once = choose_form(system, forms(10, 2, 1, 0.05), 1);
  CHECK(once.form == Form::Stored);
  CHECK(once.reason == "it runs once");
  for (auto& device : system.devices) device.budget_bytes = gib(device.name == "cuda:0" ? 6 : 3);
  auto tight = choose_form(system, forms(10, 2, 1, 0.05), 1);
  CHECK(tight.form == Form::Converted);
}

TEST_CASE("form: where neither fits the error tells of the smaller one") {
  auto system = two_cards();
  for (auto& device : system.devices) device.budget_bytes = gib(1.5);
  const auto message = [&](const ModelForms& both) {
    try {
      choose_form(system, both, kSteps);
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::OutOfMemory);
      return e.sentence();
    }
    return std::string("it fits");
  };
  CHECK(message(forms(10, 3, 2, 0.01)).find("has 2.00 GiB") != std::string::npos);
  CHECK(message(forms(10, 2, 3, 0.01)).find("has 2.00 GiB") != std::string::npos);
}

TEST_CASE("form: the planner is the caller's") {
  int plans = 0;
  auto choice = choose_form(
      two_cards(), forms(4, 1, 2, 0.05), kSteps, [&](const System& system, const Model& model) {
        ++plans;
        std::vector<Home> homes(model.blocks.size(), {system.find("cpu"), How::Streamed});
        return make_placement(system, model, homes);
      });
  CHECK(plans == 2);
  CHECK(choice.form == Form::Stored);  // nothing is resident
  CHECK(choice.placement.bytes[2] == gib(4));
}
