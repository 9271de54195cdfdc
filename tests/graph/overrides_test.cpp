#include "distorch/graph/overrides.h"

#include <doctest/doctest.h>

#include "fake_nodes.h"

using namespace distorch;
using namespace distorch::graph;
using namespace distorch::graph::testing;

namespace {

Json sample() {
  return prompt_of(R"({
    "1": {"class_type": "Image", "inputs": {"name": "a.png"}, "_meta": {"title": "Load v1.5"}},
    "2": {"class_type": "Sampler", "inputs": {"image": ["1", 0], "steps": ["9", 0]}, "_meta": {"title": "Draw"}},
    "2:31": {"class_type": "Number", "inputs": {"value": 1}, "_meta": {"title": "n"}},
    "4": {"class_type": "Number", "inputs": {"value": 1}, "_meta": {"title": "m"}}})");
}

std::string failure(const std::string& text) {
  static const Catalog catalog = fake_catalog();
  Json prompt = sample();
  try {
    apply_overrides(prompt, {text}, catalog);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::Usage);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("overrides: by id, title and type; values follow the input's type") {
  Catalog catalog = fake_catalog();
  Json prompt = sample();
  apply_overrides(prompt,
                  {"2.steps=7", "Draw.cfg=2", "sampler.flag=no", "Sampler.sampler_name=heun",
                   "2.label=a=b.c", "Load v1.5.name=b.png", "2:31.value=18446744073709551615"},
                  catalog);
  CHECK(prompt["2"]["inputs"]["steps"].dump() == "7");
  CHECK(prompt["2"]["inputs"]["cfg"].dump() == "2.0");
  CHECK(prompt["2"]["inputs"]["flag"] == false);
  CHECK(prompt["2"]["inputs"]["sampler_name"] == "heun");
  CHECK(prompt["2"]["inputs"]["label"] == "a=b.c");
  CHECK(prompt["1"]["inputs"]["name"] == "b.png");
  CHECK(prompt["2:31"]["inputs"]["value"].get<std::uint64_t>() == 18446744073709551615ull);
}

TEST_CASE("overrides: clear refusals") {
  CHECK(failure("nonsense").find("is not NODE.INPUT=VALUE") != std::string::npos);
  CHECK(failure("2=3").find("is not NODE.INPUT=VALUE") != std::string::npos);
  CHECK(failure("Drew.steps=3").find("there is no node 'Drew'. Did you mean 'Draw'") !=
        std::string::npos);
  CHECK(failure("Number.value=3").find("several nodes: 2:31 (Number \"n\"), 4 (Number \"m\")") !=
        std::string::npos);
  CHECK(failure("Draw.step=3").find("Did you mean 'steps'") != std::string::npos);
  CHECK(failure("Draw.image=3").find("takes a link of type IMAGE,LATENT") != std::string::npos);
  CHECK(failure("Draw.steps=many").find("'many' is no INT") != std::string::npos);
  CHECK(failure("Draw.flag=perhaps").find("neither true nor false") != std::string::npos);
}
