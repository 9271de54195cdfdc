#include <doctest/doctest.h>

#include "tests/nodes/tiny_app.h"
#include "tests/support/interrupting_source.h"

// From the token of a run to the blocks of its model: see tests/streaming/interrupt_test.cpp for
// the placements.
using namespace distorch;
using namespace distorch::test;

TEST_CASE("an interrupted prompt ends with the block that computes") {
  TinyApp tiny;
  auto prompt = sampling_prompt();
  auto model = tiny.value_of(prompt, {"1", 0});
  auto& weights = *model.as<nodes::Model>().loaded->weights;
  prompt["keep"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"5", 0}}}}};
  int all = 0;
  {
    InterruptingSource counting(weights, -1);
    tiny.run_well(prompt);
    all = counting.begun;
  }
  REQUIRE(all > 8);
  for (int stop_in : {0, 3, all / 2, all - 2}) {
    CAPTURE(stop_in);
    prompt["5"]["inputs"]["seed"] = 100 + stop_in;
    InterruptingSource source(weights, stop_in);
    auto result = tiny.run(prompt);
    CHECK(result.run.status == graph::RunStatus::Interrupted);
    CHECK(source.begun == stop_in + 1);
    CHECK(source.ended == stop_in + 1);
    CHECK(result.run.executed.empty());
  }
  prompt["5"]["inputs"]["seed"] = 7;
  tiny.run_well(prompt);
}
