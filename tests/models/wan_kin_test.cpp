// Wan's transformers with further parts: control frames (VACE), a camera, a face, sound; and the
// networks that steer them.
#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/reference_cache.h"
#include "distorch/models/wan/call_options.h"
#include "distorch/models/wan/control_net.h"
#include "distorch/models/wan/transformer.h"
#include "distorch/models/wan/uni3c.h"
#include "tests/models/tiny_wan.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using namespace distorch::models::wan;
using at::Tensor;

namespace {

using Loaded = LoadedWan;

Tensor video(std::int64_t channels) {
  return tiny_weight("video " + std::to_string(channels), {2, channels, 3, 4, 6});
}

/// A video of `channels` channels, of which those behind the latent's are given beside it.
Inputs inputs_of(std::int64_t channels = 16) {
  auto both = video(channels);
  Inputs inputs = {{"x", both.narrow(1, 0, 16)},
                   {"timestep", at::tensor({700.0, 200.5}, at::kFloat)},
                   {"context", tiny_weight("texts", {2, 9, 48})}};
  if (channels > 16) inputs.set("concat", both.narrow(1, 16, channels - 16));
  return inputs;
}

Tensor controls() { return tiny_weight("controls", {2, 2, 96, 3, 4, 6}) * 8; }
Tensor rays() { return tiny_weight("rays", {2, 24, 3, 32, 48}) * 32; }

Tensor strengths(std::vector<double> values) {
  return at::tensor(values, at::kFloat).expand({2, static_cast<std::int64_t>(values.size())});
}

}  // namespace

TEST_CASE("Wan VACE: one and two videos of control frames, as ComfyUI and diffusers") {
  Dump dump("wan_vace");
  auto one = inputs_of(), two = inputs_of();
  one.set("vace", controls().narrow(1, 0, 1));
  one.set("vace_strength", strengths({1.0}));
  two.set("vace", controls());
  two.set("vace_strength", strengths({0.75, 1.25}));
  Loaded l("wan_vace");
  CHECK(l.net.config().vace_layers == 2);
  CHECK(l.net.config().vace_channels == 96);
  CHECK(difference(l.net.apply(one), dump["out/one"]) < 1e-4);
  CHECK(difference(l.net.apply(two), dump["out/two"]) < 1e-4);
  Loaded theirs(under_diffusers_names("wan_vace"));
  CHECK(difference(theirs.net.apply(one), dump["out/one"]) < 1e-4);
}

TEST_CASE("Wan VACE: control frames of another length are refused by name") {
  Loaded l("wan_vace");
  auto inputs = inputs_of();
  inputs.set("vace", controls().narrow(3, 0, 2));
  inputs.set("vace_strength", strengths({1.0, 1.0}));
  CHECK_THROWS_WITH_AS(l.net.apply(inputs), doctest::Contains("control frames: are of [2, 4, 6]"),
                       Error);
}

TEST_CASE("Wan camera: rays in the forms of 2.1 and 2.2, as ComfyUI") {
  Dump dump("wan_camera");
  Loaded l("wan_camera");
  CHECK(l.net.config().camera_channels == 24);
  auto inputs = inputs_of(32);
  inputs.set("vision", tiny_weight("seen", {2, 7, 1280}));
  CHECK(difference(l.net.apply(inputs), dump["out/resting"]) < 1e-4);
  inputs.set("camera", rays());
  CHECK(difference(l.net.apply(inputs), dump["out/moving"]) < 1e-4);
  inputs.set("camera", rays().narrow(2, 0, 2));
  CHECK_THROWS_WITH_AS(l.net.apply(inputs),
                       doctest::Contains("camera_conditions: are of 2 latent frames of 48 x 32"),
                       Error);
  Loaded second("wan_camera22");
  inputs = inputs_of(36);
  inputs.set("camera", rays());
  CHECK(difference(second.net.apply(inputs), Dump("wan_camera22")["out/moving"]) < 1e-4);
}

TEST_CASE("Wan Animate: a pose and a face that move, as ComfyUI") {
  Dump dump("wan_animate");
  Loaded l("wan_animate");
  CHECK(l.net.config().face_layers == 1);
  CHECK_FALSE(l.net.config().image_to_video());
  auto inputs = inputs_of(36);
  inputs.set("vision", tiny_weight("seen", {2, 7, 1280}));
  inputs.set("pose", tiny_weight("pose", {2, 16, 2, 4, 6}) * 8);
  CHECK(difference(l.net.apply(inputs), dump["out/posed"]) < 1e-4);
  auto face = tiny_weight("face", {2, 3, 2, 512, 512}) * 800;
  inputs.set("face", face);
  CHECK(difference(l.net.apply(inputs), dump["out/moving"]) < 1e-4);
  inputs.set("face", face.narrow(3, 0, 256));
  CHECK_THROWS_WITH_AS(l.net.apply(inputs),
                       doctest::Contains("face_video: has to be of 512 x 512 pixels"), Error);
}

TEST_CASE("Wan S2V: sound, a reference picture, earlier frames and a control video, as ComfyUI") {
  Dump dump("wan_s2v");
  Loaded l("wan_s2v");
  CHECK(l.net.config().audio_layers == 25);
  CHECK(l.net.config().audio_width == 40);
  Inputs inputs = {{"x", tiny_weight("wide video", {2, 16, 3, 8, 16}) * 30},
                   {"timestep", at::tensor({700.0, 200.5}, at::kFloat)},
                   {"context", tiny_weight("texts", {2, 9, 48})}};
  CHECK(difference(l.net.apply(inputs), dump["out/plain"]) < 1e-4);
  auto audio = tiny_weight("audio", {2, 25, 40, 14}) * 8;
  inputs.set("audio", audio);
  inputs.set("reference_frames", tiny_weight("reference", {2, 16, 1, 8, 16}) * 8);
  inputs.set("control", tiny_weight("control", {2, 16, 3, 8, 16}) * 8);
  CHECK(difference(l.net.apply(inputs), dump["out/begin"]) < 1e-4);
  inputs.set("motion", tiny_weight("motion", {2, 16, 5, 8, 16}) * 8);
  CHECK(difference(l.net.apply(inputs), dump["out/all"]) < 1e-4);
  inputs.set("audio", audio.narrow(3, 0, 11));
  CHECK_THROWS_WITH_AS(l.net.apply(inputs), doctest::Contains("audio_embed: is of 11 steps"),
                       Error);
}

TEST_CASE("Wan with FantasyTalking's layers: tokens of nothing are no speech; what does not fit") {
  Loaded l(tiny_tensors({"wan_reference", "nodes_wan_speech"}));
  CHECK(l.net.config().speech_width == 32);
  auto inputs = inputs_of(l.net.config().in_channels);
  const auto silent = l.net.apply(inputs);
  auto hear = [&](const Tensor& speech, double scale = 1) {
    inputs.set("speech", speech);
    inputs.set_number(kSpeechScale, scale);
    return l.net.apply(inputs);
  };
  const auto speech = tiny_weight("speech", {2, 3, 7, 32}) * 5;
  const auto heard = hear(speech);
  CHECK(difference(heard, silent) > 1e-3);
  CHECK(difference(hear(at::zeros_like(speech)), silent) < 1e-6);
  CHECK(difference(hear(speech, 0), silent) < 1e-6);
  // Each frame hears its own.
  CHECK(difference(hear(speech.flip(1)), heard) > 1e-3);
  CHECK_THROWS_WITH_AS(hear(speech.narrow(1, 0, 2)),
                       doctest::Contains("is that of 2 latent frames, and the video has 3"), Error);
  inputs.set("reference", tiny_weight("before", {2, 16, 4, 6}));
  CHECK_THROWS_WITH_AS(hear(speech), doctest::Contains("where a reference picture stands"), Error);
  // Layers of VACE have none of it.
  auto tensors = tiny_tensors({"wan_vace", "nodes_wan_speech"});
  for (std::string layer : {"blocks.2.cross_attn.", "blocks.3.cross_attn."})
    for (const char* part : {"k_proj.weight", "v_proj.weight"})
      tensors[layer + part] = tiny_weight(layer + part, {256, 32});
  Loaded vace(tensors);
  for (const auto& weight : vace.net.manifest().weights())
    CHECK_FALSE((weight.name.starts_with("vace_") && weight.name.ends_with("k_proj.weight")));
  CHECK(vace.net.config().speech_width == 32);
}

TEST_CASE("Wan VACE: what a conditioning gives the network") {
  TemporaryCheckpoint file(tiny_tensors({"wan_vace"}));
  auto family = detect_family(*file);
  auto network = family->make_network();
  sampling::EncodeContext context;
  context.noise = at::zeros({2, 16, 3, 4, 6});
  sampling::ConditioningItem item;
  auto encoded = [&](const std::string& name) {
    for (const auto& spec : network->inputs())
      if (spec.name == name) return family->encode(spec, item, context).value;
    FAIL("no such input");
    return Tensor();
  };
  SUBCASE("nothing given: a blank video, made anew everywhere") {
    auto frames = encoded("vace");
    CHECK(frames.sizes() == at::IntArrayRef({2, 1, 96, 3, 4, 6}));
    auto blank = family->latent().into_network(at::zeros({1, 16, 3, 4, 6}))[0];
    CHECK(at::equal(frames[1][0].narrow(0, 16, 16), blank));
    CHECK(frames.narrow(2, 32, 64).min().item<float>() == 1.0f);
    CHECK(at::equal(encoded("vace_strength"), at::ones({2, 1})));
  }
  SUBCASE("two videos") {
    item.tensors["vace_frames"] = at::randn({1, 2, 32, 3, 4, 6});
    item.tensors["vace_mask"] = at::rand({1, 2, 64, 3, 4, 6});
    item.tensors["vace_strength"] = at::tensor({0.5, 2.0}, at::kFloat).unsqueeze(0);
    auto frames = encoded("vace");
    CHECK(frames.sizes() == at::IntArrayRef({2, 2, 96, 3, 4, 6}));
    auto second =
        family->latent().into_network(item.tensors["vace_frames"].select(1, 1).narrow(1, 16, 16));
    CHECK(at::equal(frames[0][1].narrow(0, 16, 16), second[0]));
    CHECK(at::equal(frames[1][1].narrow(0, 32, 64), item.tensors["vace_mask"][0][1]));
    CHECK(encoded("vace_strength")[1][1].item<float>() == 2.0f);
  }
}

namespace {

/// A quarter of each residual's numbers, as the dump has them.
Tensor quarter(const Tensor& residuals) { return residuals.slice(-1, 0, {}, 4); }

Tensor one_video(const char* name) { return tiny_weight(name, {1, 16, 2, 4, 4}) * 8; }

}  // namespace

TEST_CASE("Wan's ControlNet: one noise level and one a frame, as the wrapper's own code") {
  Dump dump("nodes_wan_control");
  TemporaryCheckpoint file(tiny_tensors({"wan_control_net"}));
  const auto part = control_net_part(*file);
  ControlNet net(control_net_config(part));
  CHECK(net.config().latent_channels == 16);
  CHECK(net.config().model_width == 256);
  CHECK_FALSE(net.config().layers.norm_before_text);
  weights::check_complete(net.manifest(), part, "ControlNet");
  TwiceSource source(net.manifest(), part, at::kFloat);
  const auto images = (tiny_weight("control images", {5, 32, 32, 3}) * 60).sigmoid();
  auto inputs = Inputs{{"x", one_video("video")},
                       {"timesteps", at::full({1, 1}, 700.0)},
                       {"context", tiny_weight("text", {1, 7, 48})},
                       {"guide", net.encode(images.permute({3, 0, 1, 2}).unsqueeze(0) * 2 - 1)}};
  CHECK(difference(quarter(net.apply(inputs)), dump["net/control"]) < 1e-4);
  inputs.set("timesteps", at::tensor({700.0, 200.5}, at::kFloat).unsqueeze(0));
  CHECK(difference(quarter(net.apply(inputs)), dump["net/control by frame"]) < 1e-4);
  inputs.set("guide", inputs["guide"].narrow(2, 0, 1));
  CHECK_THROWS_WITH_AS(net.apply(inputs), doctest::Contains("has a control video of [1, 4, 4]"),
                       Error);
  CHECK_THROWS_WITH_AS(net.encode(at::zeros({1, 4, 5, 32, 32})),
                       doctest::Contains("takes a video of 3 channels"), Error);
}

TEST_CASE("Uni3C: residuals of a rendered video, as the wrapper's own code") {
  TemporaryCheckpoint file(tiny_tensors({"wan_uni3c"}));
  Uni3C net(uni3c_config(*file));
  CHECK(net.config().render_channels == 16);
  CHECK(net.config().layers == 2);
  TwiceSource source(net.manifest(), *file, at::kFloat);
  const auto x = one_video("video");
  auto inputs = Inputs{{"x", at::cat({x, at::zeros_like(x.narrow(1, 0, 4))}, 1)},
                       {"render", one_video("render")},
                       {"time", tiny_weight("time", {1, 256}) * 8}};
  CHECK(difference(quarter(net.apply(inputs)), Dump("nodes_wan_control")["net/uni3c"]) < 1e-4);
  inputs.set("render", inputs["render"].narrow(2, 0, 1));
  CHECK_THROWS_WITH_AS(net.apply(inputs), doctest::Contains("has a rendered video of [1, 4, 4]"),
                       Error);
}

TEST_CASE("Wan: residuals are added behind their layers, and not to a reference before the video") {
  auto inputs = inputs_of();
  Loaded l("wan_t2v");
  const auto plain = l.net.apply(inputs);
  const auto residuals = tiny_weight("residuals", {2, 1, 18, 256}) * 100;
  inputs.set(kResiduals, residuals);
  const auto each = l.net.apply(inputs);
  CHECK(difference(each, plain) > 1e-2);
  // The same ones behind every layer; of every second one only the first is left.
  Inputs spread = inputs_of();
  spread.set(kSpreadResiduals, residuals);
  CHECK(at::equal(l.net.apply(spread), each));
  spread.set_number(kSpreadEvery, 2);
  Inputs first = inputs_of();
  first.set(kResiduals, residuals.narrow(0, 0, 1));
  CHECK(at::equal(l.net.apply(spread), l.net.apply(first)));
  // Both of half the size are one.
  Inputs both = inputs_of();
  both.set(kResiduals, residuals / 2);
  both.set(kSpreadResiduals, residuals / 2);
  CHECK(difference(l.net.apply(both), each) < 1e-5);
  // What is added behind the last layer is seen as it is in the change by all layers.
  Loaded referring("wan_reference");
  auto wide = inputs_of(36);
  wide.set("reference", tiny_weight("a reference", {2, 16, 4, 6}));
  wide.set_number(kKeepChange, 1);
  auto change = [&] {
    const auto kept = split_kept(referring.net.apply(wide), wide["x"].sizes());
    return kept.cache.view(at::kFloat).view({2, 6 + 18, 256});
  };
  const auto before = change();
  wide.set(kResiduals, at::cat({at::zeros({1, 1, 18, 256}), residuals.narrow(0, 1, 1)}));
  const auto added = change() - before;
  CHECK(added.narrow(1, 0, 6).abs().max().item<double>() == 0);
  CHECK(difference(added.narrow(1, 6, 18), residuals[1].expand({2, 18, 256})) < 1e-4);
}
