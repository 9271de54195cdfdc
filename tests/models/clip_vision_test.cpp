#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/clip_vision/style_model.h"
#include "distorch/models/clip_vision/vision_model.h"
#include "distorch/models/sd2/unclip.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models::clip_vision;

namespace {

/// The photo of the inputs, [1, 64, 96, 3] 0..1.
at::Tensor photo() {
  auto dump = Dump("clip_vision");
  return dump["photo"];
}

void compare(const std::string& name, std::optional<VisionKind> kind = {}) {
  CAPTURE(name);
  TemporaryCheckpoint file(tiny_tensors({name}));
  auto part = vision_part(*file);
  auto config = vision_config(part);
  if (kind) config.kind = *kind;
  CHECK(config.image_size == 28);
  VisionModel model(config);
  check_complete(model.manifest(), part, name);
  TwiceSource source(model.manifest(), part, at::kFloat);
  Dump dump(name);
  for (bool crop : {true, false})
    CHECK(difference(prepared(photo(), config, crop), dump[crop ? "pixels_True" : "pixels_False"]) <
          1e-4);
  auto states = model.forward(dump["pixels_True"]);
  CHECK(difference(states.last, dump["last"]) < 1e-4);
  CHECK(difference(states.penultimate, dump["penultimate"]) < 1e-4);
  CHECK(difference(states.embeds, dump["embeds"]) < 1e-4);
  CHECK(source.runs.size() == model.manifest().blocks().size());
}

}  // namespace

TEST_CASE("CLIP vision: ViT-L in transformers' names, ViT-H's kind in OpenCLIP's") {
  compare("clip_vision");
  compare("clip_vision_open", VisionKind::ClipH);
}

TEST_CASE("CLIP vision: SigLIP") { compare("siglip"); }

TEST_CASE("CLIP vision: the published encoders are told by their shapes") {
  auto told = [](VisionConfig c) {
    VisionModel model(c);
    return vision_config(vision_part(shapes_only(model.manifest(), "")));
  };
  VisionConfig l, h, siglip;
  h = {VisionKind::ClipH, 1280, 16, 32, 5120, 14, 257, 224, 1024};
  siglip = {VisionKind::SigLip, 1152, 16, 27, 4304, 14, 729, 384, 0};
  CHECK((told(l).kind == VisionKind::ClipL));
  CHECK(told(l).image_size == 224);
  CHECK((told(h).kind == VisionKind::ClipH));
  CHECK(told(h).projection == 1024);
  CHECK((told(siglip).kind == VisionKind::SigLip));
  CHECK(told(siglip).image_size == 384);
  siglip.patch = 16;
  siglip.positions = 1024;
  CHECK(told(siglip).image_size == 512);
}

TEST_CASE("style models: Redux and the T2I adapter") {
  for (const char* name : {"style_redux", "style_adapter"}) {
    CAPTURE(name);
    TemporaryCheckpoint file(tiny_tensors({name}));
    auto found = find_style(*file);
    auto model = found.make();
    check_complete(model->manifest(), found.part, name);
    TwiceSource source(model->manifest(), found.part, at::kFloat);
    Dump dump(name);
    CHECK(difference(model->forward(dump["x"]), dump["out"]) < 1e-4);
    CHECK(model->width() == dump["x"].size(2));
  }
  TemporaryCheckpoint other({{"weight", at::zeros({2, 2})}});
  CHECK_THROWS_WITH_AS(find_style(*other), doctest::Contains("Redux"), Error);
}

TEST_CASE("unCLIP: pictures become the model's second conditioning") {
  Dump dump("unclip");
  auto embeds = dump["embeds"];
  auto first = embeds.narrow(0, 0, 1), second = embeds.narrow(0, 1, 1);
  using models::sd2::unclip_vector;
  CHECK(difference(unclip_vector({{first, 1.0, 0.0}}, 77), dump["clean"]) < 1e-4);
  CHECK(difference(unclip_vector({{first, 0.7, 0.4}}, 77), dump["noisy"]) < 1e-4);
  CHECK(difference(unclip_vector({{first, -2.0, 1.0}}, 77), dump["most"]) < 1e-4);
  CHECK(difference(unclip_vector({{first, 1.0, 0.1}, {second, 0.5, 0.6}}, 77), dump["two"]) < 1e-4);
  CHECK(difference(unclip_vector({{embeds, 1.0, 0.2}}, 77), dump["batch"]) < 1e-4);
}

TEST_CASE("unCLIP: told from SD 2.x and SDXL by the width of its second conditioning") {
  std::map<std::string, at::Tensor> shapes;
  for (const auto& [name, tensor] : tiny_tensors({"unet_sd2"})) shapes[name] = tensor;
  shapes["model.diffusion_model.label_emb.0.0.weight"] = at::zeros({256, 1536});
  shapes["model.diffusion_model.label_emb.0.0.bias"] = at::zeros({256});
  shapes["model.diffusion_model.label_emb.0.2.weight"] = at::zeros({256, 256});
  shapes["model.diffusion_model.label_emb.0.2.bias"] = at::zeros({256});
  TemporaryCheckpoint file(shapes);
  auto family = models::detect_family(*file);
  CHECK(family->name() == "SD2.1 unCLIP");
  auto network = family->make_network();
  check_complete(network->manifest(), family->diffusion(), "unCLIP");
  models::InputSpec spec;
  for (const auto& input : network->inputs())
    if (input.name == "vector") spec = input;
  sampling::ConditioningItem item;
  sampling::EncodeContext context{.noise = at::zeros({1, 4, 8, 8}), .seed = 87};
  CHECK(family->encode(spec, item, context).value.abs().max().item<float>() == 0.0f);
  auto embeds = at::randn({1, 768});
  item.tensors["unclip.0"] = embeds;
  item.numbers = {{"unclip.0.strength", 0.5}, {"unclip.0.noise_augmentation", 0.3}};
  CHECK(at::equal(family->encode(spec, item, context).value,
                  models::sd2::unclip_vector({{embeds, 0.5, 0.3}}, 77)));
  item.tensors["unclip.0"] = at::randn({1, 1024});
  CHECK_THROWS_WITH_AS(family->encode(spec, item, context), doctest::Contains("1024"), Error);
}
