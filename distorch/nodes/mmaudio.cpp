#include "distorch/nodes/mmaudio.h"

#include <fmt/format.h>

#include <utility>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/models/text_encoder.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/model_directories.h"
#include "distorch/nodes/open_networks.h"
#include "distorch/nodes/published_model.h"

namespace distorch::nodes {

using graph::Call;
using graph::choice;
using graph::Json;
using graph::link;
using graph::Value;
using weights::Checkpoint;

namespace {

namespace fs = std::filesystem;
namespace mmaudio = models::mmaudio;

constexpr const char* kFolder = "mmaudio";
constexpr const char* kPublishedVocoder = "nvidia/bigvgan_v2_44khz_128band_512x";
constexpr const char* kGenerator = "bigvgan_generator.pt";

/// Opens parts of files with one placement and in one precision; what is open already is handed out
/// again.
class Opener {
 public:
  Opener(ModelCache& models, OpenNetworks& open, std::string precision,
         streaming::PlacementRequest placement)
      : models_(models),
        open_(open),
        precision_(std::move(precision)),
        placement_(std::move(placement)) {}

  /// `what`: the part in the user's words. `part`: its tensors; `make`: a network of its shape.
  /// `settings`: another file that decides about it; empty: none.
  template <class Network>
  std::shared_ptr<Loaded<Network>> open(const fs::path& file, const char* what,
                                        const Checkpoint& part,
                                        std::function<std::unique_ptr<Network>()> make,
                                        const fs::path& settings) {
    auto& engine = models_.engine();
    const auto compute = engine.device_for(placement_.compute);
    const auto dtype = chosen_dtype(precision_, models_.settings(), engine.describe(compute));
    constexpr bool many_steps = std::is_same_v<Network, mmaudio::Network>;
    return open_once(engine, open_, {file, what, settings, compute, dtype, placement_, many_steps},
                     part, std::move(make));
  }

  /// The same, of a shape that the part tells.
  template <class Network, class Config>
  std::shared_ptr<Loaded<Network>> open_as(const fs::path& file, const char* what,
                                           const Checkpoint& part, Config config,
                                           const fs::path& settings = {}) {
    return open<Network>(
        file, what, part,
        [config = std::move(config)] { return std::make_unique<Network>(config); }, settings);
  }

  ModelCache& models() { return models_; }

 private:
  ModelCache& models_;
  OpenNetworks& open_;
  std::string precision_;
  streaming::PlacementRequest placement_;
};

[[noreturn]] void refuse(const fs::path& file, const std::string& why) {
  throw Error(ErrorKind::Format, file.string(), why);
}

std::shared_ptr<LoadedMMAudio> open_network(Opener opener, const fs::path& file) {
  const auto part = mmaudio::network_part(opener.models().checkpoint(file));
  if (part.empty())
    refuse(file,
           "holds no network of MMAudio, with tensors such as "
           "'joint_blocks.0.latent_block.attn.qkv.weight'");
  return opener.open_as<mmaudio::Network>(file, "MMAudio", part, mmaudio::network_config(part));
}

/// The files of MMAudioFeatureUtilsLoader.
struct Files {
  fs::path vae, synchformer, clip;
  fs::path vocoder, vocoder_config;  // the second one empty: the 16 kHz vocoder has none
  std::int64_t latent = 40;          // numbers of a latent's frame that the mode stands for
};

void open_clip(Opener& opener, const fs::path& file, MMAudioParts& parts) {
  auto& models = opener.models();
  const auto all = models.checkpoint(file);
  const auto seeing = models::clip_vision::vision_part(all);
  const auto reading = models::clip::text_part(all);
  if (seeing.empty() || reading.empty())
    refuse(file, fmt::format("lacks {}: MMAudio wants CLIP with both halves "
                             "(apple_DFN5B-CLIP-ViT-H-14-384)",
                             !seeing.empty() ? "the half that reads ('transformer.resblocks.0...')"
                             : !reading.empty() ? "the half that sees "
                                                  "('visual.transformer.resblocks.0...')"
                                                : "both halves of CLIP ('visual.transformer...', "
                                                  "'transformer.resblocks...')"));
  // This one was trained with the quick GELU, whatever its size says of others.
  auto vision = models::clip_vision::vision_config(seeing);
  vision.kind = models::clip_vision::VisionKind::ClipL;
  const auto text = models::clip::text_config(reading, models::clip::TextKind::ClipL);
  const auto cells = kMMAudioPixels / vision.patch;
  if (vision.positions != cells * cells + 1 || vision.projection == 0)
    refuse(file, fmt::format("holds a CLIP with {} places ('visual.positional_embedding') for "
                             "tokens of {} pixels: pictures of {} pixels have {}",
                             vision.positions, vision.patch, kMMAudioPixels, cells * cells + 1));
  parts.vision =
      opener.open_as<models::clip_vision::VisionModel>(file, "picture encoder", seeing, vision);
  parts.text = opener.open_as<models::clip::TextModel>(file, "text encoder", reading, text);
  models::Vocabularies vocabularies(models.settings().tokenizer_folder,
                                    models.settings().more_tokenizers);
  parts.words = vocabularies.clip();
}

std::shared_ptr<Loaded<mmaudio::Vocoder>> open_vocoder(Opener& opener, const Files& files,
                                                       std::int64_t bands) {
  const auto part = mmaudio::vocoder_part(opener.models().checkpoint(files.vocoder));
  if (part.empty())
    refuse(files.vocoder, "holds no BigVGAN vocoder, with tensors such as 'conv_pre.weight_g'");
  const auto config = mmaudio::vocoder_config(
      part, files.vocoder_config.empty() ? "" : read_file(files.vocoder_config),
      files.vocoder_config.string());
  if (config.bands != bands)
    refuse(files.vocoder, fmt::format("makes sound of {} bands ('conv_pre'), and {} gives {}",
                                      config.bands, files.vae.string(), bands));
  return opener.open_as<mmaudio::Vocoder>(files.vocoder, "vocoder", part, config,
                                          files.vocoder_config);
}

MMAudioParts open_parts(Opener opener, const Files& files) {
  auto& models = opener.models();
  MMAudioParts parts;
  const auto seen = mmaudio::synchformer_part(models.checkpoint(files.synchformer));
  if (seen.empty())
    refuse(files.synchformer,
           "holds no Synchformer, with tensors such as "
           "'vfeat_extractor.blocks.0.timeattn.qkv.weight'");
  parts.synchformer = opener.open_as<mmaudio::Synchformer>(files.synchformer, "Synchformer", seen,
                                                           mmaudio::synchformer_config(seen));
  const auto mel = mmaudio::mel_part(models.checkpoint(files.vae));
  if (mel.empty())
    refuse(files.vae,
           "holds no autoencoder of MMAudio, with tensors such as "
           "'decoder.mid.block_1.conv1.weight'");
  const auto config = mmaudio::mel_config(mel);
  if (config.latent != files.latent)
    refuse(files.vae, fmt::format("takes latents of {} numbers ('decoder.conv_in.weight'), and the "
                                  "mode is for {}: 16k goes with 20, 44k with 40",
                                  config.latent, files.latent));
  parts.decoder =
      opener.open_as<mmaudio::MelDecoder>(files.vae, "spectrogram decoder", mel, config);
  parts.vocoder = open_vocoder(opener, files, config.bands);
  open_clip(opener, files.clip, parts);
  return parts;
}

/// What a call opens, there and wherever else a sampler wants it.
template <class Result>
Value opened(Call& call, const std::shared_ptr<OpenNetworks>& open, const std::string& precision,
             const char* type, std::function<Result(Opener)> open_all) {
  auto& models = call.context<ModelCache>();
  auto again = [&models, open, precision, open_all](const std::string& device) {
    return open_all(Opener(models, *open, precision, {.compute = device}));
  };
  return Value::of(
      type,
      OnDevice<Result>(open_all(Opener(models, *open, precision, placement_of(call))), again));
}

void load_model(Call& call, const std::shared_ptr<OpenNetworks>& open) {
  const auto file = call.context<ModelFolders>().get(kFolder, call.text("mmaudio_model"));
  call.out(0, opened<std::shared_ptr<LoadedMMAudio>>(
                  call, open, call.text("base_precision"), "MMAUDIO_MODEL",
                  [file](Opener opener) { return open_network(std::move(opener), file); }));
}

/// NVIDIA's vocoder for 44.1 kHz, which has a folder of its own.
void find_published_vocoder(Call& call, Files& files) {
  PublishedModel published{.name = kPublishedVocoder,
                           .files = std::string("config.json and ") + kGenerator,
                           .type = kFolder,
                           .folder = kPublishedVocoder};
  published.wanted = [](const std::vector<std::string>& all) {
    std::vector<std::string> wanted;
    for (const auto& name : all)
      if (name == "config.json" || name == kGenerator) wanted.push_back(name);
    return wanted;
  };
  const auto folder = published_folder(call, published);
  files.vocoder = file_in(folder, kGenerator);
  files.vocoder_config = file_in(folder, "config.json");
}

void load_features(Call& call, const std::shared_ptr<OpenNetworks>& open) {
  const auto& folders = call.context<ModelFolders>();
  Files files{.vae = folders.get(kFolder, call.text("vae_model")),
              .synchformer = folders.get(kFolder, call.text("synchformer_model")),
              .clip = folders.get(kFolder, call.text("clip_model"))};
  if (call.text("mode") == "44k") {
    find_published_vocoder(call, files);
  } else {
    files.latent = 20;
    if (!call.has("bigvgan_vocoder_model"))
      throw Error(ErrorKind::Usage, call.place(),
                  "mode 16k wants a vocoder in 'bigvgan_vocoder_model' (MMAudioVoCoderLoader)");
    files.vocoder = call.get<MMAudioVocoder>("bigvgan_vocoder_model").file;
  }
  call.out(0, opened<MMAudioParts>(
                  call, open, call.text("precision"), "MMAUDIO_FEATUREUTILS",
                  [files](Opener opener) { return open_parts(std::move(opener), files); }));
}

/// Only a name until it is known where it computes.
void load_vocoder(Call& call) {
  MMAudioVocoder vocoder{call.context<ModelFolders>().get(kFolder, call.text("vocoder_model"))};
  if (mmaudio::vocoder_part(call.context<ModelCache>().checkpoint(vocoder.file)).empty())
    refuse(vocoder.file, "holds no BigVGAN vocoder, with tensors such as 'conv_pre.weight_g'");
  call.out(0, Value::of("VOCODER_MODEL", std::move(vocoder)));
}

/// Changes when one of the files is replaced, those of the published vocoder too.
std::function<std::optional<std::string>(const Call&)> features_key(App& app) {
  auto named = when_replaced(
      app, {{kFolder, "vae_model"}, {kFolder, "synchformer_model"}, {kFolder, "clip_model"}});
  return [named, &app](const Call& call) {
    auto key = named(call);
    const auto folder = find_directory(app.folders, kFolder, kPublishedVocoder);
    if (folder && key) *key += "|" + folder_identity(*folder);
    return key;
  };
}

}  // namespace

void add_mmaudio_loader_nodes(graph::Catalog& catalog, App& app) {
  auto open = std::make_shared<OpenNetworks>();
  auto file = [&app](const char* name, const char* tooltip) {
    return choice(name, model_choices(app, kFolder), {.tooltip = tooltip});
  };
  auto precision = [](const char* name) {
    return choice(name, {"fp16", "fp32", "bf16"},
                  {.def = "fp16", .tooltip = "What it computes in, where the device can."});
  };
  add_with_device(catalog,
                  {
                      .name = "MMAudioModelLoader",
                      .display_name = "MMAudio ModelLoader",
                      .category = kMMAudioCategory,
                      .description = "Opens a network that makes sound for videos; which one it "
                                     "is its shapes say.",
                      .python_module = kMMAudioModule,
                      .inputs = {file("mmaudio_model", "A file of models/mmaudio."),
                                 precision("base_precision")},
                      .outputs = {{"MMAUDIO_MODEL", "mmaudio_model"}},
                      .run = [open](Call& call) { load_model(call, open); },
                      .change_key = when_replaced(app, {{kFolder, "mmaudio_model"}}),
                  });
  add_with_device(
      catalog,
      {
          .name = "MMAudioFeatureUtilsLoader",
          .display_name = "MMAudio FeatureUtilsLoader",
          .category = kMMAudioCategory,
          .description = "Opens what tells the network about a video and a text, and what makes "
                         "sound of its latent.",
          .python_module = kMMAudioModule,
          .inputs = {file("vae_model", "The autoencoder of spectrograms; its decoder is used."),
                     file("synchformer_model", "Sees when something happens."),
                     file("clip_model", "Sees what there is, and reads the text: DFN5B ViT-H-14."),
                     graph::optional(
                         link("bigvgan_vocoder_model", "VOCODER_MODEL",
                              {.tooltip = "For mode 16k. 44k has NVIDIA's, in a folder of "
                                          "models/mmaudio."})),
                     graph::optional(choice("mode", {"16k", "44k"}, {.def = "44k"})),
                     graph::optional(precision("precision"))},
          .outputs = {{"MMAUDIO_FEATUREUTILS", "mmaudio_featureutils"}},
          .run = [open](Call& call) { load_features(call, open); },
          .change_key = features_key(app),
      });
  catalog.add({
      .name = "MMAudioVoCoderLoader",
      .display_name = "MMAudio VoCoderLoader",
      .category = kMMAudioCategory,
      .description = "Names the vocoder for sound of 16 kHz.",
      .python_module = kMMAudioModule,
      .inputs = {file("vocoder_model", "A file of models/mmaudio.")},
      .outputs = {{"VOCODER_MODEL", "mmaudio_vocoder"}},
      .run = load_vocoder,
      .change_key = when_replaced(app, {{kFolder, "vocoder_model"}}),
  });
}

}  // namespace distorch::nodes
