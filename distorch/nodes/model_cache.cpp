#include "distorch/nodes/model_cache.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/device/device.h"
#include "distorch/models/catalog.h"
#include "distorch/models/control/borrowing.h"
#include "distorch/models/gguf_names.h"
#include "distorch/models/gguf_vision.h"
#include "distorch/models/taesd/autoencoder.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/stream_weights.h"
#include "distorch/quant/encoding.h"
#include "distorch/weights/shards.h"

namespace distorch::nodes {

using weights::Checkpoint;

namespace {

std::string key_of(const std::string& identity, const std::string& part,
                   const streaming::StreamedOptions& options,
                   const streaming::PlacementRequest& placement) {
  return fmt::format("{}|{}|{}|{}|{}|{}|{}|{}", identity, part, options.compute,
                     c10::toString(options.dtype),
                     options.kept_in ? c10::toString(*options.kept_in) : "", options.fast_products,
                     placement.allocation, placement.eject);
}

bool is_decoding(const std::string& weight_dtype) {
  return weight_dtype == kDecodedExactly || weight_dtype == kDecodedAsHalf ||
         weight_dtype == kDecodedAsBFloat;
}

/// What the numbers of GGUF blocks are rounded to on their way to a model that computes in `computed`.
Checkpoint decoded_as(const std::string& weight_dtype, at::ScalarType computed, Checkpoint part) {
  if (weight_dtype == kDecodedAsBFloat) return models::gguf_rounded(std::move(part), at::kBFloat16);
  if (weight_dtype == kDecodedAsHalf || (weight_dtype == "default" && computed == at::kFloat))
    return models::gguf_as_in_comfyui(std::move(part));
  return part;
}

/// The same weights, those packed as another encoding for which `other` has one (or null).
template <class Other>
Checkpoint packed_otherwise(Checkpoint part, const Other& other) {
  const auto names = part;
  for (const auto& [name, stored] : names.tensors())
    if (const auto* encoding = other(stored.encoding)) {
      auto changed = stored;
      changed.encoding = encoding;
      part.add(name, changed);
    }
  return part;
}

/// Weights of few bits as text encoders use them on every device: decoded. Source: ComfyUI 0.33
/// comfy/sd1_clip.py (full_precision_mm).
Checkpoint without_products(Checkpoint part) {
  return packed_otherwise(std::move(part), [](const quant::Encoding* encoding) {
    return encoding ? encoding->decoded() : nullptr;
  });
}

/// What weights are to be kept in, whatever the file has: half the memory, at the price of
/// precision. Source: ComfyUI nodes.py, UNETLoader.
void keep_in(const std::string& weight_dtype, streaming::StreamedOptions& options) {
  if (weight_dtype == "default" || is_decoding(weight_dtype)) return;
  if (weight_dtype == "fp8_e4m3fn" || weight_dtype == "fp8_e4m3fn_fast")
    options.kept_in = at::kFloat8_e4m3fn;
  else if (weight_dtype == "fp8_e5m2")
    options.kept_in = at::kFloat8_e5m2;
  else
    throw Error(ErrorKind::Usage, "weight_dtype", "'" + weight_dtype + "' is not known");
  options.fast_products = weight_dtype == "fp8_e4m3fn_fast";
}

std::string identity_of(const std::filesystem::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return path.string();
  return fmt::format("{}|{}.{}|{}|{}.{}", path.string(), info.st_dev, info.st_ino, info.st_size,
                     info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
}

/// Models whose weights are 8-bit numbers compute like those of float16, which they were made from.
formats::DType computed_like(formats::DType stored) {
  using formats::DType;
  return stored == DType::F8_E4M3 || stored == DType::F8_E5M2 ? DType::F16 : stored;
}

}  // namespace

std::string ModelCache::identity(const Path& path) {
  std::string all;
  for (const auto& shard : weights::shards_of(path))
    all += (all.empty() ? "" : "|") + identity_of(shard);
  return all;
}

std::shared_ptr<const formats::TensorFile> ModelCache::file(const Path& path) {
  auto key = identity_of(path);
  if (auto open = find_open<const formats::TensorFile>(key)) return open;
  auto opened = std::make_shared<formats::TensorFile>(formats::open_tensor_file(path));
  open_.keep(key, opened);
  return opened;
}

Checkpoint ModelCache::checkpoint(const Path& path) {
  std::vector<std::shared_ptr<const formats::TensorFile>> files;
  for (const auto& shard : weights::complete_shards_of(path)) files.push_back(file(shard));
  return models::with_our_names(weights::joined_shards(files));
}

streaming::StreamedOptions ModelCache::options(const Path& file, const std::string& part,
                                               const std::string& compute) const {
  streaming::StreamedOptions options;
  options.name = file.stem().string() + (part.empty() ? "" : " (" + part + ")");
  options.compute = engine_.device_for(compute);
  return options;
}

template <class Loaded>
void ModelCache::stream(Loaded& loaded, const Checkpoint& part,
                        const streaming::StreamedOptions& streamed, const Placement& placement,
                        bool many_steps) {
  stream_weights(engine_, loaded, part, streamed, placement, many_steps);
}

std::shared_ptr<LoadedDiffusion> ModelCache::diffusion(const Path& path, const Placement& placement,
                                                       const std::string& weight_dtype) {
  auto family = models::detect_family(checkpoint(path));
  auto streamed = options(path, "", placement.compute);
  streamed.dtype = unet_dtype(settings_, engine_.describe(streamed.compute),
                              computed_like(family->diffusion().main_dtype()));
  const auto part = decoded_as(weight_dtype, streamed.dtype, family->diffusion());
  streamed.channels_last = true;
  keep_in(weight_dtype, streamed);
  auto key = key_of(identity(path), is_decoding(weight_dtype) ? "unet " + weight_dtype : "unet",
                    streamed, placement);
  if (auto open = find_open<LoadedDiffusion>(key)) return open;

  auto loaded = std::make_shared<LoadedDiffusion>();
  loaded->identity = key;
  loaded->placement = placement;
  loaded->make = [family] { return family->make_network(); };
  loaded->network = loaded->make();
  loaded->sampling = family->sampling();
  loaded->lora_names = family->lora_names(loaded->network->manifest());
  stream(*loaded, part, streamed, placement, true);
  loaded->family = std::move(family);
  open_.keep(key, loaded);
  return loaded;
}

std::shared_ptr<LoadedDiffusion> ModelCache::mixed(const std::shared_ptr<LoadedDiffusion>& first,
                                                   const std::shared_ptr<LoadedDiffusion>& second,
                                                   const Mix& mix) {
  auto key = fmt::format("mix {} of {} and {}", mix.key(), first->identity, second->identity);
  if (auto open = find_open<LoadedDiffusion>(key)) return open;

  auto loaded = std::make_shared<LoadedDiffusion>();
  loaded->identity = key;
  loaded->placement = first->placement;
  loaded->family = first->family;
  loaded->sampling = first->sampling;
  loaded->lora_names = first->lora_names;
  loaded->make = first->make;
  loaded->network = loaded->make();
  auto streamed = first->weights->options();
  auto part = first->weights->checkpoint();
  loaded->file_guard = mix_into(part, streamed, *second->weights, mix);
  stream(*loaded, part, streamed, loaded->placement, true);
  open_.keep(key, loaded);
  return loaded;
}

std::shared_ptr<LoadedDiffusion> ModelCache::patched(const std::shared_ptr<LoadedDiffusion>& model,
                                                     const Checkpoint& patch,
                                                     const std::string& patch_identity) {
  auto key = fmt::format("patch {} of {}", patch_identity, model->identity);
  if (auto open = find_open<LoadedDiffusion>(key)) return open;

  auto loaded = std::make_shared<LoadedDiffusion>();
  loaded->identity = key;
  loaded->placement = model->placement;
  loaded->family = models::with_patch(*model->family, patch);
  loaded->sampling = model->sampling;
  loaded->make = [family = loaded->family] { return family->make_network(); };
  loaded->network = loaded->make();
  loaded->lora_names = loaded->family->lora_names(loaded->network->manifest());
  auto streamed = model->weights->options();
  streamed.name += " with " + Path(patch.path()).stem().string();
  stream(*loaded, loaded->family->diffusion(), streamed, loaded->placement, true);
  open_.keep(key, loaded);
  return loaded;
}

std::shared_ptr<const void> ModelCache::mix_into(Checkpoint& part,
                                                 streaming::StreamedOptions& streamed,
                                                 const streaming::StreamedModel& second,
                                                 const Mix& mix) {
  if (engine_.plan_only()) return nullptr;
  streamed.name += " mixed with " + second.options().name;
  auto file = settings_.temp_folder / "mixed" /
              fmt::format("{}-{}.safetensors", ::getpid(), ++mixed_count_);
  auto guard = write_mixed(file, part, second.checkpoint(), mix);
  part = checkpoint(file);
  return guard;
}

std::shared_ptr<LoadedText> ModelCache::mixed(const std::shared_ptr<LoadedText>& first,
                                              const std::shared_ptr<LoadedText>& second,
                                              const Mix& mix) {
  auto text = std::make_shared<LoadedText>(*first);
  bool any = false;
  for (auto& encoder : text->encoders)
    for (const auto& other : second->encoders)
      if (other->name == encoder->name) {
        encoder = mixed(encoder, *other, mix);
        any = true;
        break;
      }
  if (!any)
    throw Error(ErrorKind::Usage, second->encoders.front()->weights->checkpoint().path(),
                "holds no text encoder of a kind that the first CLIP has");
  return text;
}

std::shared_ptr<LoadedEncoder> ModelCache::mixed(const std::shared_ptr<LoadedEncoder>& first,
                                                 const LoadedEncoder& second, const Mix& mix) {
  auto key = fmt::format("mix {} of {} and {}", mix.key(), first->identity, second.identity);
  if (auto open = find_open<LoadedEncoder>(key)) return open;
  auto loaded = std::make_shared<LoadedEncoder>();
  loaded->name = first->name;
  loaded->identity = key;
  loaded->placement = first->placement;
  loaded->lora_names = first->lora_names;
  loaded->make = first->make;
  loaded->network = loaded->make();
  auto streamed = first->weights->options();
  auto part = first->weights->checkpoint();
  loaded->file_guard = mix_into(part, streamed, *second.weights, mix);
  stream(*loaded, part, streamed, loaded->placement, false);
  open_.keep(key, loaded);
  return loaded;
}

std::shared_ptr<LoadedText> ModelCache::open_text(const models::TextRecipe& recipe,
                                                  const Path& path, const std::string& identity,
                                                  const Placement& placement) {
  if (recipe.empty()) return nullptr;
  auto text = std::make_shared<LoadedText>();
  text->join = recipe.join;
  for (const auto& part : recipe.encoders) {
    // Several encoders may lie in files of their own: each is told by its own.
    const Path own = part.part.path().empty() ? path : Path(part.part.path());
    auto streamed =
        options(own, recipe.encoders.size() == 1 ? "text encoder" : "text encoder " + part.name,
                placement.compute);
    streamed.dtype = text_dtype(settings_, engine_.describe(streamed.compute));
    auto key = key_of(identity, fmt::format("text {} of {}", part.name, recipe.encoders.size()),
                      streamed, placement);
    auto loaded = find_open<LoadedEncoder>(key);
    if (!loaded) {
      loaded = std::make_shared<LoadedEncoder>();
      loaded->name = part.name;
      loaded->identity = key;
      loaded->placement = placement;
      loaded->make = [make = part.make, vocabularies = vocabularies_] {
        return make(vocabularies);
      };
      loaded->network = loaded->make();
      loaded->lora_names = part.lora_names(loaded->network->manifest());
      stream(*loaded, without_products(part.part), streamed, placement, false);
      open_.keep(key, loaded);
    }
    text->encoders.push_back(std::move(loaded));
  }
  return text;
}

std::shared_ptr<LoadedText> ModelCache::text(const Path& path, const Placement& placement) {
  auto whole = checkpoint(path);
  auto family = models::detect_family(whole);
  return open_text(family->text(whole), path, identity(path) + family->name(), placement);
}

std::shared_ptr<LoadedText> ModelCache::text(const std::vector<Path>& paths,
                                             const std::string& type, const Placement& placement) {
  std::vector<Checkpoint> files;
  std::string identities = type;
  for (const auto& path : paths) {
    files.push_back(checkpoint(path));
    identities += "|" + identity(path);
    if (const auto tower = models::vision_file_of(files.back(), path)) {
      files.back() = models::with_vision(std::move(files.back()), checkpoint(*tower));
      identities += "|" + identity(*tower);
    }
  }
  return open_text(models::text_recipe(files, type), paths.front(), identities, placement);
}

std::shared_ptr<LoadedVae> ModelCache::open_vae(const models::VaePart& vae, const Path& path,
                                                const std::string& identity,
                                                const Placement& placement) {
  auto streamed = options(path, "VAE", settings_.cpu_vae ? "cpu" : placement.compute);
  streamed.dtype = vae_dtype(settings_, engine_.describe(streamed.compute));
  streamed.channels_last = true;
  auto key = key_of(identity, "vae", streamed, placement);
  if (auto open = find_open<LoadedVae>(key)) return open;

  auto loaded = std::make_shared<LoadedVae>();
  loaded->make = vae.make;
  loaded->network = loaded->make();
  stream(*loaded, vae.part, streamed, placement, false);
  open_.keep(key, loaded);
  return loaded;
}

std::shared_ptr<LoadedVae> ModelCache::vae(const Path& path, const Placement& placement) {
  auto found = models::find_vae(checkpoint(path));
  return found.empty() ? nullptr : open_vae(found, path, identity(path), placement);
}

std::shared_ptr<LoadedVae> ModelCache::small_vae(const std::string& name,
                                                 const Placement& placement) {
  auto find = [&](const char* half) -> std::optional<Path> {
    for (const auto& one : folders_.list("vae_approx"))
      if (one.starts_with(name + half)) return folders_.find("vae_approx", one);
    return {};
  };
  auto decoder = find("_decoder."), encoder = find("_encoder.");
  if (!decoder) return nullptr;
  models::VaePart vae;
  vae.part =
      models::taesd::joined(encoder ? checkpoint(*encoder) : Checkpoint(), checkpoint(*decoder));
  vae.make = [config = models::taesd::config_of(vae.part, name)] {
    return std::make_unique<models::taesd::Autoencoder>(config);
  };
  auto both = identity(*decoder) + "|" + (encoder ? identity(*encoder) : "");
  return open_vae(vae, *decoder, name + "|" + both, placement);
}

std::shared_ptr<LoadedUpscale> ModelCache::upscale(const Path& path, const Placement& placement) {
  auto found = models::upscale::find_upscale(checkpoint(path));
  auto streamed = options(path, "upscaler", placement.compute);
  streamed.dtype = at::kFloat;
  streamed.channels_last = true;
  auto key = key_of(identity(path), "upscale", streamed, placement);
  if (auto open = find_open<LoadedUpscale>(key)) return open;

  auto loaded = std::make_shared<LoadedUpscale>();
  loaded->make = found.make;
  loaded->network = loaded->make();
  stream(*loaded, found.part, streamed, placement, false);
  open_.keep(key, loaded);
  return loaded;
}

std::shared_ptr<LoadedVision> ModelCache::vision(const Path& path, const Placement& placement) {
  auto part = models::clip_vision::vision_part(checkpoint(path));
  if (part.empty()) return nullptr;
  auto streamed = options(path, "picture encoder", placement.compute);
  streamed.dtype = text_dtype(settings_, engine_.describe(streamed.compute));
  auto key = key_of(identity(path), "vision", streamed, placement);
  if (auto open = find_open<LoadedVision>(key)) return open;

  auto loaded = std::make_shared<LoadedVision>();
  loaded->make = [config = models::clip_vision::vision_config(part)] {
    return std::make_unique<models::clip_vision::VisionModel>(config);
  };
  loaded->network = loaded->make();
  stream(*loaded, part, streamed, placement, false);
  open_.keep(key, loaded);
  return loaded;
}

std::shared_ptr<LoadedAudioEncoder> ModelCache::audio_encoder(const Path& path,
                                                              const Placement& placement) {
  auto part = models::audio::wav2vec2_part(checkpoint(path));
  if (part.empty()) return nullptr;
  auto streamed = options(path, "audio encoder", placement.compute);
  streamed.dtype = text_dtype(settings_, engine_.describe(streamed.compute));
  auto key = key_of(identity(path), "audio encoder", streamed, placement);
  if (auto open = find_open<LoadedAudioEncoder>(key)) return open;

  auto loaded = std::make_shared<LoadedAudioEncoder>();
  loaded->make = [config = models::audio::wav2vec2_config(part)] {
    return std::make_unique<models::audio::Wav2Vec2>(config);
  };
  loaded->network = loaded->make();
  stream(*loaded, part, streamed, placement, false);
  open_.keep(key, loaded);
  return loaded;
}

std::shared_ptr<LoadedStyle> ModelCache::style(const Path& path, const Placement& placement) {
  auto found = models::clip_vision::find_style(checkpoint(path));
  auto streamed = options(path, "style", placement.compute);
  streamed.dtype = at::kFloat;
  auto key = key_of(identity(path), "style", streamed, placement);
  if (auto open = find_open<LoadedStyle>(key)) return open;

  auto loaded = std::make_shared<LoadedStyle>();
  loaded->make = found.make;
  loaded->network = loaded->make();
  stream(*loaded, found.part, streamed, placement, false);
  open_.keep(key, loaded);
  return loaded;
}

std::shared_ptr<LoadedControl> ModelCache::open_control(const Path& path,
                                                        const std::string& identity,
                                                        const Checkpoint& part,
                                                        const Placement& placement) {
  auto make = [part] { return models::control::make_control(part); };
  auto network = make();
  auto streamed = options(path, "ControlNet", placement.compute);
  // An adapter runs once and is small: nothing is gained by another dtype.
  bool steps = !network->inputs().empty();
  streamed.dtype =
      steps ? unet_dtype(settings_, engine_.describe(streamed.compute), part.main_dtype())
            : at::kFloat;
  streamed.channels_last = true;
  auto key = key_of(identity, "control", streamed, placement);
  if (auto open = find_open<LoadedControl>(key)) return open;

  auto loaded = std::make_shared<LoadedControl>();
  loaded->make = make;
  loaded->network = std::move(network);
  // The published networks that want this are told by their names alone, as in ComfyUI.
  auto name = path.stem().string();
  loaded->averaged = steps && (name.ends_with("_shuffle") || name.ends_with("_shuffle_fp16"));
  stream(*loaded, part, streamed, placement, steps);
  open_.keep(key, loaded);
  return loaded;
}

std::shared_ptr<LoadedControl> ModelCache::control(const Path& path, const Placement& placement) {
  auto whole = checkpoint(path);
  if (models::control::stored_as(whole) != models::control::Stored::Whole ||
      models::control::is_borrowing(whole))
    return nullptr;
  auto part = models::control::control_part(whole);
  return open_control(path, identity(path), part.empty() ? whole : part, placement);
}

std::shared_ptr<LoadedControl> ModelCache::control_over(const ControlOverlay& overlay,
                                                        const LoadedDiffusion& unet) {
  auto whole = checkpoint(overlay.path);
  auto merged = models::control::control_over(whole, unet.family->diffusion());
  // Which UNet's bytes are below is part of what it is.
  auto below =
      fmt::format("{}|{}", identity(overlay.path), identity(unet.family->diffusion().path()));
  auto loaded = open_control(overlay.path, below, merged.part, overlay.placement);
  if (!loaded->changes.empty()) return loaded;
  models::LoraNames names;
  for (const auto& name : merged.from_unet) {
    loaded->from_unet.insert(name);
    if (name.ends_with(".weight")) names[name.substr(0, name.rfind('.'))] = name;
  }
  auto matched = weights::match_lora(merged.changes, names, loaded->network->manifest());
  for (const auto& sentence : matched.left_out)
    log::warn_once(fmt::format("{}: {}", overlay.path.filename().string(), sentence));
  loaded->changes = {
      {below,
       std::make_shared<const std::vector<weights::NamedAdapter>>(std::move(matched.adapters)),
       1.0}};
  return loaded;
}

std::vector<streaming::LoraUse> LoadedControl::loras_over(
    const std::vector<streaming::LoraUse>& unet) {
  std::vector<streaming::LoraUse> result;
  for (const auto& lora : unet) {
    auto adapters = loras.find(lora.key);
    if (!adapters) {
      std::vector<weights::NamedAdapter> own;
      for (const auto& adapter : *lora.adapters)
        if (from_unet.count(adapter.weight)) own.push_back(adapter);
      adapters = std::make_shared<const std::vector<weights::NamedAdapter>>(std::move(own));
      loras.keep(lora.key, adapters);
    }
    if (!adapters->empty()) result.push_back({lora.key, adapters, lora.strength});
  }
  result.insert(result.end(), changes.begin(), changes.end());
  return result;
}

}  // namespace distorch::nodes
