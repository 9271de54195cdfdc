// Loaders of GGUF files, as the add-on ComfyUI-GGUF names them. Other loaders read such files too.
#include <fmt/format.h>

#include <algorithm>

#include "distorch/nodes/catalog.h"
#include "distorch/nodes/loaders.h"

namespace distorch::nodes {

using graph::boolean;
using graph::Call;
using graph::choice;
using graph::Choices;
using graph::Value;

namespace {

constexpr const char* kModule = "custom_nodes.ComfyUI-GGUF";
constexpr const char* kCategory = "bootleg";

const std::vector<std::string>& dtype_choices() {
  static const std::vector<std::string> list = {"default", "target", "float32", "float16",
                                                "bfloat16"};
  return list;
}

/// What "dequant_dtype" rounds decoded numbers to. "target" and "float32" are the same here: they are
/// rounded once, to the type that the model computes in.
const char* weight_dtype(const Call& call) {
  const auto name =
      call.node_type().find_input("dequant_dtype") ? call.text("dequant_dtype") : "default";
  if (name == "default") return "default";
  return name == "float16"    ? kDecodedAsHalf
         : name == "bfloat16" ? kDecodedAsBFloat
                              : kDecodedExactly;
}

/// "patch_dtype" and "patch_on_device" say how LoRAs are added to decoded weights. Here they are
/// applied beside the weights, in the type and on the device that compute.
void run_unet(Call& call) {
  auto path = call.context<ModelFolders>().get("unet_gguf", call.text("unet_name"));
  call.out(0, Value::of("MODEL", Model{.loaded = call.context<ModelCache>().diffusion(
                                           path, placement_of(call), weight_dtype(call))}));
}

std::string file_input(int count, int index) {
  return count == 1 ? "clip_name" : fmt::format("clip_name{}", index + 1);
}

/// GGUF files and, since several often go together, all others.
Choices text_files(App& app) {
  return Choices([&app] {
           auto names = app.folders.list("text_encoders");
           for (const auto& name : app.folders.list("clip_gguf")) names.push_back(name);
           std::ranges::sort(names);
           names.erase(std::ranges::unique(names).begin(), names.end());
           return names;
         })
      .with_origin([&app] { return app.folders.searched("text_encoders"); });
}

void run_text(Call& call, int count, const char* usual) {
  const auto& folders = call.context<ModelFolders>();
  std::vector<std::filesystem::path> files;
  for (int i = 0; i < count; ++i) {
    const auto name = call.text(file_input(count, i));
    auto found = folders.find("clip_gguf", name);
    files.push_back(found ? *found : folders.get("text_encoders", name));
  }
  auto type = call.node_type().find_input("type") ? call.text("type") : usual;
  auto loaded = call.context<ModelCache>().text(files, type, placement_of(call));
  call.out(0, Value::of("CLIP", Clip{.loaded = std::move(loaded)}));
}

void add_variants(graph::Catalog& catalog, graph::NodeType type, bool text_encoder) {
  type.python_module = kModule;
  type.category = kCategory;
  graph::add_loader(catalog, std::move(type),
                    {.devices = device_choices(), .text_encoder = text_encoder, .legacy_v1 = true});
}

void add_unets(graph::Catalog& catalog, App& app) {
  graph::NodeType simple{
      .name = "UnetLoaderGGUF",
      .display_name = "Unet Loader (GGUF)",
      .description =
          "Opens a diffusion model from a GGUF file. Its weights stay packed in memory "
          "and on their way to the device that decodes them.",
      .inputs = {choice("unet_name", model_choices(app, "unet_gguf"))},
      .outputs = {"MODEL"},
      .run = run_unet,
      .change_key = when_replaced(app, {{"unet_gguf", "unet_name"}}),
  };
  auto advanced = simple;
  advanced.name = "UnetLoaderGGUFAdvanced";
  advanced.display_name = "Unet Loader (GGUF/Advanced)";
  advanced.inputs.push_back(choice("dequant_dtype", dtype_choices(), {.def = "default"}));
  advanced.inputs.push_back(choice("patch_dtype", dtype_choices(), {.def = "default"}));
  advanced.inputs.push_back(boolean("patch_on_device", {.def = false}));
  add_variants(catalog, std::move(simple), false);
  add_variants(catalog, std::move(advanced), false);
}

struct TextLoader {
  const char* name;
  const char* title;
  int files;
  const char* usual;  // type where the node has none
  std::vector<std::string> types;
};

void add_text(graph::Catalog& catalog, App& app, const TextLoader& loader) {
  graph::NodeType type{
      .name = loader.name,
      .display_name = loader.title,
      .description = "Opens text encoders from files of their own, GGUF or others, in any order.",
      .outputs = {"CLIP"},
      .run = [count = loader.files,
              usual = loader.usual](Call& call) { run_text(call, count, usual); },
  };
  std::vector<std::pair<std::string, std::string>> files;
  for (int i = 0; i < loader.files; ++i) {
    type.inputs.push_back(choice(file_input(loader.files, i), text_files(app)));
    files.emplace_back("text_encoders", file_input(loader.files, i));
  }
  if (!loader.types.empty()) type.inputs.push_back(choice("type", loader.types));
  type.change_key = when_replaced(app, files);
  add_variants(catalog, std::move(type), true);
}

}  // namespace

void add_gguf_loader_nodes(graph::Catalog& catalog, App& app) {
  add_unets(catalog, app);
  add_text(catalog, app, {"CLIPLoaderGGUF", "CLIPLoader (GGUF)", 1, "", text_types()});
  add_text(catalog, app, {"DualCLIPLoaderGGUF", "DualCLIPLoader (GGUF)", 2, "", dual_text_types()});
  add_text(catalog, app, {"TripleCLIPLoaderGGUF", "TripleCLIPLoader (GGUF)", 3, "sd3", {}});
  add_text(catalog, app,
           {"QuadrupleCLIPLoaderGGUF", "QuadrupleCLIPLoader (GGUF)", 4, "hidream", {}});
}

}  // namespace distorch::nodes
