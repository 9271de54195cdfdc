#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <filesystem>

#include "distorch/base/error.h"
#include "distorch/models/pulid_faces/scrfd.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/model_directories.h"
#include "distorch/nodes/open_networks.h"
#include "distorch/nodes/published_model.h"
#include "distorch/nodes/pulid.h"

namespace distorch::nodes {

using graph::Call;
using graph::choice;
using graph::Value;
using weights::Checkpoint;

namespace {

namespace fs = std::filesystem;
namespace pulid = models::pulid;
namespace faces = models::pulid_faces;

constexpr const char* kEvaFile = "EVA02_CLIP_L_336_psz14_s6B.pt";
constexpr const char* kEvaModel = "QuanSun/EVA-CLIP";
constexpr const char* kEvaFolder = "clip_vision";
constexpr const char* kAntelope = "models/antelopev2";

/// Opens networks with one placement; what is open already is handed out again.
struct Opener {
  ModelCache& models;
  OpenNetworks& open;
  streaming::PlacementRequest placement;

  /// `exact`: computes in float32 whatever the user chose for others.
  template <class Network, class Make>
  std::shared_ptr<Loaded<Network>> network(const fs::path& file, const char* what,
                                           const Checkpoint& part, bool exact, Make make) {
    auto& engine = models.engine();
    const auto compute = engine.device_for(placement.compute);
    const auto dtype = exact ? at::kFloat : text_dtype(models.settings(), engine.describe(compute));
    return open_once<Network>(engine, open, {file, what, {}, compute, dtype, placement}, part,
                              [make] { return std::unique_ptr<Network>(make()); });
  }
};

void load_adapter(Call& call, OpenNetworks& open) {
  const auto file = call.context<ModelFolders>().get("pulid", call.text("pulid_file"));
  auto& models = call.context<ModelCache>();
  const auto part = pulid::adapter_part(models.checkpoint(file));
  const auto config = pulid::adapter_config(part);
  call.out(
      0,
      Value::of("PULID",
                PulidModel{Opener{models, open, placement_of(call)}.network<pulid::Adapter>(
                    file, "PuLID", part, false, [config] { return new pulid::Adapter(config); })}));
}

/// Beside other picture encoders, or where it is downloaded to.
fs::path eva_file(Call& call) {
  if (auto found = call.context<ModelFolders>().find(kEvaFolder, kEvaFile)) return *found;
  PublishedModel published{
      .name = kEvaModel, .files = kEvaFile, .type = kEvaFolder, .folder = {}, .wanted = {}};
  published.wanted = [](const std::vector<std::string>& all) {
    std::vector<std::string> wanted;
    if (std::ranges::find(all, kEvaFile) != all.end()) wanted.push_back(kEvaFile);
    return wanted;
  };
  return file_in(published_folder(call, published), kEvaFile);
}

void load_eva(Call& call, OpenNetworks& open) {
  const auto file = eva_file(call);
  auto& models = call.context<ModelCache>();
  const auto part = pulid::eva_part(models.checkpoint(file));
  const auto config = pulid::eva_config(part);
  call.out(0, Value::of("EVA_CLIP",
                        EvaClip{Opener{models, open, placement_of(call)}.network<pulid::EvaVision>(
                            file, "picture encoder", part, false,
                            [config] { return new pulid::EvaVision(config); })}));
}

/// Files that nobody may be asked to download from: they are on GitHub.
fs::path facexlib_file(const ModelFolders& folders, const char* name, const char* release) {
  if (auto found = folders.find("facexlib", name)) return *found;
  throw Error(ErrorKind::MissingFile, fmt::format("models/facexlib/{}", name),
              fmt::format("is not there: put the file of that name from "
                          "github.com/xinntao/facexlib/releases/tag/{} into this folder ({})",
                          release, folders.searched("facexlib")));
}

/// insightface's two networks that count here; those for landmarks, age and gender are left alone.
void open_antelope(Opener& opener, FaceAnalysis& analysis) {
  const auto& folders = opener.models.folders();
  const auto folder = find_directory(folders, "insightface", kAntelope);
  const std::string where = fmt::format("models/insightface/{}", kAntelope);
  if (!folder)
    throw Error(
        ErrorKind::MissingFile, where,
        fmt::format("is not there: put scrfd_10g_bnkps.onnx and glintr100.onnx of "
                    "insightface's antelopev2 (antelopev2.zip of "
                    "github.com/deepinsight/insightface/releases/tag/v0.7) into a folder of "
                    "that name ({})",
                    folders.searched("insightface")));
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(*folder))
    if (entry.path().extension() == ".onnx") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::exception_ptr unread;  // why a file could not be read, of which others may do without
  for (const auto& file : files) {
    formats::OnnxFile onnx;
    try {
      onnx = formats::read_onnx(file);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Format) throw;
      if (!unread) unread = std::current_exception();
      continue;
    }
    const auto task = faces::task_of(onnx.graph);
    if (task == faces::FaceTask::Other) continue;
    const bool detects = task == faces::FaceTask::Detection;
    auto& place = detects ? analysis.detector : analysis.recogniser;
    if (place) continue;
    place = opener.network<faces::OnnxNetwork>(
        file, detects ? "finds faces" : "tells faces apart", Checkpoint(onnx.tensors), true,
        [graph = onnx.graph, path = file.string()] { return new faces::OnnxNetwork(graph, path); });
  }
  auto need = [&](bool there, const char* file, const char* what) {
    if (there) return;
    if (unread) std::rethrow_exception(unread);
    throw Error(ErrorKind::MissingFile, (*folder / file).string(),
                fmt::format("is not there, nor another network that {}: it belongs to "
                            "insightface's antelopev2",
                            what));
  };
  need(analysis.detector != nullptr, "scrfd_10g_bnkps.onnx", "finds faces");
  need(analysis.recogniser != nullptr, "glintr100.onnx", "tells faces apart");
}

/// "provider" says CPU or an accelerator; which one, the device variant or the engine says.
void load_faces(Call& call, OpenNetworks& open) {
  auto placement = placement_of(call);
  if (placement.compute.empty() && call.text("provider") == "CPU") placement.compute = "cpu";
  auto& models = call.context<ModelCache>();
  Opener opener{models, open, placement};
  FaceAnalysis analysis;
  open_antelope(opener, analysis);
  const auto& folders = call.context<ModelFolders>();
  const auto cutter = facexlib_file(folders, "detection_Resnet50_Final.pth", "v0.1.0"),
             parser = facexlib_file(folders, "parsing_bisenet.pth", "v0.2.0");
  const auto retina = faces::retina_face_part(models.checkpoint(cutter)),
             bisenet = faces::bisenet_part(models.checkpoint(parser));
  analysis.cutter = opener.network<faces::RetinaFace>(
      cutter, "RetinaFace", retina, true,
      [config = faces::retina_face_config(retina)] { return new faces::RetinaFace(config); });
  analysis.parts = opener.network<faces::BiSeNet>(
      parser, "BiSeNet", bisenet, true,
      [config = faces::bisenet_config(bisenet)] { return new faces::BiSeNet(config); });
  call.out(0, Value::of("FACEANALYSIS", std::move(analysis)));
}

/// Changes when a file that the loader opens is replaced, or comes.
std::function<std::optional<std::string>(const Call&)> files_key(App& app, bool for_faces) {
  return [&app, for_faces](const Call&) -> std::optional<std::string> {
    std::string key;
    auto add = [&](const std::optional<fs::path>& file, bool folder) {
      if (file) key += (folder ? folder_identity(*file) : ModelCache::identity(*file)) + "|";
    };
    if (!for_faces) {
      add(app.folders.find(kEvaFolder, kEvaFile), false);
      add(find_directory(app.folders, kEvaFolder, "EVA-CLIP"), true);
      return key;
    }
    add(find_directory(app.folders, "insightface", kAntelope), true);
    add(app.folders.find("facexlib", "detection_Resnet50_Final.pth"), false);
    add(app.folders.find("facexlib", "parsing_bisenet.pth"), false);
    return key;
  };
}

}  // namespace

void add_pulid_loader_nodes(graph::Catalog& catalog, App& app) {
  auto open = std::make_shared<OpenNetworks>();
  add_with_device(catalog,
                  {
                      .name = "PulidModelLoader",
                      .display_name = "Load PuLID Model",
                      .category = kPulidCategory,
                      .description = "Opens a PuLID for SDXL, which turns a face into tokens.",
                      .python_module = kPulidModule,
                      .inputs = {choice("pulid_file", model_choices(app, "pulid"))},
                      .outputs = {"PULID"},
                      .run = [open](Call& call) { load_adapter(call, *open); },
                      .change_key = when_replaced(app, {{"pulid", "pulid_file"}}),
                  });
  add_with_device(catalog,
                  {
                      .name = "PulidInsightFaceLoader",
                      .display_name = "Load InsightFace (PuLID)",
                      .category = kPulidCategory,
                      .description = "Opens the networks that find a face, tell whose it is and "
                                     "cut it out.",
                      .python_module = kPulidModule,
                      .inputs = {choice("provider", {"CPU", "CUDA", "ROCM", "CoreML"})},
                      .outputs = {"FACEANALYSIS"},
                      .run = [open](Call& call) { load_faces(call, *open); },
                      .change_key = files_key(app, true),
                  });
  add_with_device(catalog, {
                               .name = "PulidEvaClipLoader",
                               .display_name = "Load Eva Clip (PuLID)",
                               .category = kPulidCategory,
                               .description = "Opens the picture encoder that PuLID goes with.",
                               .python_module = kPulidModule,
                               .inputs = {},
                               .outputs = {"EVA_CLIP"},
                               .run = [open](Call& call) { load_eva(call, *open); },
                               .change_key = files_key(app, false),
                           });
}

}  // namespace distorch::nodes
