// LLaVA's picture encoder: CLIP's, with what shows pictures to a language model behind it.
#include "distorch/models/clip_vision/vision_model.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models::clip_vision;
using at::Tensor;

TEST_CASE("LLaVA vision: the last layer but one, without its first token, through two layers") {
  auto tensors = tiny_tensors({"clip_vision"});
  TemporaryCheckpoint without(tensors);
  auto width = vision_config(vision_part(*without)).width;
  constexpr std::int64_t shown = 24;
  const std::string projector = "multi_modal_projector.linear_";
  for (auto [number, in] : {std::pair{"1", width}, {"2", shown}}) {
    auto layer = projector + number;
    tensors[layer + ".weight"] = tiny_weight(layer + ".weight", {shown, in});
    tensors[layer + ".bias"] = tiny_weight(layer + ".bias", {shown});
  }
  TemporaryCheckpoint file(tensors);
  auto part = vision_part(*file);
  auto config = vision_config(part);
  CHECK(config.shown_width == shown);
  VisionModel model(config);
  check_complete(model.manifest(), part, "picture encoder");
  TwiceSource source(model.manifest(), part, at::kFloat);
  Dump dump("clip_vision");
  auto states = model.forward(dump["pixels_True"]);
  CHECK(difference(states.embeds, dump["embeds"]) < 1e-4);
  // As ComfyUI's LlavaProjector computes it.
  auto tokens = dump["penultimate"].slice(1, 1);
  auto of = [&](const std::string& name) { return tensors.at(projector + name); };
  auto wanted = at::linear(at::gelu(at::linear(tokens, of("1.weight"), of("1.bias"))),
                           of("2.weight"), of("2.bias"));
  CHECK(difference(states.shown, wanted) < 1e-4);
  CHECK(source.runs.size() == model.manifest().blocks().size());
}
