#pragma once
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace distorch::nodes {

/// Where model files are looked for, by type ("checkpoints", "loras", "vae", ...), with the rules
/// of ComfyUI's folder_paths.py: several places a type, the first that holds a file wins; "unet"
/// and "clip" are old names for "diffusion_models" and "text_encoders".
class ModelFolders {
 public:
  using Path = std::filesystem::path;

  /// All known types, without any place.
  ModelFolders();
  /// The usual places below a folder that holds "checkpoints", "loras", ...
  explicit ModelFolders(const Path& root);

  /// The usual places below another root, after those that are there.
  void add_root(const Path& root);
  /// Files that were saved there can be loaded again: checkpoints, clip, vae, diffusion_models,
  /// loras.
  void add_output_folder(const Path& output);
  /// One place; an unknown type is made. `first`: searched before all others.
  void add(const std::string& type, const Path& folder, bool first = false);
  /// ComfyUI's extra_model_paths.yaml. Error(MissingFile), Error(Format) naming group and key.
  void read_extra_paths(const Path& yaml);

  std::vector<std::string> types() const;
  /// Empty for an unknown type.
  std::vector<Path> folders(const std::string& type) const;
  /// Files of a type: names relative to their place with "/" between parts, sorted, each once. Read
  /// again when a folder changed.
  std::vector<std::string> list(const std::string& type) const;
  /// "searched: /a/checkpoints, /b/checkpoints", for messages.
  std::string searched(const std::string& type) const;
  std::optional<Path> find(const std::string& type, const std::string& name) const;
  /// Error(MissingFile) naming the folders searched and near names.
  Path get(const std::string& type, const std::string& name) const;

 private:
  struct Type {
    std::vector<Path> folders;
    std::vector<std::string> extensions;  // with the dot, lower case; empty: every file
  };
  struct Listing {
    std::vector<std::string> names;
    std::map<Path, std::filesystem::file_time_type> folders;
  };
  const Type* type_of(const std::string& name) const;
  bool up_to_date(const Listing& listing, const Type& type) const;

  std::map<std::string, Type> types_;
  mutable std::map<std::string, Listing> listings_;
  mutable std::unique_ptr<std::mutex> mutex_ = std::make_unique<std::mutex>();
};

}  // namespace distorch::nodes
