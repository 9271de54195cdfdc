#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

Json with_lora(const std::string& name) {
  auto prompt = sampling_prompt();
  prompt["8"] = {{"class_type", "LoraLoaderModelOnly"},
                 {"inputs", {{"model", {"1", 0}}, {"lora_name", name}, {"strength_model", 0.5}}}};
  return prompt;
}

}  // namespace

TEST_CASE("models that are gone leave nothing behind in the cache") {
  TinyApp tiny;
  auto open = [&](const std::string& checkpoint) {
    tiny.forget_results();
    tiny.kept.clear();
    tiny.value_of(sampling_prompt(checkpoint), {"5", 0});
    return tiny.app.models.size();
  };
  // The file, its network, its text encoder, its autoencoder.
  CHECK(open("tiny_sd1.safetensors") == 4);
  CHECK(open("tiny_sd2.safetensors") == 4);
  CHECK(open("tiny_sd1.safetensors") == 4);
}

TEST_CASE("a model keeps no LoRA that nobody uses any more") {
  TinyApp tiny;
  auto model = tiny.value_of(with_lora("kohya.safetensors"), {"8", 0}).as<nodes::Model>();
  auto loaded = model.loaded;
  CHECK(loaded->loras.size() == 1);
  const auto& key = model.loras.at(0).key;
  CHECK(loaded->loras.find(key) == model.loras[0].adapters);
  // The same file again is the same adapters.
  auto same = tiny.value_of(with_lora("kohya.safetensors"), {"8", 0}).as<nodes::Model>();
  CHECK(same.loras.at(0).adapters == model.loras[0].adapters);

  model = same = {};
  tiny.kept.clear();
  tiny.forget_results();
  auto other = tiny.value_of(with_lora("original_names.safetensors"), {"8", 0}).as<nodes::Model>();
  CHECK(other.loaded == loaded);
  CHECK(loaded->loras.size() == 1);
}
