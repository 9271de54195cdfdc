#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "distorch/formats/tensor_file.h"
#include "distorch/nodes/model_folders.h"
#include "distorch/nodes/settings.h"
#include "distorch/nodes/values.h"
#include "distorch/streaming/engine.h"

namespace distorch::nodes {

/// Opens models and hands out the one that is open already: the same part of the same file, for the
/// same placement and precision, exists once. Opening reads headers only. Models live as long as a
/// value in some workflow holds them. Not for several threads at once.
class ModelCache {
 public:
  ModelCache(const Settings& settings, const ModelFolders& folders, streaming::Engine& engine)
      : settings_(settings), folders_(folders), engine_(engine) {}

  using Path = std::filesystem::path;
  using Placement = streaming::PlacementRequest;

  /// The diffusion model of a checkpoint or of a file of its own.
  std::shared_ptr<LoadedDiffusion> diffusion(const Path& file, const Placement& placement);
  /// The text encoder; null where the file has none. `kind` unset: told from its size.
  std::shared_ptr<LoadedText> text(const Path& file, const Placement& placement,
                                   std::optional<models::clip::TextKind> kind = {});
  /// The autoencoder; null where the file has none.
  std::shared_ptr<LoadedVae> vae(const Path& file, const Placement& placement);
  /// The kind of text encoder that goes with a checkpoint's diffusion model.
  models::clip::TextKind text_kind(const Path& checkpoint);
  /// An opened file, shared while anybody uses it.
  std::shared_ptr<const formats::TensorFile> file(const Path& path);

  /// Changes when the file at `path` is replaced: path, device, inode, size and time.
  static std::string identity(const Path& path);

  const Settings& settings() const { return settings_; }
  const ModelFolders& folders() const { return folders_; }
  streaming::Engine& engine() { return engine_; }

 private:
  streaming::StreamedOptions options(const Path& file, const std::string& part,
                                     const std::string& compute) const;
  std::shared_ptr<const tokenizers::ClipBpe> vocabulary();

  const Settings& settings_;
  const ModelFolders& folders_;
  streaming::Engine& engine_;
  std::map<std::string, std::weak_ptr<void>> open_;
  std::shared_ptr<const tokenizers::ClipBpe> vocabulary_;
};

}  // namespace distorch::nodes
