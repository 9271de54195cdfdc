#include "distorch/base/text.h"

#include <doctest/doctest.h>

using namespace distorch;

TEST_CASE("lower: ASCII letters only, other bytes stay") {
  CHECK(lower("Model.SafeTensors") == "model.safetensors");
  CHECK(lower("AZ[az{@") == "az[az{@");
  CHECK(lower("GR\u00dcSSE") == "gr\u00dcsse");
  CHECK(lower("") == "");
}
