#include "tests/support/poison.h"

#include "tests/nodes/simulated_device.h"
#include "tests/nodes/tiny_app.h"

// Whole prompts, from the checkpoint to the picture, while memory, copies and reads fail: see
// tests/support/poison.h.
using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

// Less than the network with its activations needs: some of its blocks stream.
constexpr std::int64_t budget = std::int64_t{24} << 20;

Json workflow() {
  auto prompt = sampling_prompt();
  prompt["5"]["inputs"]["steps"] = 2;
  prompt["5"]["inputs"]["model"] = {"8", 0};
  prompt["2"]["inputs"]["clip"] = prompt["3"]["inputs"]["clip"] = {"8", 1};
  prompt["8"] = {{"class_type", "LoraLoader"},
                 {"inputs",
                  {{"model", {"1", 0}},
                   {"clip", {"1", 1}},
                   {"lora_name", "kohya.safetensors"},
                   {"strength_model", 0.8},
                   {"strength_clip", 0.5}}}};
  // In one tile: the plain node goes on in smaller ones, which rounds otherwise.
  prompt["6"] = {{"class_type", "VAEDecodeTiled"},
                 {"inputs",
                  {{"samples", {"5", 0}},
                   {"vae", {"1", 2}},
                   {"tile_size", 512},
                   {"overlap", 64},
                   {"temporal_size", 64},
                   {"temporal_overlap", 8}}}};
  prompt["keep"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"6", 0}}}}};
  return prompt;
}

class Prompt final : public Scene {
 public:
  Prompt() : tiny_(on_a_simulated_device(budget), "poison") { sim::reset_peak(0); }

  at::Tensor prompt() override {
    tiny_.forget_results();
    auto result = tiny_.run(workflow());
    if (result.run.exception) std::rethrow_exception(result.run.exception);
    REQUIRE(result.run.status == graph::RunStatus::Success);
    return tiny_.kept.at("keep").as<at::Tensor>();
  }

  void check() override {
    CHECK(sim::memory(0).peak <= budget);
    tiny_.kept.clear();
    tiny_.forget_results();
    tiny_.app.engine.unload_all();
  }

 private:
  TinyApp tiny_;
};

}  // namespace

TEST_CASE("poison: a prompt from the checkpoint to the picture") {
  // A prompt has thousands of allocations: a part of them fails, prime to what repeats.
  int struck = poison([] { return std::make_unique<Prompt>(); }, 211);
  CHECK(struck > 8);
}

TEST_CASE("memory that runs out once ends no prompt while another model is idle") {
  TinyApp tiny(on_a_simulated_device(std::int64_t{400} << 20), "room");
  auto idle = sampling_prompt("tiny_sd2.safetensors");
  auto prompt = workflow();
  const auto held = tiny.value_of(idle, {"1", 1});  // lives on, whatever prompts come
  auto picture = [&] {
    tiny.forget_results();
    tiny.app.engine.unload_all();
    tiny.value_of(idle, {"2", 0});
    return [&] { return tiny.value_of(prompt, {"6", 0}).as<at::Tensor>(); };
  };
  const auto want = picture()();
  int struck = 0;
  // Loading, text, noise and latents, conditionings, the network, samplers, the picture.
  for (std::int64_t nth = 1;; nth += 101 * poison_stride(), ++struck) {
    CAPTURE(nth);
    auto again = picture();
    sim::fail_allocation(0, nth);
    CHECK(at::equal(again(), want));
    const bool last = sim::fault_pending(0);
    sim::fail_allocation(0, 0);
    if (last) break;
  }
  CHECK(struck > 8);
}
