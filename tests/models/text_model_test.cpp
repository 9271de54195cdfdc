#include "distorch/models/clip/text_model.h"

#include "distorch/base/error.h"
#include "distorch/models/clip/recipes.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models::clip;
using at::Tensor;

namespace {

struct Loaded {
  Loaded(const std::string& name, TextKind kind)
      : dump(name),
        file(tiny_tensors({name})),
        part(text_part(*file)),
        model(text_config(part, kind)),
        source(model.manifest(), part, at::kFloat) {
    check_complete(model.manifest(), part, "text encoder");
    ids = dump["ids"].to(at::kLong);
  }
  Dump dump;
  TemporaryCheckpoint file;
  weights::Checkpoint part;
  TextModel model;
  TwiceSource source;
  Tensor ids;
};

TextConfig real_clip_h() {
  TextConfig c;
  c.kind = TextKind::ClipH;
  c.width = 1024;
  c.heads = 16;
  c.layers = 24;
  c.mlp_width = 4096;
  c.projection = 1024;
  c.projection_transposed = true;
  return c;
}

}  // namespace

TEST_CASE("CLIP-L: every layer as transformers computes it") {
  Loaded l("clip_l", TextKind::ClipL);
  CHECK(l.model.config().heads == 1);
  auto last = l.model.forward({l.ids});
  CHECK(difference(last.hidden, l.dump["last"]) < 1e-4);
  CHECK(difference(last.pooled, l.dump["pooled"]) < 1e-4);
  for (int i : {0, 1, 2}) {
    auto out = l.model.forward({l.ids}, {.layer = i, .normalize = false});
    CHECK(difference(out.hidden.narrow(0, 0, 2), l.dump["layers." + std::to_string(i)]) < 1e-4);
  }
  CHECK(difference(l.model.forward({l.ids}, {.layer = -2}).hidden, l.dump["penultimate_normed"]) <
        1e-4);
  CHECK(difference(l.model.forward({l.ids}, {.layer = -2, .normalize = false}).hidden,
                   l.dump["penultimate"]) < 1e-4);
  CHECK(at::equal(l.model.forward({l.ids}, {.layer = -1}).hidden, last.hidden));
  CHECK(at::equal(l.model.forward({l.ids}, {.layer = -24}).hidden,
                  last.hidden));  // more than there are: the last
}

TEST_CASE("OpenCLIP-H: fused projections, its layer, the transposed projection") {
  Loaded l("clip_h", TextKind::ClipH);
  CHECK(l.model.config().projection_transposed);
  CHECK(l.model.config().heads == 2);
  auto out = l.model.forward({l.ids}, {.layer = -2});
  CHECK(difference(out.hidden, l.dump["penultimate_normed"]) < 1e-4);
  CHECK(difference(out.pooled, l.dump["pooled_projected"]) < 1e-4);
  CHECK(difference(l.model.forward({l.ids}, {.project_pooled = false}).pooled, l.dump["pooled"]) <
        1e-4);
  CHECK(difference(l.model.forward({l.ids}).hidden, l.dump["last"]) < 1e-4);
}

TEST_CASE("CLIP: replaced rows stand in for tokens") {
  Loaded l("clip_l", TextKind::ClipL);
  auto table = l.model.manifest().slot(0).value;
  auto ids = l.ids.narrow(0, 0, 2).clone();
  auto wanted = l.model.forward({ids});
  auto blanked = ids.clone();
  blanked[1][5] = 0;
  blanked[0][1] = 0;
  TextInput input{blanked,
                  {{1, 5, table[ids[1][5].item<std::int64_t>()]},
                   {0, 1, table[ids[0][1].item<std::int64_t>()]}}};
  CHECK(at::equal(l.model.forward(input).hidden, wanted.hidden));
  CHECK_FALSE(at::equal(l.model.forward({blanked}).hidden, wanted.hidden));
  input.replacements[0].vector = at::zeros({768});
  CHECK_THROWS_WITH_AS(l.model.forward(input), doctest::Contains("768"), Error);
  CHECK_THROWS_WITH_AS(l.model.forward({at::zeros({1, 78}, at::kLong)}),
                       doctest::Contains("78 tokens"), Error);
}

TEST_CASE("CLIP: without an end token the last position is pooled") {
  Loaded l("clip_l", TextKind::ClipL);
  auto out = l.model.forward({at::full({1, 6}, 320, at::kLong)});
  CHECK(at::equal(out.pooled[0], out.hidden[0][5]));
}

TEST_CASE("CLIP: sizes of the real encoders, told by shapes alone") {
  TextModel l(TextConfig{}), h(real_clip_h());
  CHECK(parameters(l.manifest()) == 123'060'480);
  CHECK(parameters(h.manifest()) == 354'032'640);
  CHECK(l.manifest().blocks().size() == 14);
  auto part = text_part(shapes_only(l.manifest(), "cond_stage_model.transformer."));
  CHECK(detect_text_kind(part) == TextKind::ClipL);
  auto c = text_config(part, TextKind::ClipL);
  CHECK(c.layers == 12);
  CHECK(c.heads == 12);
  CHECK(c.mlp_width == 3072);
  CHECK(c.projection == 0);
  CHECK(detect_text_kind(text_part(shapes_only(h.manifest()))) == TextKind::ClipH);
  CHECK(text_part(shapes_only(h.manifest(), "unknown.")).empty());
}

TEST_CASE("CLIP: SD 1.x files without the level text_model") {
  TextModel l(TextConfig{});
  weights::Checkpoint file;
  for (const auto& weight : l.manifest().weights())
    file.add(
        "cond_stage_model.transformer." + weight.name.substr(std::string("text_model.").size()),
        {.shape = weight.shape});
  auto part = text_part(file);
  for (const auto& weight : l.manifest().weights()) CHECK(part.shape(weight.name) == weight.shape);
}

TEST_CASE("LoRA names of a text encoder") {
  TextModel l(TextConfig{});
  auto recipe = single_recipe(shapes_only(l.manifest()), TextKind::ClipL);
  auto names = recipe.encoders.at(0).lora_names(l.manifest());
  std::string weight = "text_model.encoder.layers.3.self_attn.q_proj.weight";
  for (std::string spelled :
       {"lora_te_text_model_encoder_layers_3_self_attn_q_proj",
        "lora_te1_text_model_encoder_layers_3_self_attn_q_proj",
        "text_encoder.text_model.encoder.layers.3.self_attn.q_proj",
        "text_encoders.clip_l.transformer.text_model.encoder.layers.3.self_attn.q_proj"}) {
    CAPTURE(spelled);
    REQUIRE(names.count(spelled) == 1);
    CHECK(names.at(spelled) == weight);
  }
}
