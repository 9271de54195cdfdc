#include "distorch/nodes/loaders.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>
#include <span>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/device/names.h"
#include "distorch/models/gguf_vision.h"
#include "distorch/models/taesd/autoencoder.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/lora_files.h"
#include "distorch/placement/allocation_string.h"
#include "distorch/weights/lora.h"

namespace distorch::nodes {

using graph::boolean;
using graph::Call;
using graph::choice;
using graph::Choices;
using graph::link;
using graph::number;
using graph::Value;

graph::Choices device_choices() {
  return Choices([] {
    std::vector<std::string> names = {"cpu"};
    for (auto& name : device::accelerator_names()) names.push_back(std::move(name));
    return names;
  });
}

void add_with_device(graph::Catalog& catalog, graph::NodeType node) {
  auto on_device = graph::multigpu_variants(node, {.devices = device_choices()}).front();
  catalog.add(std::move(node));
  catalog.add(std::move(on_device));
}

graph::Choices model_choices(App& app, const std::string& type) {
  return Choices([&app, type] { return app.folders.list(type); }).with_origin([&app, type] {
    return app.folders.searched(type);
  });
}

std::function<std::optional<std::string>(const Call&)> when_replaced(
    App& app, std::vector<std::pair<std::string, std::string>> files) {
  return [&app, files = std::move(files)](const Call& call) {
    std::string identities;
    for (const auto& [type, input] : files) {
      auto path = app.folders.find(type, call.text(input));
      identities += (path ? ModelCache::identity(*path) : "none") + "|";
      if (!path || type != "text_encoders" || path->extension() != ".gguf") continue;
      if (const auto tower = models::vision_file_beside(*path))
        identities += ModelCache::identity(*tower) + "|";
    }
    return std::optional(identities);
  };
}

streaming::PlacementRequest spread_request(const std::string& compute, double virtual_gb,
                                           const std::string& donors, const std::string& expert,
                                           bool eject) {
  streaming::PlacementRequest request;
  request.compute = compute;
  request.eject = eject;
  // A full string ("...#cuda:0;4;cpu") in the expert field brings its own virtual part.
  if (expert.find('#') != std::string::npos) {
    request.allocation = expert;
    auto named = placement::parse_full_allocation(expert).compute;
    if (!named.empty()) request.compute = named;
  } else if (!expert.empty() || (virtual_gb > 0 && donors != compute)) {
    request.allocation = fmt::format("{}#{};{};{}", expert, compute, virtual_gb, donors);
  }
  return request;
}

namespace {

/// What the first DisTorch rests weights on: RAM, before that on request all other accelerators.
std::string donors_beside(const std::string& compute, bool others) {
  std::string donors;
  for (const auto& info : device::list_devices())
    if (others && info.accelerator && info.name != compute) donors += info.name + ",";
  return donors + "cpu";
}

}  // namespace

streaming::PlacementRequest placement_of(const Call& call) {
  auto text = [&](const char* name) {
    return call.node_type().find_input(name) ? call.text(name) : std::string();
  };
  auto compute = text("compute_device");
  if (compute.empty()) compute = text("device");
  if (compute == "default") compute.clear();
  if (!call.node_type().find_input("virtual_vram_gb")) return {.compute = compute};
  return spread_request(
      compute, call.number("virtual_vram_gb"),
      call.node_type().find_input("use_other_vram")
          ? donors_beside(compute, call.boolean("use_other_vram"))
          : text("donor_device"),
      text("expert_mode_allocations"),
      call.node_type().find_input("eject_models") && call.boolean("eject_models"));
}

graph::InputCheck any_device(std::vector<std::string> inputs) {
  auto reason = [inputs](const Call& call) -> std::string {
    for (const auto& name : inputs) {
      if (!call.has(name)) continue;
      try {
        auto device = call.text(name);
        if (device != "default") placement::normal_device(device);
      } catch (const Error& problem) {
        return problem.sentence();
      }
    }
    return "";
  };
  return {inputs, reason};
}

void add_placed_loader(graph::Catalog& catalog, graph::NodeType loader, bool text_encoder) {
  graph::add_loader(catalog, std::move(loader),
                    {.devices = device_choices(), .text_encoder = text_encoder});
}

void load_unet(Call& call, const std::string& weight_dtype) {
  auto path = call.context<ModelFolders>().get("diffusion_models", call.text("unet_name"));
  call.out(0, Value::of("MODEL", Model{.loaded = call.context<ModelCache>().diffusion(
                                           path, placement_of(call), weight_dtype)}));
}

void load_checkpoint(Call& call, const CheckpointPlacement& placement) {
  auto& models = call.context<ModelCache>();
  auto path = call.context<ModelFolders>().get("checkpoints", call.text("ckpt_name"));
  call.out(0, Value::of("MODEL", Model{.loaded = models.diffusion(path, placement.unet)}));
  call.out(1, Value::of("CLIP", Clip{.loaded = models.text(path, placement.text)}));
  call.out(2, Value::of("VAE", Vae{models.vae(path, placement.vae)}));
}

namespace {

constexpr const char* kLoraText =
    "Adds what a LoRA has learned, such as a style or a character, to a model. Several can follow "
    "one another.";

constexpr const char* kLoraModelTip = "The diffusion model with the LoRA.";
constexpr const char* kLoraClipTip = "The text encoder with the LoRA.";

void run_checkpoint(Call& call) {
  auto unet = placement_of(call);
  streaming::PlacementRequest others{.compute = unet.compute, .eject = unet.eject};
  load_checkpoint(call, {unet, others, others});
}

void run_unet(Call& call) { load_unet(call, call.text("weight_dtype")); }

std::vector<std::string> vae_names(const ModelFolders& folders) {
  auto names = folders.list("vae");
  auto approximate = folders.list("vae_approx");
  auto there = [&](const std::string& start) {
    return std::any_of(approximate.begin(), approximate.end(),
                       [&](const std::string& name) { return name.starts_with(start); });
  };
  for (const auto& name : models::taesd::names())
    if (there(name + "_encoder.") && there(name + "_decoder.")) names.push_back(name);
  names.push_back("pixel_space");
  return names;
}

bool is_small_vae(const std::string& name) {
  const auto& names = models::taesd::names();
  return std::find(names.begin(), names.end(), name) != names.end();
}

void run_vae(Call& call) {
  auto name = call.text("vae_name");
  const auto& folders = call.context<ModelFolders>();
  if (name == "pixel_space" && !folders.find("vae", name))
    throw Error(ErrorKind::Usage, call.place(), "models that work on pixels are not supported yet");
  if (is_small_vae(name) && !folders.find("vae", name)) {
    auto small = call.context<ModelCache>().small_vae(name, placement_of(call));
    if (!small)
      throw Error(ErrorKind::MissingFile, name + "_decoder",
                  "is not there; " + folders.searched("vae_approx"));
    return call.out(0, Value::of("VAE", Vae{small}));
  }
  auto path = folders.get("vae", name);
  auto loaded = call.context<ModelCache>().vae(path, placement_of(call));
  if (!loaded)
    throw Error(ErrorKind::Format, path.string(), "holds no autoencoder that distorch knows");
  call.out(0, Value::of("VAE", Vae{loaded}));
}

/// The adapters of a file for one model (LoadedDiffusion or LoadedText), matched once. `unknown`
/// keeps the names that nobody wanted so far.
template <typename Loaded>
auto adapters_of(const weights::Checkpoint& file, const std::string& key, Loaded& loaded,
                 std::set<std::string>& unknown, std::vector<std::string>& misfits) {
  auto matched = weights::match_lora(file, loaded.lora_names, loaded.network->manifest());
  std::set<std::string> left(matched.unknown.begin(), matched.unknown.end());
  std::erase_if(unknown, [&](const std::string& name) { return !left.count(name); });
  misfits.insert(misfits.end(), matched.left_out.begin(), matched.left_out.end());
  if (const auto& left_out = matched.left_out; !left_out.empty() && !matched.adapters.empty())
    log::warn_once(fmt::format(
        "{}: {} adapters or tensors of it do not fit and are left out: {}{}", file.path(),
        left_out.size(),
        fmt::join(std::span(left_out).first(std::min<std::size_t>(3, left_out.size())), "; "),
        left_out.size() > 3 ? "; ..." : ""));
  if (auto known = loaded.loras.find(key)) return known;
  auto adapters =
      std::make_shared<const std::vector<weights::NamedAdapter>>(std::move(matched.adapters));
  loaded.loras.keep(key, adapters);
  return adapters;
}

bool is_text_name(const std::string& name) {
  return name.starts_with("lora_te") || name.starts_with("text_encoder") ||
         name.starts_with("te1.") || name.starts_with("te2.");
}

/// Whether adapters do something at that strength: a replacement does whatever the strength.
bool act(const std::vector<weights::NamedAdapter>& adapters, double strength) {
  return std::any_of(adapters.begin(), adapters.end(), [&](const weights::NamedAdapter& adapter) {
    return strength != 0 || adapter.kind == weights::AdapterKind::Replacement;
  });
}

/// Refuses a LoRA that changes nothing: it was made for another kind of model.
[[noreturn]] void refuse_lora(const weights::Checkpoint& file, const LoadedDiffusion& model) {
  throw Error(
      ErrorKind::Format, file.path(),
      fmt::format("changes nothing in {}, which is {}: it is a LoRA of another kind of model, with "
                  "tensors such as '{}'",
                  std::filesystem::path(model.weights->checkpoint().path()).filename().string(),
                  model.family->name(), file.tensors().begin()->first));
}

/// Refuses a LoRA of which nothing fits: it was made for a larger or smaller model of the kind.
[[noreturn]] void refuse_misfits(const weights::Checkpoint& file, const LoadedDiffusion& model,
                                 const std::vector<std::string>& misfits) {
  throw Error(
      ErrorKind::Shape, file.path(),
      fmt::format("fits nothing in {}, which is {}: it was made for another size of that kind of "
                  "model ({}); load a LoRA for this one",
                  std::filesystem::path(model.weights->checkpoint().path()).filename().string(),
                  model.family->name(), misfits.front()));
}

/// Adds a LoRA to a model and, where `clip` is given, to its text encoder. `key` tells what it is.
void apply_lora(const weights::Checkpoint& file, const std::string& key, Model& model,
                double strength_model, Clip* clip, double strength_clip) {
  std::set<std::string> unknown;
  for (const auto& [name, stored] : file.tensors())
    if (clip || !is_text_name(name)) unknown.insert(name);
  std::vector<std::string> misfits;
  auto on_model = adapters_of(file, key, *model.loaded, unknown, misfits);
  bool any = !on_model->empty() || (unknown.empty() && misfits.empty());
  if (act(*on_model, strength_model)) model.loras.push_back({key, on_model, strength_model});
  for (std::size_t i = 0; clip && clip->loaded && i < clip->loaded->encoders.size(); ++i) {
    auto& encoder = *clip->loaded->encoders[i];
    clip->loras.resize(clip->loaded->encoders.size());
    auto on_text = adapters_of(file, key, encoder, unknown, misfits);
    any = any || !on_text->empty();
    if (act(*on_text, strength_clip)) clip->loras[i].push_back({key, on_text, strength_clip});
  }
  if (!any && !misfits.empty()) refuse_misfits(file, *model.loaded, misfits);
  if (!any) refuse_lora(file, *model.loaded);
  if (unknown.empty()) return;
  std::vector<std::string> examples(
      unknown.begin(), std::next(unknown.begin(), std::min<std::ptrdiff_t>(3, unknown.size())));
  log::warn_once(fmt::format(
      "{}: {} of {} tensors belong to no weight of the model and are left out, such as {}",
      std::filesystem::path(file.path()).filename().string(), unknown.size(), file.tensors().size(),
      fmt::join(examples, ", ")));
}

std::filesystem::path lora_path(const Call& call) {
  return call.context<ModelFolders>().get("loras", call.text("lora_name"));
}

void run_lora(Call& call) {
  auto model = call.get<Model>("model");
  auto clip = call.get<Clip>("clip");
  auto strength_model = call.number("strength_model"), strength_clip = call.number("strength_clip");
  if (strength_model != 0 || strength_clip != 0) {
    const auto path = lora_path(call);
    apply_lora(call.context<ModelCache>().checkpoint(path), ModelCache::identity(path), model,
               strength_model, &clip, strength_clip);
  }
  call.out(0, Value::of("MODEL", std::move(model)));
  call.out(1, Value::of("CLIP", std::move(clip)));
}

void run_lora_model_only(Call& call) {
  auto model = call.get<Model>("model");
  if (auto strength = call.number("strength_model"); strength != 0)
    add_lora(call.context<ModelCache>(), lora_path(call), model, strength);
  call.out(0, Value::of("MODEL", std::move(model)));
}

graph::Input strength(const char* name, std::string tooltip = {}) {
  return number(
      name, {.def = 1.0, .min = -100.0, .max = 100.0, .step = 0.01, .tooltip = std::move(tooltip)});
}

void add_lora_nodes(graph::Catalog& catalog, App& app, const Choices& loras) {
  auto replaced = when_replaced(app, {{"loras", "lora_name"}});
  catalog.add({
      .name = "LoraLoader",
      .display_name = "Load LoRA",
      .category = "loaders",
      .description = kLoraText,
      .inputs = {link("model", "MODEL", {.tooltip = "The diffusion model that gets the LoRA."}),
                 link("clip", "CLIP", {.tooltip = "The text encoder that gets the LoRA."}),
                 choice("lora_name", loras, {.tooltip = "A LoRA file of the loras folder."}),
                 strength("strength_model",
                          "How much of the LoRA the diffusion model gets: 0 is nothing, 1 is all, "
                          "and a negative value turns its effect round."),
                 strength("strength_clip", "The same for the text encoder.")},
      .outputs = {{"MODEL", "", kLoraModelTip}, {"CLIP", "", kLoraClipTip}},
      .run = run_lora,
      .change_key = replaced,
  });
  catalog.add({
      .name = "LoraLoaderModelOnly",
      .display_name = "LoraLoaderModelOnly",
      .category = "loaders",
      .description = kLoraText,
      .inputs = {link("model", "MODEL"), choice("lora_name", loras), strength("strength_model")},
      .outputs = {{"MODEL", "", kLoraModelTip}},
      .run = run_lora_model_only,
      .change_key = replaced,
  });
}

/// Files of bitsandbytes' 4-bit numbers (quant/four_bit.h). The file says how it is packed, so that
/// these are the plain loaders under other names; those open such files too.
void add_four_bit_loaders(graph::Catalog& catalog, App& app) {
  constexpr const char* module = "custom_nodes.ComfyUI_bitsandbytes_NF4";
  add_placed_loader(catalog, {
                                 .name = "CheckpointLoaderNF4",
                                 .display_name = "CheckpointLoaderNF4",
                                 .category = "loaders",
                                 .python_module = module,
                                 .inputs = {choice("ckpt_name", model_choices(app, "checkpoints"))},
                                 .outputs = {"MODEL", "CLIP", "VAE"},
                                 .run = run_checkpoint,
                                 .change_key = when_replaced(app, {{"checkpoints", "ckpt_name"}}),
                             });
  add_placed_loader(catalog,
                    {
                        .name = "UNETLoaderNF4",
                        .display_name = "UNETLoaderNF4",
                        .category = "advanced/loaders",
                        .python_module = module,
                        .inputs = {choice("unet_name", model_choices(app, "diffusion_models"))},
                        .outputs = {"MODEL"},
                        .run = [](Call& call) { load_unet(call, "default"); },
                        .change_key = when_replaced(app, {{"diffusion_models", "unet_name"}}),
                    });
}

}  // namespace

void add_lora(ModelCache& models, const std::filesystem::path& file, Model& model,
              double strength) {
  add_lora(models.checkpoint(file), ModelCache::identity(file), model, strength);
}

void add_lora(const weights::Checkpoint& tensors, const std::string& key, Model& model,
              double strength) {
  apply_lora(tensors, key, model, strength, nullptr, 0);
}

void add_loader_nodes(graph::Catalog& catalog, App& app) {
  auto files = [&app](const char* type) { return model_choices(app, type); };
  add_placed_loader(
      catalog,
      {
          .name = "CheckpointLoaderSimple",
          .display_name = "Load Checkpoint",
          .category = "loaders",
          .description =
              "Opens a checkpoint: one file with a diffusion model, its text encoder and its VAE.",
          .inputs = {choice("ckpt_name", files("checkpoints"),
                            {.tooltip = "A checkpoint file of the checkpoints folder."})},
          .outputs = {{"MODEL", "", "The diffusion model, for a sampler."},
                      {"CLIP", "", "The text encoder, for prompts."},
                      {"VAE", "", "The VAE, which turns images into latents and back."}},
          .run = run_checkpoint,
          .change_key = when_replaced(app, {{"checkpoints", "ckpt_name"}}),
      });
  add_placed_loader(
      catalog, {
                   .name = "UNETLoader",
                   .display_name = "Load Diffusion Model",
                   .category = "advanced/loaders",
                   .inputs = {choice("unet_name", files("diffusion_models")),
                              choice("weight_dtype",
                                     {"default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"})},
                   .outputs = {"MODEL"},
                   .run = run_unet,
                   .change_key = when_replaced(app, {{"diffusion_models", "unet_name"}}),
               });
  add_placed_loader(catalog, {
                                 .name = "VAELoader",
                                 .display_name = "Load VAE",
                                 .category = "loaders",
                                 .inputs = {choice("vae_name", Choices([&app] {
                                                                 return vae_names(app.folders);
                                                               }).with_origin([&app] {
                                   return app.folders.searched("vae");
                                 }))},
                                 .outputs = {"VAE"},
                                 .run = run_vae,
                                 .change_key = when_replaced(app, {{"vae", "vae_name"}}),
                             });
  add_four_bit_loaders(catalog, app);
  add_lora_nodes(catalog, app, files("loras"));
}

}  // namespace distorch::nodes
