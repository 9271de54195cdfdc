#include "distorch/nodes/upscale.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/run_token.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/models/vae/tiled.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/pictures.h"
#include "distorch/streaming/profile.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::link;
using graph::Value;
using models::vae::TileSize;

namespace {

constexpr std::int64_t kTile = 512, kSmallestTile = 128, kOverlap = 32;  // pixels

streaming::Engine::Use prepare(LoadedUpscale& loaded, streaming::Engine& engine,
                               at::IntArrayRef shape) {
  streaming::RunNeeds needs;
  needs.key = fmt::format("upscale {}", fmt::join(shape, "x"));
  needs.profile = [&](const RigDevice& compute) {
    auto fresh = loaded.make();
    return streaming::profile_model(
        *loaded.weights, fresh->manifest(), compute, [&](at::Device device) {
          auto input = at::empty(shape, at::TensorOptions().device(device).dtype(at::kFloat));
          models::upscale::upscale(*fresh, input);
        });
  };
  return engine.prepare(loaded.weights, needs);
}

Tensor in_tiles(LoadedUpscale& loaded, streaming::Engine& engine, const Tensor& image,
                std::int64_t tile, const UpscaleProgress& progress) {
  auto shape = loaded.network->shape();
  auto use =
      prepare(loaded, engine,
              {1, image.size(1), std::min(image.size(2), tile), std::min(image.size(3), tile)});
  if (engine.plan_only())
    return at::zeros({image.size(0), shape.out_channels, image.size(2) * shape.scale,
                      image.size(3) * shape.scale});
  TileSize size{tile, tile, kOverlap};
  auto total = image.size(0) * models::vae::count_tiles(image.size(3), image.size(2), size);
  std::int64_t done = 0;
  auto device = device::to_torch(loaded.weights->options().compute);
  return models::vae::tiled_scale(
      image,
      [&](const Tensor& part) {
        throw_if_interrupted();
        return models::upscale::upscale(*loaded.network, part.to(device));
      },
      size, {static_cast<double>(shape.scale), shape.out_channels},
      [&] {
        if (progress) progress(++done, total);
      });
}

void run_load(Call& call) {
  auto path = call.context<ModelFolders>().get("upscale_models", call.text("model_name"));
  call.out(0,
           Value::of("UPSCALE_MODEL", UpscaleModel{call.context<ModelCache>().upscale(path, {})}));
}

void run_upscale(Call& call) {
  auto image =
      upscale_image(call.get<UpscaleModel>("upscale_model"), call.context<streaming::Engine>(),
                    image_input(call, "image"), [&](std::int64_t done, std::int64_t total) {
                      call.progress(static_cast<double>(done), static_cast<double>(total));
                    });
  image_out(call, 0, image);
}

}  // namespace

Tensor upscale_image(const UpscaleModel& model, streaming::Engine& engine, const Tensor& image,
                     const UpscaleProgress& progress) {
  auto& loaded = *model.loaded;
  auto channels = loaded.network->shape().in_channels;
  // A picture's alpha is dropped where the model has no use for it, or is opaque where it has.
  auto pixels = channels >= 3 ? match_channels(image, channels) : image;
  pixels = pixels.movedim(-1, 1).contiguous();
  for (auto tile = kTile;; tile /= 2) {
    try {
      auto result = in_tiles(loaded, engine, pixels, tile, progress);
      return result.movedim(1, -1).clamp(0, 1).contiguous();
    } catch (const std::exception& problem) {
      if (!device::is_out_of_memory(problem) || tile / 2 < kSmallestTile) throw;
    }
    log::warn("tiles of {} pixels do not fit into memory, smaller ones are tried", tile);
  }
}

void add_upscale_nodes(graph::Catalog& catalog, App& app) {
  catalog.add({
      .name = "UpscaleModelLoader",
      .display_name = "Load Upscale Model",
      .category = "loaders",
      .python_module = "comfy_extras.nodes_upscale_model",
      .inputs = {choice("model_name", model_choices(app, "upscale_models"))},
      .outputs = {"UPSCALE_MODEL"},
      .newer_schema = true,
      .run = run_load,
      .change_key = when_replaced(app, {{"upscale_models", "model_name"}}),
  });
  catalog.add({
      .name = "ImageUpscaleWithModel",
      .display_name = "Upscale Image (using Model)",
      .category = "image/upscaling",
      .python_module = "comfy_extras.nodes_upscale_model",
      .inputs = {link("upscale_model", "UPSCALE_MODEL"), link("image", "IMAGE")},
      .outputs = {"IMAGE"},
      .newer_schema = true,
      .run = run_upscale,
  });
}

}  // namespace distorch::nodes
