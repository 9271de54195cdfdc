#include "distorch/base/error.h"
#include "distorch/media/image.h"
#include "distorch/models/latent_formats.h"
#include "distorch/nodes/previewer.h"
#include "distorch/nodes/sampled_model.h"
#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

/// vae_approx with the halves of TAESDs under the names of the published ones.
void write_halves(TinyApp& tiny, const std::string& name, const std::string& dump) {
  fs::create_directories(tiny.folder() / "vae_approx");
  for (std::string half : {"encoder", "decoder"}) {
    std::map<std::string, at::Tensor> tensors;
    auto prefix = "taesd_" + half + ".";
    for (const auto& [full, tensor] : tiny_tensors({dump}))
      if (full.starts_with(prefix)) tensors[full.substr(prefix.size())] = tensor;
    write_tensors(tiny.folder() / "vae_approx" / (name + "_" + half + ".safetensors"), tensors);
  }
  tiny.app.folders.add("vae_approx", tiny.folder() / "vae_approx");
}

at::Tensor decoded_by(TinyApp& tiny, const std::string& vae, const at::Tensor& latent) {
  tiny.catalog.add(
      {.name = "Given" + vae, .outputs = {"LATENT"}, .run = [latent](graph::Call& call) {
         call.out(0, graph::Value::of("LATENT", sampling::Latent{latent, {}, {}}));
       }});
  Json prompt = {
      {"1", {{"class_type", "VAELoader"}, {"inputs", {{"vae_name", vae}}}}},
      {"2", {{"class_type", "Given" + vae}, {"inputs", Json::object()}}},
      {"3", {{"class_type", "VAEDecode"}, {"inputs", {{"samples", {"2", 0}}, {"vae", {"1", 0}}}}}}};
  return tiny.value_of(prompt, {"3", 0}).as<at::Tensor>();
}

at::Tensor picture(const at::Tensor& decoded) {
  return ((decoded + 1.0) / 2.0).clamp(0, 1).movedim(1, -1);
}

}  // namespace

TEST_CASE("VAELoader: TAESD and kin by name, from two files of vae_approx") {
  TinyApp tiny({}, "taesd");
  write_halves(tiny, "taesd", "taesd");
  write_halves(tiny, "taef1", "taesd16");
  Dump small("taesd"), large("taesd16");
  CHECK(difference(decoded_by(tiny, "taesd", small["latent"]), picture(small["decoded"])) < 1e-4);
  CHECK(difference(decoded_by(tiny, "taef1", large["latent"]), picture(large["decoded"])) < 1e-4);
  Json prompt = {{"1", {{"class_type", "VAELoader"}, {"inputs", {{"vae_name", "taesdxl"}}}}}};
  prompt["keep"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"1", 0}}}}};
  CHECK_FALSE(tiny.run(prompt).validation.clean());
}

TEST_CASE("previews: none, by linear factors, by TAESD; without its file by factors") {
  TinyApp tiny({}, "previews");
  auto format = models::LatentFormat();
  format.rgb_factors = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {0, 0, 0}};
  auto x0 = at::randn({2, 4, 3, 5});
  auto show = [&](const std::string& method) {
    tiny.app.settings.previews = nodes::preview_method(method);
    nodes::Previewer preview(tiny.app.models, format);
    REQUIRE(preview.active());
    return preview(x0);
  };
  tiny.app.settings.previews = nodes::preview_method("none");
  CHECK_FALSE(nodes::Previewer(tiny.app.models, format).active());
  auto linear = nodes::preview_pixels(format, x0);
  CHECK(at::equal(show("auto"), linear));
  CHECK(at::equal(show("latent2rgb"), linear));
  CHECK(at::equal(show("taesd"), linear));
  write_halves(tiny, "taesd", "taesd");
  auto large = show("taesd");
  CHECK(large.sizes() == at::IntArrayRef({24, 40, 3}));
  CHECK((large.scalar_type() == at::kByte));
  auto whole = decoded_by(tiny, "taesd", format.out_of_network(x0));
  CHECK(difference(large.to(at::kFloat), whole[0].mul(255.0).to(at::kByte).to(at::kFloat)) < 0.01);
  CHECK_THROWS_WITH_AS(nodes::preview_method("fast"), doctest::Contains("--preview-method"), Error);
}

TEST_CASE("previews of Wan: by a small video decoder, of the first frame, as ComfyUI shows it") {
  for (bool second : {false, true}) {
    CAPTURE(second);
    std::string dump = second ? "taehv22" : "taehv";
    std::int64_t channels = second ? 48 : 16;
    auto format = second ? models::wan22_latent() : models::wan21_latent();
    auto frame = tiny_weight(dump + " 1", {1, channels, 1, 1, 2}) * 8;
    auto x0 = at::cat({frame, at::randn({1, channels, 2, 1, 2})}, 2);
    x0 = at::cat({x0, at::randn_like(x0)});
    TinyApp tiny({}, "video_previews");
    tiny.app.settings.previews = nodes::PreviewMethod::Taesd;
    auto show = [&] { return nodes::Previewer(tiny.app.models, format)(x0); };
    auto linear = nodes::preview_pixels(format, x0);
    CHECK(at::equal(show(), linear));
    const auto folder = tiny.folder() / "vae_approx";
    fs::create_directories(folder);
    tiny.app.folders.add("vae_approx", folder);
    // Another model's is no decoder for this one.
    auto name = second ? "taew2_2.safetensors" : "taew2_1_wide.safetensors";
    write_tensors(folder / name, tiny_tensors({second ? "taehv" : "taehv22"}));
    CHECK(at::equal(show(), linear));
    name = second ? "lighttaew2_2.safetensors" : "lighttaew2_1.safetensors";
    write_tensors(folder / name, tiny_tensors({dump}));
    auto wanted = Dump(dump)["decode/1"][0].select(1, 0).permute({1, 2, 0});
    auto shown = show();
    REQUIRE(shown.sizes() == wanted.sizes());
    auto off = shown.to(at::kFloat) - wanted.clamp(0, 1).mul(255.0).floor();
    CHECK(off.abs().max().item<double>() <= 1);
  }
}
