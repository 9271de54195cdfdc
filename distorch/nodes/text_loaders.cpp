// Text encoders in files of their own.
#include <fmt/format.h>

#include "distorch/nodes/catalog.h"
#include "distorch/nodes/loaders.h"

namespace distorch::nodes {

using graph::Call;
using graph::choice;
using graph::Value;

namespace {

constexpr int kMostFiles = 4;

std::string file_input(int count, int index) {
  return count == 1 ? "clip_name" : fmt::format("clip_name{}", index + 1);
}

/// Opens the `count` files that the node names. Nodes without a type have `usual`.
void run(Call& call, int count, const char* usual) {
  const auto& folders = call.context<ModelFolders>();
  std::vector<std::filesystem::path> files;
  for (int i = 0; i < count; ++i)
    files.push_back(folders.get("text_encoders", call.text(file_input(count, i))));
  auto type = call.node_type().find_input("type") ? call.text("type") : usual;
  auto loaded = call.context<ModelCache>().text(files, type, placement_of(call));
  call.out(0, Value::of("CLIP", Clip{.loaded = std::move(loaded)}));
}

graph::NodeType loader(App& app, int count, const char* usual, std::string name,
                       std::string description) {
  graph::NodeType type{
      .name = std::move(name),
      .category = "advanced/loaders",
      .description = std::move(description),
      .outputs = {"CLIP"},
      .run = [count, usual](Call& call) { run(call, count, usual); },
  };
  std::vector<std::pair<std::string, std::string>> files;
  for (int i = 0; i < count; ++i) {
    type.inputs.push_back(choice(file_input(count, i), model_choices(app, "text_encoders")));
    files.emplace_back("text_encoders", file_input(count, i));
  }
  type.change_key = when_replaced(app, files);
  return type;
}

void add_typed(graph::NodeType& type, std::vector<std::string> types) {
  type.inputs.push_back(choice("type", std::move(types)));
  type.inputs.push_back(
      graph::optional(choice("device", {"default", "cpu"}, {.extra = {{"advanced", true}}})));
}

/// A loader of the newer schema and, of the older one, its variants.
void add_untyped(graph::Catalog& catalog, graph::NodeType type, const char* module) {
  type.display_name = type.name;
  for (auto& variant :
       graph::multigpu_variants(type, {.devices = device_choices(), .text_encoder = true}))
    catalog.add(std::move(variant));
  type.display_name.clear();
  type.newer_schema = true;
  type.python_module = module;
  catalog.add(std::move(type));
}

}  // namespace

std::vector<std::string> text_types() {
  return {"stable_diffusion",
          "stable_cascade",
          "sd3",
          "stable_audio",
          "mochi",
          "ltxv",
          "pixart",
          "cosmos",
          "lumina2",
          "wan",
          "hidream",
          "chroma",
          "ace",
          "omnigen2",
          "qwen_image",
          "hunyuan_image",
          "flux2",
          "ovis",
          "longcat_image",
          "cogvideox",
          "lens",
          "pixeldit",
          "ideogram4",
          "boogu",
          "krea2",
          "joyimage",
          "mage",
          "minimax"};
}

std::vector<std::string> dual_text_types() {
  return {"sdxl",
          "sd3",
          "flux",
          "hunyuan_video",
          "hidream",
          "hunyuan_image",
          "hunyuan_video_15",
          "kandinsky5",
          "kandinsky5_image",
          "ltxv",
          "newbie",
          "ace"};
}

void add_text_loader_nodes(graph::Catalog& catalog, App& app) {
  auto single =
      loader(app, 1, "", "CLIPLoader",
             "Opens a text encoder from a file of its own. The type says which models it "
             "speaks to: qwen_image takes Qwen2.5-VL, lumina2 (Z-Image) and flux2 (klein) "
             "take Qwen3, ltxv (LTX-Video) T5, sd3 any one of its three.");
  single.display_name = "Load CLIP";
  add_typed(single, text_types());
  add_placed_loader(catalog, std::move(single), true);
  auto dual =
      loader(app, 2, "", "DualCLIPLoader",
             "Loads the two text encoders of a model from files of their own, in either "
             "order: type sdxl takes CLIP-L and OpenCLIP-G, flux CLIP-L and T5, sd3 any two "
             "of these.");
  dual.display_name = "DualCLIPLoader";
  add_typed(dual, dual_text_types());
  add_placed_loader(catalog, std::move(dual), true);
  add_untyped(catalog,
              loader(app, 3, "sd3", "TripleCLIPLoader",
                     "Loads SD3's three text encoders, CLIP-L, OpenCLIP-G and T5, in any order."),
              "comfy_extras.nodes_sd3");
  add_untyped(catalog,
              loader(app, kMostFiles, "hidream", "QuadrupleCLIPLoader",
                     "Loads the four text encoders of a HiDream model in any order."),
              "comfy_extras.nodes_hidream");
  add_gguf_loader_nodes(catalog, app);
}

}  // namespace distorch::nodes
