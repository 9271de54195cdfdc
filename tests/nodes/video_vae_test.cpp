#include "distorch/nodes/values.h"
#include "tests/nodes/simulated_device.h"
#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

/// An application with vae/NAME and a node that gives a picture or a latent.
class VaeApp : public TinyApp {
 public:
  VaeApp(const std::string& name, const std::map<std::string, at::Tensor>& tensors,
         streaming::EngineOptions engine = {})
      : TinyApp(std::move(engine), "vae"), name_(name) {
    fs::create_directories(folder() / "vae");
    write_tensors(folder() / "vae" / name, tensors);
    app.folders.add("vae", folder() / "vae");
    // What is given changes from run to run.
    auto always = [](const graph::Call&) { return std::optional<std::string>(); };
    catalog.add(
        {.name = "GivenImage",
         .outputs = {"IMAGE"},
         .run = [this](graph::Call& call) { call.out(0, graph::Value::of("IMAGE", given)); },
         .change_key = always});
    catalog.add({.name = "GivenLatent",
                 .outputs = {"LATENT"},
                 .run =
                     [this](graph::Call& call) {
                       call.out(0, graph::Value::of("LATENT", sampling::Latent{given, {}, {}}));
                     },
                 .change_key = always});
  }

  Json prompt(const std::string& node, Json inputs = Json::object()) const {
    bool encodes = node.starts_with("VAEEncode");
    inputs[encodes ? "pixels" : "samples"] = {"2", 0};
    inputs["vae"] = {"1", 0};
    return {
        {"1", {{"class_type", "VAELoader"}, {"inputs", {{"vae_name", name_}}}}},
        {"2", {{"class_type", encodes ? "GivenImage" : "GivenLatent"}, {"inputs", Json::object()}}},
        {"3", {{"class_type", node}, {"inputs", inputs}}}};
  }
  at::Tensor encoded(const std::string& node, const Json& inputs = Json::object()) {
    return value_of(prompt(node, inputs), {"3", 0}).as<sampling::Latent>().samples;
  }
  at::Tensor decoded(const std::string& node, const Json& inputs = Json::object()) {
    return value_of(prompt(node, inputs), {"3", 0}).as<at::Tensor>();
  }
  std::string error(const std::string& node) {
    auto prompt = this->prompt(node);
    prompt["keep"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"3", 0}}}}};
    return run(prompt).error;
  }

  at::Tensor given;

 private:
  std::string name_;
};

Json tiles(int size, int overlap, int frames, int frame_overlap) {
  return {{"tile_size", size},
          {"overlap", overlap},
          {"temporal_size", frames},
          {"temporal_overlap", frame_overlap}};
}

}  // namespace

TEST_CASE("VAE nodes, video: the pictures of a batch are the frames of one latent") {
  VaeApp tiny("causal.safetensors", tiny_tensors({"causal_vae"}));
  Dump dump("causal_vae");
  tiny.given = tiny_weight("frames", {21, 40, 32, 3}).narrow(0, 0, 9);
  CHECK(difference(tiny.encoded("VAEEncode"), dump["encode/frames"]) < 1e-4);
  tiny.given = tiny_weight("large", {1, 16, 4, 5, 4}).narrow(2, 0, 1);
  auto wanted = dump["decode/large"].squeeze(1);
  CHECK(difference(tiny.decoded("VAEDecode"), wanted) < 1e-4);
  // A latent without frames is one.
  tiny.given = tiny.given.squeeze(2);
  CHECK(difference(tiny.decoded("VAEDecode"), wanted) < 1e-4);
}

TEST_CASE("VAE nodes, video: in tiles of space and time") {
  VaeApp tiny("causal.safetensors", tiny_tensors({"causal_vae"}));
  tiny.given = at::rand({9, 96, 64, 3});
  auto latent = tiny.encoded("VAEEncodeTiled", tiles(64, 32, 8, 4));
  CHECK(latent.sizes() == at::IntArrayRef({1, 16, 3, 12, 8}));
  tiny.given = at::randn({1, 16, 4, 10, 8});
  auto whole = tiny.decoded("VAEDecode");
  CHECK(whole.sizes() == at::IntArrayRef({13, 80, 64, 3}));
  auto tiled = tiny.decoded("VAEDecodeTiled", tiles(512, 64, 64, 8));
  CHECK(difference(tiled, whole) < 1e-5);
  tiled = tiny.decoded("VAEDecodeTiled", tiles(64, 16, 8, 4));
  CHECK(tiled.sizes() == whole.sizes());
  CHECK((tiled - whole).abs().mean().item<double>() < 0.2);
}

TEST_CASE("VAE nodes: a latent of another model is refused in one sentence that names the file") {
  VaeApp video("causal.safetensors", tiny_tensors({"causal_vae"}));
  video.given = at::randn({1, 4, 8, 8});
  auto error = video.error("VAEDecode");
  CHECK(error.find("causal.safetensors: decodes latents of 16 channels, got 4") !=
        std::string::npos);
  VaeApp pictures("flux.safetensors", tiny_tensors({"vae_flux"}));
  pictures.given = at::randn({1, 16, 3, 4, 4});
  error = pictures.error("VAEDecode");
  CHECK(error.find("flux.safetensors: decodes pictures, got a latent of 3 frames") !=
        std::string::npos);
  pictures.given = at::randn({2, 16, 1, 4, 4});
  CHECK(pictures.decoded("VAEDecode").sizes() == at::IntArrayRef({2, 16, 16, 3}));
}

TEST_CASE("VAE nodes, video: a longer clip needs no more memory of the device") {
  constexpr std::int64_t budget = std::int64_t{16} << 20;
  for (std::string vae : {"wan_vae", "wan_vae22"}) {
    CAPTURE(vae);
    auto second = vae == "wan_vae22";
    std::int64_t channels = second ? 48 : 16, cells = second ? 4 : 8;
    for (bool decodes : {true, false}) {
      CAPTURE(decodes);
      std::map<std::int64_t, std::int64_t> peaks;
      for (std::int64_t frames : {81, 241}) {
        VaeApp tiny(vae + ".safetensors", tiny_tensors({vae}), on_a_simulated_device(budget));
        tiny.given = decodes ? at::randn({1, channels, 1 + frames / 4, cells, cells})
                             : at::rand({frames, 64, 64, 3});
        sim::reset_peak(0);
        if (decodes)
          CHECK(tiny.decoded("VAEDecode").sizes() == at::IntArrayRef({frames, 64, 64, 3}));
        else
          CHECK(tiny.encoded("VAEEncode").size(2) == 1 + frames / 4);
        peaks[frames] = sim::memory(0).peak;
        CHECK(peaks[frames] <= budget);
      }
      CHECK(peaks[81] == peaks[241]);
      MESSAGE(vae << (decodes ? " decodes" : " encodes") << ", peak " << peaks[81] << " bytes");
    }
  }
}
