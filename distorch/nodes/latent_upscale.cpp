// Networks that make latents of video larger. Source: ComfyUI comfy_extras/nodes_hunyuan.py
// (LatentUpscaleModelLoader) and nodes_lt_upsampler.py.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/models/ltxv_upsampler/upsampler.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/ltxv.h"
#include "distorch/nodes/model_cache.h"
#include "distorch/nodes/settings.h"
#include "distorch/nodes/stream_weights.h"
#include "distorch/nodes/values.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::link;
using graph::Value;
using models::ltxv_upsampler::Upsampler;

namespace {

constexpr const char* kFolder = "latent_upscale_models";

using LoadedUpsampler = Loaded<Upsampler>;
using OpenUpsamplers = WeakCache<LoadedUpsampler>;

/// What travels over links of type LATENT_UPSCALE_MODEL.
struct LatentUpscaleModel {
  std::shared_ptr<LoadedUpsampler> loaded;
};

std::shared_ptr<LoadedUpsampler> open_upsampler(ModelCache& models, OpenUpsamplers& open,
                                                const std::filesystem::path& file) {
  auto& engine = models.engine();
  streaming::StreamedOptions options;
  options.name = file.filename().string();
  options.compute = engine.device_for("");
  options.dtype = vae_dtype(models.settings(), engine.describe(options.compute));
  const auto key = fmt::format("{}|{}|{}", ModelCache::identity(file), options.compute,
                               c10::toString(options.dtype));
  if (auto loaded = open.find(key)) return loaded;
  const auto part = models::ltxv_upsampler::part_of(models.checkpoint(file));
  if (part.empty())
    throw Error(ErrorKind::Format, file.string(),
                "holds no latent upscaler of LTX-Video, with tensors such as "
                "'post_upsample_res_blocks.0.conv2.bias'");
  auto loaded = std::make_shared<LoadedUpsampler>();
  loaded->identity = key;
  loaded->make = [config = models::ltxv_upsampler::config_of(part)] {
    return std::make_unique<Upsampler>(config);
  };
  loaded->network = loaded->make();
  stream_weights(engine, *loaded, part, options, {}, false);
  open.keep(key, loaded);
  return loaded;
}

/// A statistic of an autoencoder's latents by channel, [1, C, 1, 1, 1].
Tensor statistic(const LoadedVae& vae, const char* name, std::int64_t channels) {
  const auto& file = vae.weights->checkpoint();
  const auto* stored = file.find(std::string("per_channel_statistics.") + name);
  if (!stored || stored->shape != std::vector<std::int64_t>{channels})
    throw Error(ErrorKind::Usage, file.path(),
                fmt::format("does not say by how much latents of {} channels are scaled: link the "
                            "VAE of LTX-Video to 'vae'",
                            channels));
  return weights::read_dense(*stored, at::kFloat).view({1, channels, 1, 1, 1});
}

std::vector<std::int64_t> larger(at::IntArrayRef sizes,
                                 const models::ltxv_upsampler::Config& config) {
  return {sizes[0], sizes[1], sizes[2] * config.time - (config.time - 1), sizes[3] * config.space,
          sizes[4] * config.space};
}

Tensor upsampled(LoadedUpsampler& loaded, streaming::Engine& engine, const Tensor& latent) {
  streaming::RunNeeds needs;
  needs.key = fmt::format("upsample {}", fmt::join(latent.sizes(), "x"));
  needs.profile = [&](const RigDevice& compute) {
    auto fresh = loaded.make();
    return streaming::profile_model(
        *loaded.weights, fresh->manifest(), compute, [&](at::Device device) {
          fresh->forward(at::empty(latent.sizes(), latent.options().device(device)));
        });
  };
  auto use = engine.prepare(loaded.weights, needs);
  if (engine.plan_only()) return at::zeros(larger(latent.sizes(), loaded.network->config()));
  auto device = device::to_torch(loaded.weights->options().compute);
  return loaded.network->forward(latent.to(device)).to(at::kCPU);
}

void run_upsample(Call& call) {
  const auto& model = *call.get<LatentUpscaleModel>("upscale_model").loaded;
  const auto& vae = call.get<Vae>("vae");
  auto latent = call.get<sampling::Latent>("samples");
  const auto channels = model.network->config().channels;
  if (latent.samples.dim() != 5 || latent.samples.size(1) != channels)
    throw Error(ErrorKind::Shape, call.place(),
                fmt::format("enlarges latents of {} channels with frames, and 'samples' is {}",
                            channels, c10::str(latent.samples.sizes())));
  if (!vae.loaded)
    throw Error(ErrorKind::Usage, call.place(),
                "needs the VAE of LTX-Video: the checkpoint that 'vae' comes from holds none");
  auto mean = statistic(*vae.loaded, "mean-of-means", channels);
  auto deviation = statistic(*vae.loaded, "std-of-means", channels);
  auto larger = upsampled(*call.get<LatentUpscaleModel>("upscale_model").loaded,
                          call.context<streaming::Engine>(), latent.samples * deviation + mean);
  latent.samples = (larger - mean) / deviation;
  latent.noise_mask.reset();
  call.out(0, Value::of("LATENT", std::move(latent)));
}

}  // namespace

void add_latent_upscale_nodes(graph::Catalog& catalog, App& app) {
  auto open = std::make_shared<OpenUpsamplers>();
  catalog.add({
      .name = "LatentUpscaleModelLoader",
      .display_name = "Load Latent Upscale Model",
      .category = "model/loaders",
      .description = "Opens a network that makes latents larger: LTX-Video's spatial or temporal "
                     "upscaler, 0.9.7 or 0.9.8.",
      .python_module = "comfy_extras.nodes_hunyuan",
      .inputs = {choice("model_name", model_choices(app, kFolder))},
      .outputs = {"LATENT_UPSCALE_MODEL"},
      .newer_schema = true,
      .run =
          [open](Call& call) {
            auto file = call.context<ModelFolders>().get(kFolder, call.text("model_name"));
            call.out(0, Value::of("LATENT_UPSCALE_MODEL",
                                  LatentUpscaleModel{
                                      open_upsampler(call.context<ModelCache>(), *open, file)}));
          },
      .change_key = when_replaced(app, {{kFolder, "model_name"}}),
  });
  catalog.add({
      .name = "LTXVLatentUpsampler",
      .category = "model/latent/ltxv",
      .description =
          "Makes a latent of LTX-Video larger without decoding it. A noise mask does not "
          "go along.",
      .python_module = "comfy_extras.nodes_lt_upsampler",
      .inputs = {link("samples", "LATENT"), link("upscale_model", "LATENT_UPSCALE_MODEL"),
                 link("vae", "VAE")},
      .outputs = {"LATENT"},
      .experimental = true,
      .newer_schema = true,
      .run = run_upsample,
  });
}

}  // namespace distorch::nodes
