#include "distorch/nodes/catalog.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

using graph::Call;
using graph::integer;
using graph::Value;

namespace {

void run_empty(Call& call) {
  constexpr std::int64_t kChannels = 16, kPixelsOfCell = 8;
  sampling::Latent latent;
  latent.samples =
      at::zeros({call.integer("batch_size"), kChannels, call.integer("height") / kPixelsOfCell,
                 call.integer("width") / kPixelsOfCell});
  call.out(0, Value::of("LATENT", std::move(latent)));
}

}  // namespace

void add_sd3_nodes(graph::Catalog& catalog) {
  auto side = [](const char* name) {
    return integer(name, {.def = 1024, .min = 16, .max = 16384, .step = 16});
  };
  catalog.add({
      .name = "EmptySD3LatentImage",
      .category = "latent/sd3",
      .description =
          "Blank latents of 16 channels, for SD3 and the models that share its VAE's shape.",
      .python_module = "comfy_extras.nodes_sd3",
      .inputs = {side("width"), side("height"),
                 integer("batch_size", {.def = 1, .min = 1, .max = 4096})},
      .outputs = {"LATENT"},
      .newer_schema = true,
      .run = run_empty,
  });
}

}  // namespace distorch::nodes
