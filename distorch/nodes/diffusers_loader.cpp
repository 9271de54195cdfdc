// Models as diffusers keeps them: a folder with a part in each of its folders. Source: ComfyUI
// nodes.py (DiffusersLoader) and comfy/diffusers_load.py.
#include "distorch/nodes/diffusers_loader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/error.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/model_directories.h"

namespace distorch::nodes {

using graph::Call;
using graph::Choices;
using graph::Value;

namespace {

namespace fs = std::filesystem;

constexpr const char* kFolders = "diffusers";
const std::vector<std::string> kNetworks = {
    "diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.bin", "diffusion_pytorch_model.bin"};
const std::vector<std::string> kEncoders = {"model.fp16.safetensors", "model.safetensors",
                                            "pytorch_model.fp16.bin", "pytorch_model.bin"};

std::optional<fs::path> first_of(const fs::path& folder, const std::vector<std::string>& names) {
  std::error_code ignored;
  for (const auto& name : names)
    if (fs::is_regular_file(folder / name, ignored)) return folder / name;
  return {};
}

fs::path needed(const fs::path& folder, const std::vector<std::string>& names) {
  if (auto found = first_of(folder, names)) return *found;
  throw Error(ErrorKind::MissingFile, folder.string(),
              fmt::format("holds none of {}: this loader takes models with a UNet, a VAE and CLIP "
                          "text encoders, each in a folder of that name",
                          fmt::join(names, ", ")));
}

/// The files of a model: UNet, VAE, and one or two text encoders.
struct Parts {
  explicit Parts(const fs::path& folder)
      : unet(needed(folder / "unet", kNetworks)),
        vae(needed(folder / "vae", kNetworks)),
        texts{needed(folder / "text_encoder", kEncoders)} {
    if (auto second = first_of(folder / "text_encoder_2", kEncoders)) texts.push_back(*second);
  }
  fs::path unet, vae;
  std::vector<fs::path> texts;
};

fs::path folder_of(const ModelFolders& folders, const std::string& name) {
  if (auto found = find_directory(folders, kFolders, name)) return *found;
  throw Error(ErrorKind::MissingFile, name,
              fmt::format("is no folder of a model ({})", folders.searched(kFolders)));
}

void run(Call& call) {
  const Parts parts(folder_of(call.context<ModelFolders>(), call.text("model_path")));
  auto& models = call.context<ModelCache>();
  const auto placement = placement_of(call);
  const streaming::PlacementRequest others{.compute = placement.compute, .eject = placement.eject};
  auto vae = models.vae(parts.vae, others);
  if (!vae)
    throw Error(ErrorKind::Format, parts.vae.string(), "holds no autoencoder that distorch knows");
  call.out(0, Value::of("MODEL", Model{.loaded = models.diffusion(parts.unet, placement)}));
  call.out(1, Value::of("CLIP",
                        Clip{.loaded = models.text(
                                 parts.texts, parts.texts.size() == 1 ? "stable_diffusion" : "sdxl",
                                 others)}));
  call.out(2, Value::of("VAE", Vae{std::move(vae)}));
}

/// Changes when one of the model's files is replaced.
std::optional<std::string> files_key(const ModelFolders& folders, const std::string& name) {
  const auto folder = find_directory(folders, kFolders, name);
  if (!folder) return "none";
  std::string key;
  for (const auto& [part, names] : {std::pair{"unet", &kNetworks},
                                    {"vae", &kNetworks},
                                    {"text_encoder", &kEncoders},
                                    {"text_encoder_2", &kEncoders}})
    if (auto found = first_of(*folder / part, *names)) key += ModelCache::identity(*found) + "|";
  return key;
}

}  // namespace

void add_diffusers_loader_nodes(graph::Catalog& catalog, App& app) {
  const auto folders = Choices([&app] {
                         return directories_with(app.folders, kFolders, "model_index.json");
                       }).with_origin([&app] { return app.folders.searched(kFolders); });
  add_placed_loader(
      catalog,
      {
          .name = "DiffusersLoader",
          .display_name = "DiffusersLoader",
          .category = "advanced/loaders/deprecated",
          .description = "Opens a folder as diffusers keeps a model: UNet, text "
                         "encoders and VAE in folders of their own.",
          .inputs = {graph::choice("model_path", folders)},
          .outputs = {"MODEL", "CLIP", "VAE"},
          .run = run,
          .change_key =
              [&app](const Call& call) { return files_key(app.folders, call.text("model_path")); },
      });
}

}  // namespace distorch::nodes
