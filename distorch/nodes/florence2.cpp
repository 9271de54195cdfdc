#include "distorch/nodes/florence2.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/models/lora_names.h"
#include "distorch/nodes/florence2_answers.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/model_cache.h"
#include "distorch/nodes/model_directories.h"
#include "distorch/nodes/published_model.h"
#include "distorch/nodes/stream_weights.h"
#include "distorch/tokenizers/florence2_tokens.h"
#include "distorch/weights/lora.h"

namespace distorch::nodes {

using graph::Call;
using graph::choice;
using graph::Choices;
using graph::link;
using graph::Value;

namespace {

namespace fs = std::filesystem;

constexpr const char* kModule = "custom_nodes.ComfyUI-Florence2";
constexpr const char* kFolders = "LLM";
/// What the loader of published models lists; its device variant lacks the last one.
const std::vector<std::string> kPublished = {
    "microsoft/Florence-2-base",
    "microsoft/Florence-2-base-ft",
    "microsoft/Florence-2-large",
    "microsoft/Florence-2-large-ft",
    "HuggingFaceM4/Florence-2-DocVQA",
    "thwri/CogFlorence-2.1-Large",
    "thwri/CogFlorence-2.2-Large",
    "gokaygokay/Florence-2-SD3-Captioner",
    "gokaygokay/Florence-2-Flux-Large",
    "MiaoshouAI/Florence-2-base-PromptGen-v1.5",
    "MiaoshouAI/Florence-2-large-PromptGen-v1.5",
    "MiaoshouAI/Florence-2-base-PromptGen-v2.0",
    "MiaoshouAI/Florence-2-large-PromptGen-v2.0",
    "PJMixers-Images/Florence-2-base-Castollux-v0.5",
};

/// What travels over links of type PEFTLORA.
struct PeftLora {
  fs::path folder;
};

using Loaders = WeakCache<LoadedFlorence2>;

std::string last_part(const std::string& name) { return name.substr(name.rfind('/') + 1); }

/// The size of pictures, where the folder says one.
void read_picture_size(const fs::path& folder, Florence2& florence) {
  const auto path = folder / "preprocessor_config.json";
  if (!fs::is_regular_file(path)) return;
  const auto json = nlohmann::json::parse(read_file(path), nullptr, false);
  const auto size = json.is_object() ? json.value("size", nlohmann::json()) : nlohmann::json();
  auto side = [&](const char* name) -> std::int64_t {
    const auto value = size.is_object() ? size.value(name, nlohmann::json()) : nlohmann::json();
    if (value.is_number_integer() && value.get<double>() >= 32 && value.get<double>() <= 4096)
      return value.get<std::int64_t>();
    throw Error(ErrorKind::Format, path.string(),
                fmt::format("'size.{}' is no number of pixels from 32 to 4096", name));
  };
  florence.width = side("width");
  florence.height = side("height");
}

streaming::LoraUse lora_of(const PeftLora& lora, ModelCache& models, LoadedFlorence2& loaded) {
  auto file = lora.folder / "adapter_model.safetensors";
  if (!fs::is_regular_file(file)) file = file_in(lora.folder, "adapter_model.bin");
  const auto config = file_in(lora.folder, "adapter_config.json");
  const auto json = nlohmann::json::parse(read_file(config), nullptr, false);
  auto number = [&](const char* name) {
    const auto value = json.is_object() ? json.value(name, nlohmann::json()) : nlohmann::json();
    if (!value.is_number() || value.get<double>() <= 0)
      throw Error(ErrorKind::Format, config.string(),
                  fmt::format("'{}' is no number above 0", name));
    return value.get<double>();
  };
  const auto rank = number("r");
  const bool by_root = json.value("use_rslora", nlohmann::json(false)) == true;
  const auto strength = number("lora_alpha") / (by_root ? std::sqrt(rank) : rank);
  const auto checkpoint = models.checkpoint(file);
  auto matched = weights::match_lora(checkpoint, loaded.lora_names, loaded.network->manifest());
  if (matched.adapters.empty())
    throw Error(ErrorKind::Format, file.string(), "changes nothing in this Florence-2 model");
  const auto key = ModelCache::identity(file);
  auto adapters = loaded.loras.find(key);
  if (!adapters) {
    adapters =
        std::make_shared<const std::vector<weights::NamedAdapter>>(std::move(matched.adapters));
    loaded.loras.keep(key, adapters);
  }
  return {key, adapters, strength};
}

std::shared_ptr<LoadedFlorence2> open_weights(ModelCache& models, Loaders& open,
                                              const fs::path& folder, const std::string& precision,
                                              const streaming::PlacementRequest& placement) {
  const auto file = weights_in(folder, "a Florence-2 model"),
             config = file_in(folder, "config.json");
  auto& engine = models.engine();
  streaming::StreamedOptions options;
  options.name = folder.filename().string();
  options.compute = engine.device_for(placement.compute);
  options.dtype = chosen_dtype(precision, models.settings(), engine.describe(options.compute));
  const auto key = fmt::format("{}|{}|{}|{}|{}|{}", ModelCache::identity(file),
                               ModelCache::identity(config), options.compute,
                               c10::toString(options.dtype), placement.allocation, placement.eject);
  if (auto loaded = open.find(key)) return loaded;
  const auto part = models::florence2::florence2_part(models.checkpoint(file));
  if (part.empty())
    throw Error(ErrorKind::Format, file.string(),
                "holds no Florence-2 model in its published form, with tensors such as "
                "'vision_tower.convs.0.proj.weight'");
  auto loaded = std::make_shared<LoadedFlorence2>();
  loaded->identity = key;
  loaded->placement = placement;
  loaded->make = [shape =
                      models::florence2::read_config(read_file(config), config.string(), part)] {
    return std::make_unique<models::florence2::Model>(shape);
  };
  loaded->network = loaded->make();
  loaded->lora_names =
      models::prefixed_lora_names(loaded->network->manifest(), {"base_model.model."});
  stream_weights(engine, *loaded, part, options, placement, false);
  open.keep(key, loaded);
  return loaded;
}

void load(Call& call, Loaders& open, const fs::path& folder) {
  auto& models = call.context<ModelCache>();
  Florence2 florence;
  florence.loaded = open_weights(models, open, folder, call.text("precision"), placement_of(call));
  florence.tokenizer = tokenizers::ByteBpe::load(folder, tokenizers::florence2_tokens());
  const auto config = folder / "config.json";
  florence.writing = models::florence2::read_generation_config(read_file(config), config.string());
  read_picture_size(folder, florence);
  if (call.has("lora"))
    florence.loras.push_back(lora_of(call.get<PeftLora>("lora"), models, *florence.loaded));
  if (call.node_type().find_input("convert_to_safetensors") &&
      call.boolean("convert_to_safetensors"))
    log::info(
        "{}: weights are read from where they lie in the file, also from a .bin file; nothing "
        "is converted",
        folder.string());
  call.out(0, Value::of("FL2MODEL", std::move(florence)));
}

void load_lora(Call& call) {
  PublishedModel lora{.name = call.text("model"),
                      .files = "adapter_config.json and adapter_model.safetensors"};
  lora.wanted = [](const std::vector<std::string>& all) {
    std::vector<std::string> wanted;
    for (const auto& name : all)
      if (name == "adapter_config.json" || name == "adapter_model.safetensors")
        wanted.push_back(name);
    return wanted;
  };
  call.out(0, Value::of("PEFTLORA", PeftLora{published_folder(call, lora)}));
}

/// Changes when a file of the folder is replaced.
std::optional<std::string> folder_key(const ModelFolders& folders, const std::string& name) {
  const auto folder = find_directory(folders, kFolders, last_part(name));
  return folder ? folder_identity(*folder) : "none";
}

graph::NodeType loader(const char* name, graph::Input model, bool precision_has_default) {
  graph::ChoiceOptions precision;
  if (precision_has_default) precision.def = "fp16";
  return {
      .name = name,
      .display_name = name,
      .category = "Florence2",
      .python_module = kModule,
      .inputs = {std::move(model), choice("precision", {"fp16", "bf16", "fp32"}, precision),
                 choice("attention", {"flash_attention_2", "sdpa", "eager"}, {.def = "sdpa"}),
                 graph::optional(link("lora", "PEFTLORA"))},
      .outputs = {{"FL2MODEL", "florence2_model"}},
  };
}

/// The loader with the switch of the original and its device variant, which came before that
/// switch.
void add_both(graph::Catalog& catalog, graph::NodeType plain, graph::NodeType on_device) {
  plain.inputs.push_back(graph::optional(graph::boolean("convert_to_safetensors", {.def = false})));
  auto variants = graph::multigpu_variants(on_device, {.devices = device_choices()});
  catalog.add(std::move(plain));
  catalog.add(std::move(variants.front()));
}

}  // namespace

void add_florence2_loader_nodes(graph::Catalog& catalog, App& app) {
  auto open = std::make_shared<Loaders>();
  const auto folders = Choices([&app] {
                         return directories_in(app.folders, kFolders);
                       }).with_origin([&app] { return app.folders.searched(kFolders); });
  auto local = loader("Florence2ModelLoader",
                      choice("model", folders, {.extra = graph::Json::object()}), false);
  local.run = [open](Call& call) {
    load(call, *open,
         published_folder(call, {.name = call.text("model"),
                                 .files = "config.json, the weights and the tokenizer's files"}));
  };
  local.change_key = [&app](const Call& call) {
    return folder_key(app.folders, call.text("model"));
  };
  add_both(catalog, local, local);

  auto fewer = kPublished;
  fewer.pop_back();
  auto published = [&](const std::vector<std::string>& names) {
    auto type = loader("DownloadAndLoadFlorence2Model",
                       choice("model", Choices(names), {.def = names.front()}), true);
    type.run = [open](Call& call) {
      load(call, *open,
           published_folder(call,
                            {.name = call.text("model"),
                             .files = "config.json, model.safetensors or pytorch_model.bin, and "
                                      "tokenizer.json, or vocab.json and merges.txt,"}));
    };
    type.change_key = local.change_key;
    return type;
  };
  add_both(catalog, published(kPublished), published(fewer));

  catalog.add({
      .name = "DownloadAndLoadFlorence2Lora",
      .display_name = "DownloadAndLoadFlorence2Lora",
      .category = "Florence2",
      .python_module = kModule,
      .inputs = {choice("model", {"NikshepShetty/Florence-2-pixelprose"})},
      .outputs = {{"PEFTLORA", "lora"}},
      .run = load_lora,
      .change_key =
          [&app](const Call& call) { return folder_key(app.folders, call.text("model")); },
  });
}

}  // namespace distorch::nodes
