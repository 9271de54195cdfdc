#include <fmt/format.h>

#include <list>

#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/output_files.h"
#include "distorch/nodes/saved_names.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

namespace fs = std::filesystem;

using formats::DType;
using formats::TensorToWrite;
using graph::Call;
using graph::link;
using graph::text;
using Metadata = formats::TensorFile::Metadata;

namespace {

// Above what a training on ordinary noise levels has, and below what one whose last level is all
// noise has (4518).
constexpr float kZeroTerminal = 4000.0f;

/// A file to be written: its tensors and the models they come from.
class SavedFile {
 public:
  SavedModel& add(const streaming::StreamedModel& model,
                  const std::vector<streaming::LoraUse>& loras, const std::string& seed_prefix) {
    return models_.emplace_back(model, loras, seed_prefix);
  }
  void add(const SavedModel& model, const SavedWeight& weight) { model.add_to(tensors_, weight); }
  /// All weights of a model, with `prefix` before their names.
  void add_all(const SavedModel& model, const std::string& prefix) {
    for (const auto& name : model.names()) add(model, {.name = prefix + name, .sources = {name}});
    model.add_mark_to(tensors_, prefix);
  }
  void add_text(const SavedModel& encoder, const std::string& prefix,
                SavedLayout::Text::Names names) {
    for (const auto& weight : saved_text(encoder, prefix, names)) add(encoder, weight);
    encoder.add_mark_to(tensors_, prefix);
  }
  /// A tensor without numbers, which says something by being there; `values` of float32.
  void mark(const std::string& name, std::vector<std::int64_t> shape = {0}, float value = 0) {
    auto& held = marks_.emplace_back(value);
    std::span<const std::byte> bytes;
    if (shape.empty()) bytes = std::as_bytes(std::span(&held, 1));
    tensors_.push_back(
        {.name = name, .dtype = DType::F32, .shape = std::move(shape), .bytes = bytes});
  }
  /// The positions of a text, 0 1 2 ... `count` - 1, which loaders of other programs want.
  void number_positions(const std::string& name, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) positions_.push_back(i);
    tensors_.push_back({.name = name,
                        .dtype = DType::I64,
                        .shape = {1, count},
                        .bytes = std::as_bytes(std::span(positions_))});
  }
  /// Writes the file whole or not at all.
  void write(const fs::path& path, const Metadata& metadata) {
    formats::write_safetensors(path, std::move(tensors_), metadata);
    try {
      for (const auto& model : models_) model.check_files();
    } catch (...) {
      fs::remove(path);
      throw;
    }
  }

 private:
  std::list<SavedModel> models_;
  std::list<float> marks_;
  std::vector<std::int64_t> positions_;
  std::vector<TensorToWrite> tensors_;
};

bool plans_only(Call& call) { return call.context<streaming::Engine>().plan_only(); }

void add_workflow(Metadata& metadata, Call& call) {
  if (call.context<Settings>().disable_metadata) return;
  metadata["prompt"] = "";
  for (auto& entry : workflow_texts(call.prompt(), call.extra_pnginfo()))
    metadata[entry.keyword] = entry.value;
}

/// Where a file goes: the place and its number there.
struct Target {
  Target(Call& call, const std::string& prefix)
      : place(output_place(prefix, call.context<Settings>().output_folder)),
        number(next_number(place)) {}
  fs::path path() const { return place.folder / numbered(place.name, number, ".safetensors"); }
  OutputPlace place;
  std::int64_t number;
};

/// What the standard for models' metadata calls a family; "" for those that ComfyUI names not.
std::string architecture(const LoadedDiffusion& model) {
  const auto name = model.family->name();
  if (name == "SDXL") {
    const auto* entry = model.weights->checkpoint().find("input_blocks.0.0.weight");
    bool edits = entry && entry->shape.size() > 1 && entry->shape[1] == 8;
    return edits ? "stable-diffusion-xl-v1-edit" : "stable-diffusion-xl-v1-base";
  }
  if (name == "SDXL refiner") return "stable-diffusion-xl-v1-refiner";
  if (name == "SD3") return "stable-diffusion-v3-medium";
  return "";
}

/// Whether noise levels are those of ModelSamplingContinuousEDM: the network is told a quarter of
/// their logarithm.
bool is_continuous_edm(const sampling::ModelSampling& levels) {
  return levels.timestep(1.0f) == 0.0f && std::abs(levels.timestep(std::exp(4.0f)) - 1.0f) < 1e-3f;
}

/// Metadata and marks of a diffusion model: what it is and what its output means.
void describe(SavedFile& file, Metadata& metadata, const Model& model, const Target& target) {
  using sampling::Prediction;
  if (auto kind = architecture(*model.loaded); !kind.empty()) {
    metadata["modelspec.architecture"] = kind;
    metadata["modelspec.sai_model_spec"] = "1.0.0";
    metadata["modelspec.implementation"] = "sgm";
    metadata["modelspec.title"] = fmt::format("{} {}", target.place.name, target.number);
  }
  const auto& levels = model.noise_levels();
  if (levels.prediction() == Prediction::V && is_continuous_edm(levels)) {
    file.mark("edm_vpred.sigma_max", {}, levels.sigma_max());
    file.mark("edm_vpred.sigma_min", {}, levels.sigma_min());
  }
  const auto& own = *model.loaded->sampling;
  if (own.prediction() == Prediction::Eps) metadata["modelspec.predict_key"] = "epsilon";
  if (own.prediction() != Prediction::V || is_continuous_edm(own)) return;
  metadata["modelspec.predict_key"] = "v";
  file.mark("v_pred");
  if (levels.sigma_max() > kZeroTerminal) file.mark("ztsnr");
}

void add_diffusion(SavedFile& file, const Model& model, const SavedLayout& layout) {
  auto& saved = file.add(*model.loaded->weights, model.loras, "diffusion_model.");
  file.add_all(saved, layout.diffusion);
}

const std::vector<streaming::LoraUse>& loras_of(const Clip& clip, std::size_t encoder) {
  static const std::vector<streaming::LoraUse> none;
  return encoder < clip.loras.size() ? clip.loras[encoder] : none;
}

/// Which of a family's places an encoder goes to.
SavedLayout::Text place_of(const LoadedEncoder& encoder, const SavedLayout& layout,
                           const Model& model) {
  if (layout.texts.empty())
    return {encoder.name, fmt::format("text_encoders.{}.transformer.", encoder.name)};
  for (const auto& text : layout.texts)
    if (text.encoder == encoder.name) return text;
  throw Error(
      ErrorKind::Usage, "clip",
      fmt::format("{} is a {} encoder, which no checkpoint of {} has a place for; {} takes "
                  "the text encoders that belong to it",
                  encoder.weights->checkpoint().path(), encoder.name, model.loaded->family->name(),
                  model.loaded->weights->checkpoint().path()));
}

void add_text(SavedFile& file, const Clip& clip, const SavedLayout& layout, const Model& model) {
  for (std::size_t i = 0; i < clip.loaded->encoders.size(); ++i) {
    const auto& encoder = *clip.loaded->encoders[i];
    auto place = place_of(encoder, layout, model);
    auto& saved = file.add(*encoder.weights, loras_of(clip, i), encoder.name + ".transformer.");
    file.add_text(saved, place.prefix, place.names);
    // Of checkpoints with two encoders the first one's positions are numbered.
    const std::string ids = "text_model.embeddings.position_ids";
    if (layout.texts.size() > 1 && encoder.name == "clip_l" && !saved.has(ids))
      file.number_positions(place.prefix + ids, 77);
  }
}

void add_vae(SavedFile& file, const Vae& vae, const std::string& prefix) {
  static const std::vector<streaming::LoraUse> none;
  file.add_all(file.add(*vae.loaded->weights, none, ""), prefix);
}

Clip clip_input(Call& call) {
  const auto& clip = call.get<Clip>("clip");
  if (!clip.loaded)
    throw Error(ErrorKind::Usage, call.place(),
                "clip is empty: its checkpoint holds no text encoder");
  return clip;
}

Vae vae_input(Call& call) {
  const auto& vae = call.get<Vae>("vae");
  if (!vae.loaded)
    throw Error(ErrorKind::Usage, call.place(),
                "vae is empty: its checkpoint holds no autoencoder");
  return vae;
}

void save_model(Call& call, const Clip* clip, const Vae* vae) {
  const auto& model = call.get<Model>("model");
  if (plans_only(call)) return;
  Target target(call, call.text("filename_prefix"));
  auto layout = saved_layout(*model.loaded->family);
  SavedFile file;
  Metadata metadata;
  describe(file, metadata, model, target);
  add_diffusion(file, model, layout);
  if (clip) add_text(file, *clip, layout, model);
  if (vae) add_vae(file, *vae, layout.vae);
  add_workflow(metadata, call);
  file.write(target.path(), metadata);
}

void run_model(Call& call) { save_model(call, nullptr, nullptr); }

void run_checkpoint(Call& call) {
  auto clip = clip_input(call);
  auto vae = vae_input(call);
  save_model(call, &clip, &vae);
}

void run_vae(Call& call) {
  auto vae = vae_input(call);
  if (plans_only(call)) return;
  Target target(call, call.text("filename_prefix"));
  SavedFile file;
  add_vae(file, vae, "");
  Metadata metadata;
  add_workflow(metadata, call);
  file.write(target.path(), metadata);
}

/// Encoders whose kind ComfyUI writes behind the file's name.
bool is_in_the_name(const std::string& encoder) {
  return encoder.starts_with("clip_") || encoder == "t5xxl";
}

/// One file an encoder: all of them, or none.
void run_clip(Call& call) {
  auto clip = clip_input(call);
  if (plans_only(call)) return;
  Metadata metadata;
  add_workflow(metadata, call);
  if (!metadata.empty()) metadata["format"] = "pt";
  std::vector<fs::path> written;
  try {
    for (std::size_t i = 0; i < clip.loaded->encoders.size(); ++i) {
      const auto& encoder = *clip.loaded->encoders[i];
      auto prefix = call.text("filename_prefix");
      if (is_in_the_name(encoder.name)) prefix += "_" + encoder.name;
      Target target(call, prefix);
      SavedFile file;
      auto& saved = file.add(*encoder.weights, loras_of(clip, i), encoder.name + ".transformer.");
      file.add_text(saved, "", SavedLayout::Text::Names::Own);
      file.write(target.path(), metadata);
      written.push_back(target.path());
    }
  } catch (...) {
    for (const auto& path : written) fs::remove(path);
    throw;
  }
}

graph::NodeType saving(const char* name, std::vector<graph::Input> inputs, const char* prefix,
                       void (*run)(Call&)) {
  inputs.push_back(text("filename_prefix", {.def = prefix}));
  return {.name = name,
          .display_name = name,
          .category = "advanced/model_merging",
          .python_module = "comfy_extras.nodes_model_merging",
          .inputs = std::move(inputs),
          .hidden = {{"prompt", "PROMPT"}, {"extra_pnginfo", "EXTRA_PNGINFO"}},
          .output_node = true,
          .run = run};
}

}  // namespace

void add_model_saving_nodes(graph::Catalog& catalog) {
  catalog.add(saving("ModelSave", {link("model", "MODEL")}, "diffusion_models/ComfyUI", run_model));
  catalog.add(saving("CLIPSave", {link("clip", "CLIP")}, "clip/ComfyUI", run_clip));
  catalog.add(saving("VAESave", {link("vae", "VAE")}, "vae/ComfyUI_vae", run_vae));
  auto checkpoint =
      saving("CheckpointSave", {link("model", "MODEL"), link("clip", "CLIP"), link("vae", "VAE")},
             "checkpoints/ComfyUI", run_checkpoint);
  checkpoint.display_name = "Save Checkpoint";
  catalog.add(std::move(checkpoint));
}

}  // namespace distorch::nodes
