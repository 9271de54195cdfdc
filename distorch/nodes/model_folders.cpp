#include "distorch/nodes/model_folders.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/text.h"
#include "distorch/graph/near_names.h"
#include "distorch/nodes/model_endings.h"

namespace distorch::nodes {

namespace fs = std::filesystem;
using Path = ModelFolders::Path;

namespace {

const std::vector<std::string>& model_extensions() {
  static const std::vector<std::string> list = {".ckpt",        ".pt",  ".pt2", ".bin", ".pth",
                                                ".safetensors", ".pkl", ".sft", ".gguf"};
  return list;
}

/// A type, its usual places below a root, and what counts as a file of it. Facts of ComfyUI
/// folder_paths.py.
struct Usual {
  const char* type;
  std::vector<const char*> folders;
};

const std::vector<Usual>& usual_places() {
  static const std::vector<Usual> list = {
      {"checkpoints", {"checkpoints"}},
      {"configs", {"configs"}},
      {"loras", {"loras"}},
      {"vae", {"vae"}},
      {"text_encoders", {"text_encoders", "clip"}},
      {"diffusion_models", {"unet", "diffusion_models"}},
      {"clip_vision", {"clip_vision"}},
      {"style_models", {"style_models"}},
      {"embeddings", {"embeddings"}},
      {"diffusers", {"diffusers"}},
      {"vae_approx", {"vae_approx"}},
      {"controlnet", {"controlnet", "t2i_adapter"}},
      {"gligen", {"gligen"}},
      {"upscale_models", {"upscale_models"}},
      {"latent_upscale_models", {"latent_upscale_models"}},
      {"custom_nodes", {}},
      {"datasets", {}},
      {"hypernetworks", {"hypernetworks"}},
      {"photomaker", {"photomaker"}},
      {"classifiers", {"classifiers"}},
      {"model_patches", {"model_patches"}},
      {"audio_encoders", {"audio_encoders"}},
      {"background_removal", {"background_removal"}},
      {"frame_interpolation", {"frame_interpolation"}},
      {"geometry_estimation", {"geometry_estimation"}},
      {"optical_flow", {"optical_flow"}},
      {"detection", {"detection"}},
      // Those of XLabs' nodes for FLUX.
      {"xlabs_loras", {"xlabs/loras"}},
      {"xlabs_controlnets", {"xlabs/controlnets"}},
      {"xlabs_ipadapters", {"xlabs/ipadapters"}},
      {"mmaudio", {"mmaudio"}},
      {"pulid", {"pulid"}},
      // The GGUF files among those of diffusion_models and text_encoders (see add()).
      {"unet_gguf", {}},
      {"clip_gguf", {}},
  };
  return list;
}

std::vector<std::string> extensions_of(const std::string& type) {
  if (type == "configs") return {".yaml"};
  if (type == "custom_nodes" || type == "datasets") return {};
  if (type == "classifiers") return {""};
  if (type == "diffusers") return {"folder"};
  if (type.ends_with("_gguf")) return {".gguf"};
  return model_extensions();
}

std::string current_name(const std::string& type) {
  if (type == "unet") return "diffusion_models";
  if (type == "clip") return "text_encoders";
  return type;
}

// "a/b.safetensors" and "a\b.safetensors" are the same; ".." cannot leave the folder.
Path inside(const std::string& name) {
  std::string slashes = name;
  std::replace(slashes.begin(), slashes.end(), '\\', '/');
  return (Path("/") / slashes).lexically_normal().relative_path();
}

/// Reads a place and everything below it; links are followed, each folder once.
class Walk {
 public:
  Walk(const std::vector<std::string>& extensions, std::set<std::string>& names,
       std::map<Path, fs::file_time_type>& folders)
      : extensions_(extensions), names_(names), folders_(folders) {}

  void place(const Path& root) {
    std::vector<Path> waiting = {root};
    while (!waiting.empty()) {
      auto folder = std::move(waiting.back());
      waiting.pop_back();
      std::error_code error;
      auto real = fs::canonical(folder, error);
      if (error || !fs::is_directory(real, error) || !seen_.insert(real).second) continue;
      folders_[folder] = fs::last_write_time(folder, error);
      for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
           entry.increment(error)) {
        std::error_code ignored;
        if (entry->is_directory(ignored)) {
          if (entry->path().filename() != ".git") waiting.push_back(entry->path());
        } else if (entry->exists(ignored) && wanted(entry->path())) {
          names_.insert(entry->path().lexically_relative(root).generic_string());
        }
      }
    }
  }

 private:
  bool wanted(const Path& file) const {
    auto extension = lower(file.extension().string());
    return extensions_.empty() ||
           std::find(extensions_.begin(), extensions_.end(), extension) != extensions_.end();
  }

  const std::vector<std::string>& extensions_;
  std::set<std::string>& names_;
  std::map<Path, fs::file_time_type>& folders_;
  std::set<Path> seen_;
};

// "~/x", "$HOME/x" and "${HOME}/x".
std::string expand(std::string text) {
  if (text == "~" || text.rfind("~/", 0) == 0)
    if (const char* home = std::getenv("HOME")) text = home + text.substr(1);
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t begin = i + 1, end;
    bool braces = begin < text.size() && text[begin] == '{';
    if (braces) {
      end = text.find('}', ++begin);
    } else {
      end = begin;
      while (end < text.size() &&
             (std::isalnum(static_cast<unsigned char>(text[end])) || text[end] == '_'))
        ++end;
    }
    const char* value = nullptr;
    if (text[i] == '$' && end != std::string::npos && end > begin)
      value = std::getenv(text.substr(begin, end - begin).c_str());
    if (value) {
      result += value;
      i = end + (braces ? 1 : 0);
    } else {
      result += text[i++];
    }
  }
  return result;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::size_t at = 0;
  while (at <= text.size()) {
    auto end = std::min(text.find('\n', at), text.size());
    auto line = text.substr(at, end - at);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) lines.push_back(line);
    at = end + 1;
  }
  return lines;
}

}  // namespace

std::vector<std::string> model_endings(const std::string& type) {
  auto name = current_name(type);
  for (const auto& usual : usual_places())
    if (name == usual.type) {
      auto endings = extensions_of(name);
      std::sort(endings.begin(), endings.end());
      return endings;
    }
  return {};
}

ModelFolders::ModelFolders() {
  for (const auto& usual : usual_places())
    types_[usual.type].extensions = extensions_of(usual.type);
}

ModelFolders::ModelFolders(const Path& root) : ModelFolders() { add_root(root); }

void ModelFolders::add_root(const Path& root) {
  for (const auto& usual : usual_places())
    for (const char* folder : usual.folders) add(usual.type, root / folder);
  // Of an add-on: folders of models that write texts.
  add("LLM", root / "LLM");
  // Of another: audio encoders as published folders, and as files.
  add("transformers", root / "transformers");
  add("wav2vec2", root / "wav2vec2");
  // Of PuLID: networks for faces.
  add("insightface", root / "insightface");
  add("facexlib", root / "facexlib");
}

void ModelFolders::add_output_folder(const Path& output) {
  for (const char* type : {"checkpoints", "clip", "vae", "diffusion_models", "loras"})
    add(type, output / type);
}

void ModelFolders::add(const std::string& type, const Path& folder, bool first) {
  auto& folders = types_[current_name(type)].folders;
  auto place = folder.lexically_normal();
  auto known = std::find(folders.begin(), folders.end(), place);
  if (known != folders.end() && !first) return;
  if (known != folders.end()) folders.erase(known);
  folders.insert(first ? folders.begin() : folders.end(), place);
  if (current_name(type) == "diffusion_models") add("unet_gguf", folder, first);
  if (current_name(type) == "text_encoders") add("clip_gguf", folder, first);
}

void ModelFolders::read_extra_paths(const Path& yaml) {
  auto refuse = [&](const std::string& what) {
    throw Error(ErrorKind::Format, yaml.string(), what);
  };
  auto text = read_file(yaml, std::size_t{1} << 24);
  auto base_of_file = fs::absolute(yaml).parent_path();
  YAML::Node config;
  try {
    config = YAML::Load(text);
  } catch (const YAML::Exception& problem) {
    refuse(fmt::format("is no YAML: {}", problem.what()));
  }
  if (config.IsNull()) return;
  if (!config.IsMap()) refuse("must hold named groups of paths");
  for (const auto& group : config) {
    auto name = group.first.as<std::string>("?");
    if (group.second.IsNull()) continue;
    if (!group.second.IsMap()) refuse(fmt::format("group '{}' must hold 'type: path' lines", name));
    auto base = base_of_file;
    if (const auto& node = group.second["base_path"]; node && node.IsScalar())
      base = base_of_file / expand(node.as<std::string>());
    bool first = false;
    if (const auto& node = group.second["is_default"]) first = node.as<bool>(false);
    for (const auto& entry : group.second) {
      auto key = entry.first.as<std::string>("?");
      if (key == "base_path" || key == "is_default") continue;
      if (entry.second.IsNull()) continue;
      if (!entry.second.IsScalar())
        refuse(fmt::format("group '{}': '{}' must be one path or several lines", name, key));
      for (const auto& line : lines_of(entry.second.as<std::string>()))
        add(key, base / line, first);
    }
  }
}

std::vector<std::string> ModelFolders::types() const {
  std::vector<std::string> names;
  for (const auto& usual : usual_places()) names.emplace_back(usual.type);
  for (const auto& [name, type] : types_)
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  return names;
}

const ModelFolders::Type* ModelFolders::type_of(const std::string& name) const {
  auto at = types_.find(current_name(name));
  return at == types_.end() ? nullptr : &at->second;
}

std::vector<Path> ModelFolders::folders(const std::string& type) const {
  const auto* found = type_of(type);
  return found ? found->folders : std::vector<Path>{};
}

bool ModelFolders::up_to_date(const Listing& listing, const Type& type) const {
  std::error_code error;
  for (const auto& [folder, time] : listing.folders)
    if (fs::last_write_time(folder, error) != time || error) return false;
  for (const auto& folder : type.folders)
    if (!listing.folders.count(folder) && fs::is_directory(folder, error)) return false;
  return true;
}

std::vector<std::string> ModelFolders::list(const std::string& type) const {
  const auto* found = type_of(type);
  if (!found) return {};
  std::lock_guard lock(*mutex_);
  auto& listing = listings_[current_name(type)];
  if (!listing.folders.empty() && up_to_date(listing, *found)) return listing.names;
  std::set<std::string> names;
  listing.folders.clear();
  for (const auto& folder : found->folders)
    Walk(found->extensions, names, listing.folders).place(folder);
  listing.names.assign(names.begin(), names.end());
  return listing.names;
}

std::string ModelFolders::searched(const std::string& type) const {
  std::string places;
  for (const auto& folder : folders(type)) places += (places.empty() ? "" : ", ") + folder.string();
  return "searched: " + (places.empty() ? "nowhere" : places);
}

std::optional<Path> ModelFolders::find(const std::string& type, const std::string& name) const {
  auto relative = inside(name);
  std::error_code error;
  for (const auto& folder : folders(type))
    if (fs::is_regular_file(folder / relative, error)) return folder / relative;
  return {};
}

Path ModelFolders::get(const std::string& type, const std::string& name) const {
  if (auto path = find(type, name)) return *path;
  auto names = list(type);
  auto near = graph::did_you_mean(name, names);
  if (near.empty())
    near = names.empty() ? " There are no files of this type."
                         : fmt::format(" There are {} others.", names.size());
  throw Error(ErrorKind::MissingFile, name,
              fmt::format("is not among the {} ({}).{}", current_name(type), searched(type), near));
}

}  // namespace distorch::nodes
