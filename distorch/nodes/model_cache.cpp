#include "distorch/nodes/model_cache.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/models/clip/config.h"
#include "distorch/models/sd/unet_config.h"
#include "distorch/models/vae/config.h"

namespace distorch::nodes {

using models::clip::TextKind;
using weights::Checkpoint;

namespace {

std::string key_of(const std::filesystem::path& file, const std::string& part,
                   const streaming::StreamedOptions& options,
                   const streaming::PlacementRequest& placement) {
  return fmt::format("{}|{}|{}|{}|{}|{}", ModelCache::identity(file), part, options.compute,
                     c10::toString(options.dtype), placement.allocation, placement.eject);
}

std::shared_ptr<const sampling::ModelSampling> sampling_of(models::Prediction prediction) {
  sampling::DiscreteSettings settings;
  settings.prediction = prediction == models::Prediction::Velocity ? sampling::Prediction::V
                                                                   : sampling::Prediction::Eps;
  return sampling::discrete_sampling(settings);
}

}  // namespace

std::string ModelCache::identity(const Path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return path.string();
  return fmt::format("{}|{}.{}|{}|{}.{}", path.string(), info.st_dev, info.st_ino, info.st_size,
                     info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
}

std::shared_ptr<const formats::TensorFile> ModelCache::file(const Path& path) {
  auto key = identity(path);
  auto& slot = open_[key];
  if (auto open = slot.lock()) return std::static_pointer_cast<const formats::TensorFile>(open);
  auto opened = std::make_shared<formats::TensorFile>(formats::open_tensor_file(path));
  slot = opened;
  return opened;
}

std::shared_ptr<const tokenizers::ClipBpe> ModelCache::vocabulary() {
  if (!vocabulary_)
    vocabulary_ =
        tokenizers::ClipBpe::load(settings_.tokenizer_folder / "bpe_simple_vocab_16e6.txt.gz");
  return vocabulary_;
}

streaming::StreamedOptions ModelCache::options(const Path& file, const std::string& part,
                                               const std::string& compute) const {
  streaming::StreamedOptions options;
  options.name = file.stem().string() + (part.empty() ? "" : " (" + part + ")");
  options.compute = engine_.device_for(compute);
  return options;
}

std::shared_ptr<LoadedDiffusion> ModelCache::diffusion(const Path& path,
                                                       const Placement& placement) {
  Checkpoint whole(file(path));
  auto part = models::unet_part(whole);
  const auto& family = models::detect_family(part.empty() ? whole : part);
  auto streamed = options(path, "", placement.compute);
  streamed.dtype = unet_dtype(settings_, engine_.describe(streamed.compute), part.main_dtype());
  streamed.channels_last = true;
  auto& slot = open_[key_of(path, "unet", streamed, placement)];
  if (auto open = slot.lock()) return std::static_pointer_cast<LoadedDiffusion>(open);

  auto loaded = std::make_shared<LoadedDiffusion>();
  loaded->family = &family;
  loaded->network = family.make(part);
  loaded->sampling = sampling_of(family.prediction(part));
  auto config = models::sd::unet_config(part);
  loaded->in_channels = config.in_channels;
  loaded->context_width = config.context_width;
  loaded->lora_names = models::unet_lora_names(config, loaded->network->manifest());
  loaded->weights =
      std::make_shared<streaming::StreamedModel>(loaded->network->manifest(), part, streamed);
  engine_.add(loaded->weights, placement, true);
  slot = loaded;
  return loaded;
}

TextKind ModelCache::text_kind(const Path& checkpoint) {
  Checkpoint whole(file(checkpoint));
  auto part = models::unet_part(whole);
  return models::detect_family(part.empty() ? whole : part).text;
}

std::shared_ptr<LoadedText> ModelCache::text(const Path& path, const Placement& placement,
                                             std::optional<TextKind> kind) {
  auto part = models::clip::text_part(Checkpoint(file(path)));
  if (part.empty()) return nullptr;
  if (!kind) kind = models::clip::detect_text_kind(part);
  auto streamed = options(path, "text encoder", placement.compute);
  streamed.dtype = text_dtype(settings_, engine_.describe(streamed.compute));
  auto& slot = open_[key_of(path, "text", streamed, placement)];
  if (auto open = slot.lock()) return std::static_pointer_cast<LoadedText>(open);

  bool h = *kind == TextKind::ClipH;
  auto loaded = std::make_shared<LoadedText>();
  loaded->network =
      std::make_unique<models::clip::TextModel>(models::clip::text_config(part, *kind));
  loaded->tokenizer = std::make_unique<tokenizers::ClipTokenizer>(
      vocabulary(), h ? tokenizers::clip_h_options : tokenizers::clip_l_options);
  loaded->embedding_key = h ? "clip_h" : "clip_l";
  loaded->lora_names = models::text_lora_names(loaded->network->manifest());
  loaded->weights =
      std::make_shared<streaming::StreamedModel>(loaded->network->manifest(), part, streamed);
  engine_.add(loaded->weights, placement, false);
  slot = loaded;
  return loaded;
}

std::shared_ptr<LoadedVae> ModelCache::vae(const Path& path, const Placement& placement) {
  auto part = models::vae::vae_part(Checkpoint(file(path)));
  if (part.empty()) return nullptr;
  auto streamed = options(path, "VAE", settings_.cpu_vae ? "cpu" : placement.compute);
  streamed.dtype = vae_dtype(settings_, engine_.describe(streamed.compute));
  streamed.channels_last = true;
  auto& slot = open_[key_of(path, "vae", streamed, placement)];
  if (auto open = slot.lock()) return std::static_pointer_cast<LoadedVae>(open);

  auto loaded = std::make_shared<LoadedVae>();
  loaded->network = std::make_unique<models::vae::Autoencoder>(models::vae::vae_config(part));
  loaded->weights =
      std::make_shared<streaming::StreamedModel>(loaded->network->manifest(), part, streamed);
  engine_.add(loaded->weights, placement, false);
  slot = loaded;
  return loaded;
}

}  // namespace distorch::nodes
