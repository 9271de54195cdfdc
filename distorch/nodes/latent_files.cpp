#include "distorch/base/error.h"
#include "distorch/formats/safetensors.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/input_files.h"
#include "distorch/nodes/output_files.h"
#include "distorch/streaming/engine.h"
#include "distorch/weights/checkpoint.h"

namespace distorch::nodes {

using graph::Call;
using graph::choice;
using graph::Choices;
using graph::link;
using graph::text;
using graph::Value;
using sampling::Latent;

namespace {

// Marks files whose numbers are those of the VAE; older ones were scaled for the model.
constexpr const char* kVersionTensor = "latent_format_version_0";
constexpr const char* kSamples = "latent_tensor";
constexpr double kOldScale = 0.18215;

std::vector<std::string> latent_names(const Settings& settings) {
  return input_names(settings, {".latent"});
}

void run_save(Call& call) {
  call.out(0, call.in("samples"));
  const auto& settings = call.context<Settings>();
  if (call.context<streaming::Engine>().plan_only()) return;
  auto place = output_place(call.text("filename_prefix"), settings.output_folder);
  auto samples = call.get<Latent>("samples").samples.to(at::kCPU, at::kFloat).contiguous();
  formats::TensorFile::Metadata metadata;
  if (!settings.disable_metadata)
    for (auto& entry : workflow_texts(call.prompt(), call.extra_pnginfo()))
      metadata[entry.keyword] = entry.value;
  std::span bytes(static_cast<const std::byte*>(samples.const_data_ptr()), samples.nbytes());
  auto name = numbered(place.name, next_number(place), ".latent");
  formats::write_safetensors(place.folder / name,
                             {{kSamples, formats::DType::F32, samples.sizes().vec(), bytes},
                              {kVersionTensor, formats::DType::F32, {0}, {}}},
                             metadata);
  call.ui(
      {{"latents", {{{"filename", name}, {"subfolder", place.subfolder}, {"type", "output"}}}}});
}

void run_load(Call& call) {
  auto path = annotated_path(call.text("latent"), call.context<Settings>());
  weights::Checkpoint file(call.context<ModelCache>().file(path));
  const auto* stored = file.find(kSamples);
  if (!stored)
    throw Error(ErrorKind::Format, path.string(), "is no latent: it has no tensor 'latent_tensor'");
  auto samples = weights::read_tensor(*stored).to(at::kFloat);
  if (samples.dim() < 4 || samples.dim() > 5 || samples.numel() == 0)
    throw Error(ErrorKind::Shape, path.string(),
                "holds no latent of batch, channels, (frames,) height and width, each at least 1");
  if (!file.has(kVersionTensor)) samples = samples * (1.0 / kOldScale);
  call.out(0, Value::of("LATENT", Latent{samples, {}, {}}));
}

}  // namespace

void add_latent_file_nodes(graph::Catalog& catalog, App& app) {
  catalog.add({
      .name = "SaveLatent",
      .category = "_for_testing",
      .inputs = {link("samples", "LATENT"), text("filename_prefix", {.def = "latents/ComfyUI"})},
      .hidden = {{"prompt", "PROMPT"}, {"extra_pnginfo", "EXTRA_PNGINFO"}},
      .outputs = {{"LATENT", "samples"}},
      .output_node = true,
      .run = run_save,
  });
  auto names = [&app] { return latent_names(app.settings); };
  catalog.add({
      .name = "LoadLatent",
      .category = "_for_testing",
      .inputs = {choice("latent", Choices(names))},
      .outputs = {"LATENT"},
      .run = run_load,
      .change_key =
          [&app](const Call& call) {
            return ModelCache::identity(annotated_path(call.text("latent"), app.settings));
          },
      .checks = {{{"latent"},
                  [&app, names](const Call& call) {
                    return missing_input(call.text("latent"), app.settings, names());
                  }}},
  });
}

}  // namespace distorch::nodes
