#include "tools/make_random_model/kinds_ltxv.h"

#include <nlohmann/json.hpp>

#include "distorch/models/ltxv/transformer.h"
#include "distorch/models/ltxv_vae/autoencoder.h"
#include "tools/make_random_model/shapes.h"

namespace distorch::random_model {
namespace {

namespace vae = models::ltxv_vae;

using Json = nlohmann::json;
void add_transformer(Shapes& shapes, bool large, Size size, const std::string& prefix) {
  models::ltxv::Config c;
  if (large) c = {.width = 4096, .mlp_width = 16384, .layers = 48};
  if (size != Size::Full) c.layers = 2;
  if (size == Size::Tiny) {
    constexpr std::int64_t narrow = 256;
    c.width = narrow;
    c.mlp_width = 2 * narrow;
  }
  models::ltxv::Transformer model(c);
  shapes = std::move(shapes) + declared(model.manifest(), prefix);
}

/// What the file says of its autoencoder.
Json vae_config(vae::Release release, Size size) {
  if (size == Size::Tiny)
    return Json::parse(R"({"encoder_blocks": [["compress_all", 1], ["compress_all", 1],
      ["compress_all", 1], ["res_x", 1]], "decoder_blocks": [
      ["compress_all", {"residual": true, "multiplier": 2}],
      ["compress_all", {"residual": true, "multiplier": 2}],
      ["compress_all", {"residual": true, "multiplier": 2}],
      ["res_x", {"num_layers": 1, "inject_noise": true}]],
      "norm_layer": "pixel_norm", "patch_size": 4, "timestep_conditioning": true})");
  auto config = vae::published_config(release);
  if (size == Size::Truncated)
    for (const char* half : {"encoder_blocks", "decoder_blocks"})
      for (auto& entry : config[half]) {
        if (entry[1].is_number()) entry[1] = 1;
        if (entry[1].contains("num_layers")) entry[1]["num_layers"] = 1;
      }
  return config;
}

void add_vae(Shapes& shapes, vae::Release release, Size size, const std::string& prefix) {
  vae::Ends ends;
  if (size == Size::Tiny) {
    ends.encoder = 16;
    ends.decoder = 128;
  }
  vae::Autoencoder model(vae::config_from(vae_config(release, size), ends, "ltxv"));
  shapes = std::move(shapes) + declared(model.manifest(), prefix);
}

/// A checkpoint as published: without the text encoder, and with what tells its parts in the header.
Kind checkpoint(const char* name, const char* description, bool large, vae::Release release) {
  return {.name = name,
          .description = description,
          .folder = "checkpoints",
          .dtype = "BF16",
          .shapes =
              [=](Size size) {
                Shapes shapes;
                add_transformer(shapes, large, size, "model.diffusion_model.");
                add_vae(shapes, release, size, "vae.");
                return shapes;
              },
          .metadata = [=](Size size) -> std::map<std::string, std::string> {
            Json config = {{"vae", vae_config(release, size)},
                           {"transformer",
                            {{"num_attention_heads", 32}, {"causal_temporal_positioning", large}}}};
            return {{"config", config.dump()}};
          }};
}

}  // namespace

std::vector<Kind> ltxv_kinds() {
  return {
      checkpoint("ltxv-2b", "LTX-Video 2B 0.9.1, a checkpoint without its text encoder", false,
                 vae::Release::V091),
      checkpoint("ltxv-13b", "LTX-Video 13B 0.9.7, a checkpoint without its text encoder", true,
                 vae::Release::V095),
      {"ltxv-2b-transformer", "LTX-Video 2B, the diffusion model", "diffusion_models", "BF16",
       [](Size size) {
         Shapes shapes;
         add_transformer(shapes, false, size, "");
         return shapes;
       }},
  };
}

}  // namespace distorch::random_model
