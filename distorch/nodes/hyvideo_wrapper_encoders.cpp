// The folders of HunyuanVideo's text encoders, as the wrapper lays them out below the models.
#include <fmt/format.h>

#include <array>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/models/clip/encoder.h"
#include "distorch/models/clip/recipes.h"
#include "distorch/models/clip_vision/vision_model.h"
#include "distorch/models/llama/encoder.h"
#include "distorch/models/qwen/config.h"
#include "distorch/nodes/hyvideo_wrapper.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/model_directories.h"
#include "distorch/nodes/published_model.h"
#include "distorch/nodes/stream_weights.h"

namespace distorch::nodes::hyvideo {

using graph::Call;
using graph::choice;
using graph::integer;
using graph::optional;
using graph::Value;
using weights::Checkpoint;

namespace {

namespace fs = std::filesystem;

constexpr const char* kWords = "Kijai/llava-llama-3-8b-text-encoder-tokenizer";
constexpr const char* kSeeing = "xtuner/llava-llama-3-8b-v1_1-transformers";
constexpr const char* kClip = "openai/clip-vit-large-patch14";
constexpr const char* kNoClip = "disabled";

/// What is open, by file and the way it is used.
struct OpenEncoders {
  WeakCache<LoadedEncoder> texts;
  WeakCache<LoadedVision> visions;
  WeakCache<const tokenizers::LlamaBpe> vocabularies;
};

std::string last_part(const std::string& name) { return name.substr(name.rfind('/') + 1); }

/// The folder of a published model below a type's places: there, or brought where that is allowed.
fs::path needed_folder(Call& call, const char* type, const std::string& name, const char* files) {
  return published_folder(call, {.name = name, .files = files, .type = type});
}

fs::path weights_file(const fs::path& folder, const char* what) {
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"})
    if (fs::is_regular_file(folder / name)) return folder / name;
  throw Error(
      ErrorKind::MissingFile, (folder / "model.safetensors").string(),
      fmt::format("is not there, nor is model.safetensors.index.json: put the weights of {} "
                  "into this folder",
                  what));
}

/// The tensors of the language model under our names: those of a Llama alone have no prefix, those
/// of a LLaVA lie below "language_model.".
Checkpoint language_part(const Checkpoint& file) {
  const bool bare = file.has("layers.0.input_layernorm.weight");
  auto part = models::qwen::text_part(bare ? file.part("", "model.") : file,
                                      models::qwen::TextKind::Llama3_8B);
  if (part.empty())
    throw Error(ErrorKind::Format, file.path(),
                "holds no Llama 3 with tensors such as 'layers.0.self_attn.k_proj.weight' or "
                "'language_model.model.layers.0.self_attn.k_proj.weight'");
  return part;
}

/// The vision half of a LLaVA; empty where the file has none.
Checkpoint vision_part(const Checkpoint& file) {
  auto part = file.part("vision_tower.");
  const std::string projector = "multi_modal_projector.";
  auto shown = file.part(projector, projector);
  if (part.empty() || shown.empty()) return {};
  for (const auto& [name, stored] : shown.tensors()) part.add(name, stored);
  return models::clip_vision::vision_part(part);
}

/// One call of the loader.
class Loader {
 public:
  Loader(Call& call, OpenEncoders& open)
      : call_(call),
        models_(call.context<ModelCache>()),
        open_(open),
        precision_(call.text("precision")) {
    placement_.compute = named_device(call);
  }

  HyText load() {
    const auto name = call_.text("llm_model");
    HyText text;
    text.sees = name == kSeeing;
    text.folder = needed_folder(
        call_, "LLM", name,
        "model.safetensors (or all of its parts with model.safetensors.index.json) and "
        "tokenizer.json");
    const auto file = weights_file(text.folder, name.c_str());
    const auto checkpoint = models_.checkpoint(file);
    text.vocabulary = vocabulary_of(text.folder);
    const auto part = language_part(checkpoint);
    text.words = encoder(file, words_part(part), fmt::format("{} {}", skipped(part), normed()));
    if (text.sees) text.vision.loaded = vision(file, vision_part(checkpoint));
    if (const auto clip = call_.text("clip_model"); clip != kNoClip) text.clip = clip_of(clip);
    if (const auto wish = call_.text("quantization"); wish != "disabled")
      log::info("{}: quantization '{}' is left out, weights rest as they are in the file",
                text.folder.filename().string(), wish);
    return text;
  }

 private:
  bool normed() const { return call_.boolean("apply_final_norm"); }

  std::int64_t skipped(const Checkpoint& part) const {
    const auto skip = call_.integer("hidden_state_skip_layer");
    const auto layers = models::qwen::text_config(part).layers;
    if (skip < 0 || skip > layers)
      throw Error(
          ErrorKind::Usage, call_.place(),
          fmt::format("input 'hidden_state_skip_layer' is {}, and {} has {} layers: it says "
                      "how many of the last ones are left out",
                      skip, part.path(), layers));
    return skip;
  }

  models::TextPart words_part(const Checkpoint& part) const {
    return models::llama::text_part_of(
        "llama", part, {.frame = "{}", .layers_left_out = skipped(part), .normed = normed()});
  }

  std::shared_ptr<const tokenizers::LlamaBpe> vocabulary_of(const fs::path& folder) {
    std::string key;
    for (const char* name : {"tokenizer.model", "tokenizer.json"})
      if (fs::is_regular_file(folder / name)) key += ModelCache::identity(folder / name) + "|";
    if (key.empty())
      throw Error(ErrorKind::MissingFile, (folder / "tokenizer.json").string(),
                  "is not there: put it beside the weights, from where they came");
    if (auto found = open_.vocabularies.find(key)) return found;
    auto read = tokenizers::LlamaBpe::load(folder);
    open_.vocabularies.keep(key, read);
    return read;
  }

  streaming::StreamedOptions options(const fs::path& file, const std::string& part) const {
    auto& engine = models_.engine();
    streaming::StreamedOptions options;
    options.name = file.parent_path().filename().string() + " " + part;
    options.compute = engine.device_for(placement_.compute);
    options.dtype = chosen_dtype(precision_, models_.settings(), engine.describe(options.compute));
    return options;
  }

  /// The one that is open, or a new one whose weights the engine knows.
  template <class Network>
  std::shared_ptr<Network> opened(WeakCache<Network>& cache, const fs::path& file,
                                  const Checkpoint& part, const std::string& name,
                                  const std::string& use,
                                  const std::function<void(Network&)>& make) {
    auto streamed = options(file, name);
    const auto key = fmt::format("{}|{}|{}|{}|{}", ModelCache::identity(file), name, use,
                                 streamed.compute, c10::toString(streamed.dtype));
    if (auto found = cache.find(key)) return found;
    auto loaded = std::make_shared<Network>();
    loaded->identity = key;
    loaded->placement = placement_;
    make(*loaded);
    loaded->network = loaded->make();
    constexpr bool many_steps = false;
    stream_weights(models_.engine(), *loaded, part, streamed, placement_, many_steps);
    cache.keep(key, loaded);
    return loaded;
  }

  std::shared_ptr<LoadedEncoder> encoder(const fs::path& file, const models::TextPart& part,
                                         const std::string& use) {
    // Tokens are made by the folder's own tokenizer, not by the encoder's.
    auto vocabularies = std::make_shared<models::Vocabularies>(models_.settings().tokenizer_folder,
                                                               models_.settings().more_tokenizers);
    return opened<LoadedEncoder>(
        open_.texts, file, part.part, part.name, use, [&](LoadedEncoder& loaded) {
          loaded.name = part.name;
          loaded.make = [make = part.make, vocabularies] { return make(vocabularies); };
        });
  }

  std::shared_ptr<LoadedVision> vision(const fs::path& file, const Checkpoint& part) {
    if (part.empty()) return nullptr;
    return opened<LoadedVision>(open_.visions, file, part, "vision", "", [&](LoadedVision& loaded) {
      loaded.make = [config = models::clip_vision::vision_config(part)] {
        return std::make_unique<models::clip_vision::VisionModel>(config);
      };
    });
  }

  std::shared_ptr<LoadedEncoder> clip_of(const std::string& name) {
    const auto folder = needed_folder(call_, "text_encoders", name, "model.safetensors");
    const auto file = weights_file(folder, name.c_str());
    const auto kind = models::clip::TextKind::ClipL;
    const auto part = models::clip::find(models_.checkpoint(file), kind);
    if (part.empty())
      throw Error(ErrorKind::Format, file.string(),
                  "holds no CLIP-L with tensors such as "
                  "'text_model.encoder.layers.0.self_attn.k_proj.weight'");
    return encoder(file,
                   models::clip::text_part_of("clip_l", part, kind, {.project_pooled = false}, {}),
                   "pooled");
  }

  Call& call_;
  ModelCache& models_;
  OpenEncoders& open_;
  std::string precision_;
  streaming::PlacementRequest placement_;
};

/// Changes when a file of the folders is replaced.
std::optional<std::string> folders_key(const ModelFolders& folders, const Call& call) {
  std::string key;
  auto add = [&](const char* type, const std::string& name) {
    const auto folder = find_directory(folders, type, last_part(name));
    key += (folder ? folder_identity(*folder) : "none") + "|";
  };
  add("LLM", call.text("llm_model"));
  add("text_encoders", call.text("clip_model"));
  return key;
}

}  // namespace

void add_encoder_nodes(graph::Catalog& catalog, App& app) {
  auto open = std::make_shared<OpenEncoders>();
  graph::NodeType loader{
      .name = "DownloadAndLoadHyVideoTextEncoder",
      .display_name = "(Down)Load HunyuanVideo TextEncoder",
      .category = kCategory,
      .description =
          "Opens Llama 3 or LLaVA from a folder below models/LLM, and CLIP-L from one below "
          "models/clip.",
      .python_module = kModule,
      .inputs = {choice("llm_model", {kWords, kSeeing}), choice("clip_model", {kNoClip, kClip}),
                 choice("precision", {"fp16", "fp32", "bf16"}, {.def = "bf16"}),
                 optional(graph::boolean("apply_final_norm", {.def = false})),
                 optional(integer("hidden_state_skip_layer", {.def = 2})),
                 optional(choice("quantization", {"disabled", "bnb_nf4", "fp8_e4m3fn"},
                                 {.def = "disabled"}))},
      .outputs = {{"HYVIDTEXTENCODER", "hyvid_text_encoder"}},
      .run =
          [open](Call& call) {
            call.out(0, Value::of("HYVIDTEXTENCODER", Loader(call, *open).load()));
          },
      .change_key = [&app](const Call& call) { return folders_key(app.folders, call); },
  };
  add_device_variant(catalog, loader);
  loader.inputs.push_back(optional(
      choice("load_device", {"main_device", "offload_device"}, {.def = "offload_device"})));
  catalog.add(std::move(loader));
}

}  // namespace distorch::nodes::hyvideo
