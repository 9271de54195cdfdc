#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "distorch/base/weak_cache.h"
#include "distorch/formats/tensor_file.h"
#include "distorch/nodes/audio_states.h"
#include "distorch/nodes/clip_vision.h"
#include "distorch/nodes/mixed_weights.h"
#include "distorch/nodes/model_folders.h"
#include "distorch/nodes/settings.h"
#include "distorch/nodes/upscale.h"
#include "distorch/nodes/values.h"
#include "distorch/streaming/engine.h"

namespace distorch::nodes {

/// Opens models and hands out the one that is open already: the same part of the same file, for the
/// same placement and precision, exists once. Opening reads headers only. Models live as long as a
/// value in some workflow holds them. Not for several threads at once.
class ModelCache {
 public:
  ModelCache(const Settings& settings, const ModelFolders& folders, streaming::Engine& engine)
      : settings_(settings),
        folders_(folders),
        engine_(engine),
        vocabularies_(std::make_shared<models::Vocabularies>(settings.tokenizer_folder,
                                                             settings.more_tokenizers)) {}

  using Path = std::filesystem::path;
  using Placement = streaming::PlacementRequest;

  /// The diffusion model of a checkpoint or of a file of its own.
  /// `weight_dtype`: as UNETLoader names it; Error(Usage) for another name.
  std::shared_ptr<LoadedDiffusion> diffusion(const Path& file, const Placement& placement,
                                             const std::string& weight_dtype = "default");
  /// A model with the weights of two mixed, otherwise as the first one and placed as it is. They are
  /// mixed tensor by tensor into a file of the first one's types in the temporary folder, which
  /// rests and streams like any other and goes with the model. A weight that the other has not, or
  /// in another shape, stays the first one's, with a warning.
  std::shared_ptr<LoadedDiffusion> mixed(const std::shared_ptr<LoadedDiffusion>& first,
                                         const std::shared_ptr<LoadedDiffusion>& second,
                                         const Mix& mix);
  /// A model with one more patch (models/model_patch.h), otherwise as it is. Error(Usage) naming both
  /// files where they do not go together.
  std::shared_ptr<LoadedDiffusion> patched(const std::shared_ptr<LoadedDiffusion>& model,
                                           const weights::Checkpoint& patch,
                                           const std::string& patch_identity);
  /// The same for text encoders: those of the second's that the first has too, by their names.
  /// Error(Usage) where there are none.
  std::shared_ptr<LoadedText> mixed(const std::shared_ptr<LoadedText>& first,
                                    const std::shared_ptr<LoadedText>& second, const Mix& mix);
  /// The text encoders of a whole checkpoint; null where it has none.
  std::shared_ptr<LoadedText> text(const Path& checkpoint, const Placement& placement);
  /// Text encoders in files of their own, of a type that models::text_recipe knows.
  std::shared_ptr<LoadedText> text(const std::vector<Path>& files, const std::string& type,
                                   const Placement& placement);
  /// The autoencoder; null where the file has none.
  std::shared_ptr<LoadedVae> vae(const Path& file, const Placement& placement);
  /// One of the small ones that stand in for a model's own (models::taesd::names()), from two files
  /// of vae_approx; null where that has no decoder of it. Without an encoder it only decodes.
  std::shared_ptr<LoadedVae> small_vae(const std::string& name, const Placement& placement);
  /// A ControlNet or T2I-adapter; null where the file holds changes to a UNet's weights instead.
  /// Error(Format) where it holds neither.
  std::shared_ptr<LoadedControl> control(const Path& file, const Placement& placement);
  /// The same of a file with changes to a UNet's weights (low-rank factors or differences), over
  /// those of `unet`.
  std::shared_ptr<LoadedControl> control_over(const ControlOverlay& overlay,
                                              const LoadedDiffusion& unet);
  /// A model that enlarges pictures. Error(Format) where the file holds none that is known.
  std::shared_ptr<LoadedUpscale> upscale(const Path& file, const Placement& placement);
  /// A picture encoder; null where the file has none.
  std::shared_ptr<LoadedVision> vision(const Path& file, const Placement& placement);
  /// An audio encoder; null where the file has none.
  std::shared_ptr<LoadedAudioEncoder> audio_encoder(const Path& file, const Placement& placement);
  /// A style model. Error(Format) where the file holds none.
  std::shared_ptr<LoadedStyle> style(const Path& file, const Placement& placement);
  /// An opened file, shared while anybody uses it.
  std::shared_ptr<const formats::TensorFile> file(const Path& path);
  /// The tensors of the model at `path`, of all its files where it lies in several
  /// (weights/shards.h). Error(MissingFile) where not all are there.
  weights::Checkpoint checkpoint(const Path& path);

  /// Changes when a file of the model at `path` is replaced: path, device, inode, size and time.
  static std::string identity(const Path& path);

  const Settings& settings() const { return settings_; }
  const ModelFolders& folders() const { return folders_; }
  streaming::Engine& engine() { return engine_; }
  /// How many open files and models are remembered.
  std::size_t size() const { return open_.size(); }

 private:
  streaming::StreamedOptions options(const Path& file, const std::string& part,
                                     const std::string& compute) const;
  std::shared_ptr<LoadedText> open_text(const models::TextRecipe& recipe, const Path& path,
                                        const std::string& identity, const Placement& placement);
  std::shared_ptr<LoadedVae> open_vae(const models::VaePart& vae, const Path& path,
                                      const std::string& identity, const Placement& placement);
  std::shared_ptr<LoadedControl> open_control(const Path& path, const std::string& identity,
                                              const weights::Checkpoint& part,
                                              const Placement& placement);
  std::shared_ptr<LoadedEncoder> mixed(const std::shared_ptr<LoadedEncoder>& first,
                                       const LoadedEncoder& second, const Mix& mix);
  /// Puts the mixed weights in place of `part`; what comes back goes with the model. A plan needs
  /// sizes only, which are the first one's: nothing is written for one.
  std::shared_ptr<const void> mix_into(weights::Checkpoint& part,
                                       streaming::StreamedOptions& streamed,
                                       const streaming::StreamedModel& second, const Mix& mix);
  template <class Thing>
  std::shared_ptr<Thing> find_open(const std::string& key) const {
    return std::static_pointer_cast<Thing>(std::const_pointer_cast<void>(open_.find(key)));
  }
  template <class Loaded>
  void stream(Loaded& loaded, const weights::Checkpoint& part,
              const streaming::StreamedOptions& streamed, const Placement& placement,
              bool many_steps);

  const Settings& settings_;
  const ModelFolders& folders_;
  streaming::Engine& engine_;
  WeakCache<const void> open_;  // each of the type that its key is made for
  std::shared_ptr<models::Vocabularies> vocabularies_;
  int mixed_count_ = 0;
};

}  // namespace distorch::nodes
