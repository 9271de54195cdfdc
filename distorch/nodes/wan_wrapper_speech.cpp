// Speech for WanVideoSampler: what hears it, and the layers of FantasyTalking.
#include <fmt/format.h>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/models/audio/published.h"
#include "distorch/models/wan/speech.h"
#include "distorch/nodes/audio_encoder.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/model_directories.h"
#include "distorch/nodes/one_call.h"
#include "distorch/nodes/published_model.h"
#include "distorch/nodes/stream_weights.h"
#include "distorch/nodes/video.h"
#include "distorch/nodes/wan_wrapper.h"
#include "distorch/nodes/wan_wrapper_models.h"

namespace distorch::nodes::wan_wrapper {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using graph::Value;
using models::audio::Wav2Vec2;
using models::wan::SpeechProjection;

namespace {

namespace fs = std::filesystem;

constexpr const char* kFolders = "transformers";
constexpr const char* kFiles = "wav2vec2";
const std::vector<std::string> kPublished = {"TencentGameMate/chinese-wav2vec2-base",
                                             "facebook/wav2vec2-base-960h"};

/// What is open, by file and the way it is used.
struct Open {
  WeakCache<LoadedAudioEncoder> encoders;
  WeakCache<Speech> speeches;
};

streaming::StreamedOptions options_of(const Call& call, ModelCache& models,
                                      const std::string& name) {
  auto& engine = models.engine();
  streaming::StreamedOptions options;
  options.name = name;
  options.compute = engine.device_for(named_device(call));
  options.dtype = chosen_dtype(call.text("base_precision"), models.settings(),
                               engine.describe(options.compute));
  return options;
}

std::string key_of(const std::string& files, const streaming::StreamedOptions& options) {
  return fmt::format("{}|{}|{}", files, options.compute, c10::toString(options.dtype));
}

/// A small network with its weights, which the engine then knows.
template <class Network>
std::shared_ptr<Loaded<Network>> placed(const Call& call,
                                        std::function<std::unique_ptr<Network>()> make,
                                        const weights::Checkpoint& part, const std::string& key,
                                        const streaming::StreamedOptions& options) {
  auto loaded = std::make_shared<Loaded<Network>>();
  loaded->identity = key;
  loaded->placement.compute = named_device(call);
  loaded->make = std::move(make);
  loaded->network = loaded->make();
  constexpr bool many_steps = false;
  stream_weights(call.context<streaming::Engine>(), *loaded, part, options, loaded->placement,
                 many_steps);
  return loaded;
}

/// Whether an encoder of a folder hears levelled sound, as those of transformers do where nothing
/// else is said.
bool levels_in(const fs::path& folder, const LoadedAudioEncoder& encoder) {
  const auto path = folder / "preprocessor_config.json";
  return !fs::is_regular_file(path) ||
         models::audio::levels_sound(encoder.network->config(), {read_file(path), path.string()});
}

/// The encoder in a file: of a published folder as its config.json says, of a file alone (no
/// `config`) as its shapes do.
std::shared_ptr<LoadedAudioEncoder> encoder(Call& call, Open& open, const fs::path& file,
                                            const fs::path& config) {
  auto& models = call.context<ModelCache>();
  const auto options =
      options_of(call, models, (config.empty() ? file.stem() : config.parent_path()).filename());
  auto files = ModelCache::identity(file);
  if (!config.empty()) files += "|" + ModelCache::identity(config);
  const auto key = key_of(files, options);
  if (auto found = open.encoders.find(key)) return found;
  const auto part = models::audio::wav2vec2_part(models.checkpoint(file));
  if (part.empty())
    throw Error(ErrorKind::Format, file.string(),
                "holds no wav2vec 2.0 encoder, with tensors such as "
                "'wav2vec2.feature_projection.projection.weight'");
  const auto shape = models::audio::wav2vec2_config(part);
  if (!config.empty()) models::audio::check_published(shape, {read_file(config), config.string()});
  auto loaded = placed<Wav2Vec2>(
      call, [shape] { return std::make_unique<Wav2Vec2>(shape); }, part, key, options);
  open.encoders.keep(key, loaded);
  return loaded;
}

PublishedModel published(const std::string& name) {
  return {.name = name,
          .files =
              "config.json, preprocessor_config.json and model.safetensors or "
              "pytorch_model.bin",
          .type = kFolders,
          .folder = name};
}

void run_published(Call& call, Open& open) {
  const auto name = call.text("model");
  const auto folder = published_folder(call, published(name));
  Wav2Vec model{encoder(call, open, weights_in(folder, name), file_in(folder, "config.json"))};
  model.levels = levels_in(folder, *model.loaded);
  call.out(0, Value::of("WAV2VECMODEL", std::move(model)));
}

void run_file(Call& call, Open& open) {
  const auto file = call.context<ModelFolders>().get(kFiles, call.text("model"));
  call.out(0, Value::of("WAV2VECMODEL", Wav2Vec{encoder(call, open, file, {})}));
}

void run_speech(Call& call, Open& open) {
  auto& models = call.context<ModelCache>();
  const auto file = call.context<ModelFolders>().get("diffusion_models", call.text("model"));
  const auto options = options_of(call, models, file.stem().string());
  const auto key = key_of(ModelCache::identity(file), options);
  auto speech = open.speeches.find(key);
  if (!speech) {
    speech = std::make_shared<Speech>();
    speech->file = file;
    speech->tensors = models.checkpoint(file);
    models::wan::check_speech_file(speech->tensors);
    speech->projection = placed<SpeechProjection>(
        call,
        [shape = models::wan::speech_config(speech->tensors)] {
          return std::make_unique<SpeechProjection>(shape);
        },
        speech->tensors, key, options);
    open.speeches.keep(key, speech);
  }
  call.out(0, Value::of("FANTASYTALKINGMODEL", std::move(speech)));
}

/// What of a sound belongs to a video, from its start: the first channel at the encoder's rate,
/// [1, 1, N].
Tensor sound_of(const Call& call, double seconds, bool levels) {
  const auto& audio = audio_input(call, "audio");
  if (audio.waveform.dim() != 3 || audio.waveform.numel() == 0)
    throw Error(ErrorKind::Shape, call.place(), "input 'audio' holds no sound");
  auto sound = resampled(audio.waveform.narrow(0, 0, 1).narrow(1, 0, 1).to(at::kFloat), audio.rate,
                         Wav2Vec2::kRate);
  const auto wanted = static_cast<std::int64_t>(seconds * Wav2Vec2::kRate);
  sound = sound.narrow(2, 0, std::min(wanted, sound.size(2)));
  if (Wav2Vec2::states(sound.size(2)) == 0)
    throw Error(ErrorKind::Shape, call.place(),
                fmt::format("needs a longer sound: {} samples at {} a second are too few to be "
                            "heard",
                            sound.size(2), Wav2Vec2::kRate));
  if (!levels) return sound;
  constexpr double tiny = 1e-7;
  constexpr bool by_one_less = false;
  return (sound - sound.mean()) / (sound.var(by_one_less) + tiny).sqrt();
}

/// Tokens [1, N, width] of states [1, N, heard width]; for a plan zeros.
Tensor projected(Call& call, const Speech& speech, const Tensor& states, const Wav2Vec& heard_by) {
  auto& projection = *speech.projection;
  const auto& config = projection.network->config();
  if (states.size(2) != config.heard_width)
    throw Error(ErrorKind::Shape, speech.file.string(),
                fmt::format("takes what an audio encoder of width {} hears, and {} has the width "
                            "{}: load facebook/wav2vec2-base-960h",
                            config.heard_width, heard_by.loaded->weights->checkpoint().path(),
                            states.size(2)));
  const Tensor tokens =
      run_network(call, projection, states,
                  [](const SpeechProjection& network, const Tensor& x) { return network(x); });
  return tokens.defined() ? tokens.to(at::kCPU) : at::zeros({1, states.size(1), config.width});
}

void run_embeds(Call& call) {
  const auto& heard_by = call.get<Wav2Vec>("wav2vec_model");
  const auto& speech = *call.get<std::shared_ptr<Speech>>("fantasytalking_model");
  const auto frames = call.integer("num_frames");
  const auto sound =
      sound_of(call, static_cast<double>(frames) / call.number("fps"), heard_by.levels);
  const auto states = layers_of(call, *heard_by.loaded, sound).back();
  SpeechEmbeds embeds{
      .tokens = models::wan::tokens_of_frames(projected(call, speech, states, heard_by), frames),
      .scale = call.number("audio_scale"),
      .cfg = numbers_of_steps(call, "audio_cfg_scale")};
  call.out(0, Value::of("FANTASYTALKING_EMBEDS", std::move(embeds)));
}

/// A loader and its variant with a device.
void add_both(graph::Catalog& catalog, graph::NodeType loader) {
  auto placed = multigpu_variant(loader);
  placed.inputs.push_back(device_input("device"));
  take_devices(placed);
  catalog.add(std::move(loader));
  catalog.add(std::move(placed));
}

graph::Input precision() {
  return choice("base_precision", {"fp32", "bf16", "fp16"},
                {.def = "fp16",
                 .tooltip = "What it computes in; a CPU takes float32 where it lacks the type."});
}

}  // namespace

void add_speech_nodes(graph::Catalog& catalog, App& app) {
  auto open = std::make_shared<Open>();
  add_both(catalog, {
                        .name = "DownloadAndLoadWav2VecModel",
                        .display_name = "(Down)load Wav2Vec Model",
                        .category = kCategory,
                        .description = "Opens an audio encoder from its folder below "
                                       "models/transformers.",
                        .python_module = kModule,
                        .inputs = {choice("model", graph::Choices(kPublished)), precision(),
                                   load_device_input("main_device")},
                        .outputs = {{"WAV2VECMODEL", "wav2vec_model"}},
                        .run = [open](Call& call) { run_published(call, *open); },
                        .change_key = [&app](const Call& call) -> std::optional<std::string> {
                          const auto folder =
                              find_directory(app.folders, kFolders, call.text("model"));
                          return folder ? folder_identity(*folder) : "none";
                        },
                    });
  add_both(
      catalog,
      {
          .name = "Wav2VecModelLoader",
          .display_name = "Wav2vec2 Model Loader",
          .category = kCategory,
          .description = "Opens an audio encoder from a file of "
                         "models/wav2vec2.",
          .python_module = kModule,
          .inputs = {choice("model", model_choices(app, kFiles), {.extra = graph::Json::object()}),
                     precision(), load_device_input("main_device")},
          .outputs = {{"WAV2VECMODEL", "wav2vec_model"}},
          .run = [open](Call& call) { run_file(call, *open); },
          .change_key = when_replaced(app, {{kFiles, "model"}}),
      });
  add_both(catalog,
           {
               .name = "FantasyTalkingModelLoader",
               .display_name = "FantasyTalking Model Loader",
               .category = kCategory,
               .description = "Opens the layers by which a Wan model hears speech: link them to "
                              "its loader and to FantasyTalkingWav2VecEmbeds.",
               .python_module = kModule,
               .inputs = {choice("model", model_choices(app, "diffusion_models"),
                                 {.extra = graph::Json::object()}),
                          precision()},
               .outputs = {{"FANTASYTALKINGMODEL", "model"}},
               .run = [open](Call& call) { run_speech(call, *open); },
               .change_key = when_replaced(app, {{"diffusion_models", "model"}}),
           });
  catalog.add({
      .name = "FantasyTalkingWav2VecEmbeds",
      .display_name = "FantasyTalking Wav2Vec Embeds",
      .category = kCategory,
      .description = "What each frame of a video hears of a speech, for WanVideoSampler.",
      .python_module = kModule,
      .inputs = {link("wav2vec_model", "WAV2VECMODEL"),
                 link("fantasytalking_model", "FANTASYTALKINGMODEL"), link("audio", "AUDIO"),
                 integer("num_frames", {.def = 81, .min = 1, .max = 1000, .step = 1}),
                 number("fps", {.def = 23.0, .min = 1.0, .max = 60.0, .step = 0.1}),
                 number("audio_scale", {.def = 1.0,
                                        .min = 0.0,
                                        .max = 100.0,
                                        .step = 0.1,
                                        .tooltip = "How much the speech counts."}),
                 number("audio_cfg_scale",
                        {.def = 1.0,
                         .min = 0.0,
                         .max = 100.0,
                         .step = 0.1,
                         .tooltip = "Other than 1, each step also asks for the video without the "
                                    "speech and goes this far from there; over a link a list of "
                                    "one for each step."})},
      .outputs = {{"FANTASYTALKING_EMBEDS", "fantasytalking_embeds"}},
      .run = run_embeds,
  });
}

}  // namespace distorch::nodes::wan_wrapper
