// PuLID's nodes beside the pack's own, with insightface's and facexlib's code for the faces:
// tests/parity/nodes_pulid.json.
#include "distorch/nodes/published_model.h"
#include "distorch/nodes/pulid.h"
#include "tests/models/pulid_weights.h"
#include "tests/nodes/tiny_seeded.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

constexpr const char* kEva = "clip_vision/EVA02_CLIP_L_336_psz14_s6B.pt";
constexpr const char* kAntelope = "insightface/models/antelopev2";

/// The narrow networks' files where a user has the published ones, made once.
const fs::path& pulid_files() {
  static const TemporaryFolder folder("pulid_files");
  static const bool made = [] {
    auto put = [](const std::string& name, const std::map<std::string, at::Tensor>& tensors) {
      fs::create_directories((folder.path() / name).parent_path());
      write_tensors(folder.path() / name, tensors);
    };
    models::pulid::Adapter adapter(tiny_pulid());
    models::pulid::EvaVision eva(tiny_eva());
    models::pulid_faces::RetinaFace cutter(tiny_retina());
    models::pulid_faces::BiSeNet parts(tiny_bisenet());
    put("pulid/pulid.safetensors", pulid_tensors(adapter.manifest()));
    put(kEva, pulid_tensors(eva.manifest(), "visual.", "visual."));
    put("facexlib/detection_Resnet50_Final.pth", pulid_tensors(cutter.manifest(), "module."));
    put("facexlib/parsing_bisenet.pth", pulid_tensors(parts.manifest()));
    fs::create_directories(folder.path() / kAntelope);
    // A third network of the folder is none of the two.
    for (const char* name : {"arc", "det", "operators"})
      fs::copy_file(parity_dir() / "pulid" / (std::string(name) + ".onnx"),
                    folder.path() / kAntelope / (std::string(name) + ".onnx"));
    return true;
  }();
  (void)made;
  return folder.path();
}

class PulidApp : public SeededApp {
 public:
  explicit PulidApp(streaming::EngineOptions engine = {}) : SeededApp(std::move(engine), "pulid") {
    // Links to the files: what a test replaces it removes first.
    fs::copy(pulid_files(), folder(),
             fs::copy_options::recursive | fs::copy_options::create_hard_links);
    for (const char* type : {"pulid", "clip_vision", "insightface", "facexlib"})
      app.folders.add(type, folder() / type);
    using graph::Value;
    catalog.add({.name = "TinyFacePicture",
                 .inputs = {graph::text("name"), graph::integer("height"), graph::integer("width"),
                            graph::integer("batch")},
                 .outputs = {"IMAGE"},
                 .run = [](graph::Call& call) {
                   const auto name = call.text("name");
                   const auto height = call.integer("height"), width = call.integer("width"),
                              batch = call.integer("batch");
                   call.out(0, Value::of("IMAGE", name == "nobody"
                                                      ? at::zeros({batch, height, width, 3})
                                                      : face_picture(name, height, width, batch)));
                 }});
    catalog.add(
        {.name = "TinyFaceMask",
         .inputs = {graph::integer("height"), graph::integer("width"), graph::integer("batch")},
         .outputs = {"MASK"},
         .run = [](graph::Call& call) {
           const auto height = call.integer("height"), width = call.integer("width");
           std::vector<at::Tensor> masks;
           for (std::int64_t b = 0; b < call.integer("batch"); ++b)
             masks.push_back((at::arange(width) > static_cast<double>(width * (b + 1)) / 4)
                                 .to(at::kFloat)
                                 .expand({height, width}));
           call.out(0, Value::of("MASK", at::stack(masks)));
         }});
  }
};

streaming::EngineOptions simulated_devices() {
  const auto rig = small_rig();
  sim::install(rig, sim::Mode::Exec);
  streaming::EngineOptions options;
  options.rig = rig;
  return options;
}

/// The inputs of the case's node of that type.
Json& inputs_of(Json& one, const std::string& type) {
  for (auto& [id, node] : one["workflow"].items())
    if (node["class_type"] == type) return node["inputs"];
  FAIL("no " << type);
  return one;
}

/// A case with its ApplyPulid as ApplyPulidAdvanced with these values.
Json advanced(Json one, const Json& values) {
  for (auto& [id, node] : one["workflow"].items())
    if (node["class_type"] == "ApplyPulid") {
      node["class_type"] = "ApplyPulidAdvanced";
      node["inputs"].erase("method");
      node["inputs"].update(values);
    }
  return one;
}

bool says(const std::string& error, const std::string& part) {
  CAPTURE(error);
  return error.find(part) != std::string::npos;
}

}  // namespace

namespace {

/// A case as workflow_case() gives it, with its latent's link as tests of others have it.
Json pulid_case(const std::string& name) {
  auto one = workflow_case("nodes_pulid", name);
  one["latent"] = one["outputs"]["latent"]["node"];
  return one;
}

at::Tensor wanted(const std::string& name) { return Dump("nodes_pulid")[name + "/latent"]; }

std::string error_of(PulidApp& tiny, const Json& one) {
  return tiny.error(one["workflow"], one["latent"]);
}

}  // namespace

TEST_CASE("PuLID: whole workflows give the latents of the pack's own code") {
  PulidApp tiny;
  auto plain = pulid_case("fidelity");
  inputs_of(plain, "KSampler")["model"] = inputs_of(plain, "ApplyPulid")["model"];
  const auto without = tiny.latent(plain);
  double worst = 0;
  for (const auto& one : workflow_cases("nodes_pulid")) {
    const auto title = one["name"].get<std::string>();
    INFO(title);
    const auto latent = tiny.latent(pulid_case(title));
    const auto error = difference(latent, wanted(title));
    CHECK(error < 1e-4);
    worst = std::max(worst, error);
    if (latent.sizes() == without.sizes()) CHECK(difference(latent, without) > 1e-3);
  }
  MESSAGE("largest difference " << worst);
}

TEST_CASE("PuLID: wherever the networks rest, the same") {
  const std::vector<std::string> loaders = {"PulidModelLoader", "PulidInsightFaceLoader",
                                            "PulidEvaClipLoader"};
  const auto options = simulated_devices();
  for (const char* device : {"cpu", "sim:0", "sim:1"}) {
    INFO(device);
    auto one = pulid_case("twice");
    auto& workflow = one["workflow"];
    for (auto& [id, node] : workflow.items()) {
      const auto type = node["class_type"].get<std::string>();
      if (std::ranges::find(loaders, type) != loaders.end()) {
        node["class_type"] = type + "MultiGPU";
        node["inputs"]["device"] = device;
      }
      if (type != "CheckpointLoaderSimple") continue;
      node["class_type"] = type + "DisTorch2MultiGPU";
      node["inputs"].update({{"compute_device", "sim:0"},
                             {"virtual_vram_gb", 0.0},
                             {"donor_device", "cpu"},
                             {"expert_mode_allocations", "sim:0,1mb;sim:1,1mb;cpu,*"},
                             {"eject_models", true}});
    }
    PulidApp tiny(options);
    // How far the same program is off depends on the processor's instructions: 0.1e-4 to 1.1e-4 on an
    // EPYC with AVX-512 or as AVX2 has it.
    CHECK(difference(tiny.latent(one), wanted("twice")) < 2e-4);
    const auto faces = tiny.value_of(workflow, {"4", 0}).as<nodes::FaceAnalysis>();
    CHECK(faces.detector->weights->options().compute == device);
    CHECK(faces.parts->weights->options().compute == device);
    CHECK(
        tiny.value_of(workflow, {"3", 0}).as<nodes::EvaClip>().loaded->weights->options().compute ==
        device);
    CHECK(tiny.value_of(workflow, {"2", 0})
              .as<nodes::PulidModel>()
              .loaded->weights->options()
              .compute == device);
  }
}

TEST_CASE("PuLID: the advanced node has the others' ways, and noise that is the same each time") {
  PulidApp tiny;
  const auto fidelity = tiny.latent(pulid_case("fidelity"));
  CHECK(at::equal(
      tiny.latent(advanced(pulid_case("fidelity"),
                           {{"projection", "ortho_v2"}, {"fidelity", 8}, {"noise", 0.0}})),
      fidelity));
  const auto noisy =
      advanced(pulid_case("fidelity"), {{"projection", "none"}, {"fidelity", 2}, {"noise", 0.5}});
  const auto once = tiny.latent(noisy);
  CHECK(at::equal(PulidApp().latent(noisy), once));
  CHECK(difference(once, fidelity) > 1e-3);
}

TEST_CASE("PuLID: a picture of nobody leaves the model as it is, among others it is left out") {
  PulidApp tiny;
  auto one = pulid_case("fidelity");
  const auto model = [&](const Json& link) {
    return tiny.value_of(one["workflow"], link).as<nodes::Model>().loaded;
  };
  inputs_of(one, "TinyFacePicture")["name"] = "nobody";
  CHECK(model({"6", 0}) == model({"1", 0}));
}

TEST_CASE("PuLID: a plan is made without a picture, and none of its networks is read") {
  auto options = simulated_devices();
  options.plan_only = true;
  PulidApp tiny(options);
  CHECK(tiny.latent(pulid_case("fidelity")).sizes() == wanted("fidelity").sizes());
  // Both halves of the text, the six networks (the adapter twice), the UNet.
  CHECK(tiny.app.engine.planned_runs().size() >= 8);
}

TEST_CASE("PuLID: what is missing or belongs to others is told with its file and folder") {
  {
    PulidApp tiny;
    auto other = pulid_case("fidelity");
    inputs_of(other, "CheckpointLoaderSimple")["ckpt_name"] = "tiny_sd1.safetensors";
    CHECK(says(error_of(tiny, other), "is SD1.x, and PuLID is for SDXL"));
  }
  for (const auto& missing : std::vector<std::pair<std::string, std::string>>{
           {kEva,
            "models/clip_vision/EVA-CLIP: is not there: put EVA02_CLIP_L_336_psz14_s6B.pt of "
            "QuanSun/EVA-CLIP"},
           {"facexlib/parsing_bisenet.pth", "models/facexlib/parsing_bisenet.pth: is not there"},
           {"facexlib/detection_Resnet50_Final.pth",
            "models/facexlib/detection_Resnet50_Final.pth: is not there"},
           {std::string(kAntelope) + "/det.onnx", "scrfd_10g_bnkps.onnx: is not there"},
           {std::string(kAntelope) + "/arc.onnx", "glintr100.onnx: is not there"},
           {kAntelope, "models/insightface/models/antelopev2: is not there"}}) {
    INFO(missing.first);
    PulidApp tiny;
    fs::remove_all(tiny.folder() / missing.first);
    CHECK(says(error_of(tiny, pulid_case("fidelity")), missing.second));
  }
  {
    PulidApp tiny;
    const auto arc = tiny.folder() / kAntelope / "arc.onnx";
    fs::remove(arc);
    fs::copy_file(parity_dir() / "pulid" / "arc.onnx", arc);
    fs::resize_file(arc, fs::file_size(arc) - 100);
    CHECK(says(error_of(tiny, pulid_case("fidelity")), "arc.onnx"));
  }
  {
    // An adapter of a narrower UNet.
    PulidApp tiny;
    auto config = tiny_pulid();
    config.layers[1].channels = 64;
    models::pulid::Adapter adapter(config);
    fs::remove(tiny.folder() / "pulid" / "pulid.safetensors");
    write_tensors(tiny.folder() / "pulid" / "pulid.safetensors", pulid_tensors(adapter.manifest()));
    CHECK(says(error_of(tiny, pulid_case("fidelity")),
               "has 'ip_adapter.3.to_k_ip.weight' of 64 channels for the 128 channels of "
               "'input_blocks.4'"));
  }
}

TEST_CASE("PuLID: the picture encoder is brought where that is allowed") {
  PulidApp tiny;
  fs::remove(tiny.folder() / kEva);
  struct Fake final : nodes::Downloads {
    void fetch(const std::string& name, const Wanted& wanted, const fs::path& place,
               const Progress&) override {
      model = name;
      folder = place;
      chosen =
          wanted({"EVA01_CLIP_g_14_psz14_s11B.pt", "EVA02_CLIP_L_336_psz14_s6B.pt", "README.md"});
      fs::create_directories(place);
      models::pulid::EvaVision eva(tiny_eva());
      write_tensors(place / chosen.at(0), pulid_tensors(eva.manifest(), "visual.", "visual."));
    }
    std::string model;
    fs::path folder;
    std::vector<std::string> chosen;
  } fake;
  auto context = tiny.app.context();
  context.set<nodes::Downloads>(fake);
  struct Silent : graph::EventSink {
    void send(const graph::Event&) override {}
  } silent;
  graph::RunRequest request;
  request.prompt = {{"eva", node("PulidEvaClipLoader")},
                    {"keep", node("Keep", {{"value", {"eva", 0}}})}};
  request.outputs = {"keep"};
  request.context = &context;
  CHECK(graph::Executor(tiny.catalog).run(request, silent).status == graph::RunStatus::Success);
  CHECK(fake.model == "QuanSun/EVA-CLIP");
  CHECK(fake.chosen == std::vector<std::string>{"EVA02_CLIP_L_336_psz14_s6B.pt"});
  CHECK(fake.folder.filename() == "EVA-CLIP");
  CHECK(fake.folder.parent_path().filename() == "clip_vision");
  CHECK(tiny.kept.at("keep").as<nodes::EvaClip>().loaded->network->config().image_size() == 42);
  fs::remove_all(fake.folder);  // other tests look into the same folder
}
