#include "distorch/nodes/catalog.h"

namespace distorch::nodes {

void add_all(graph::Catalog& catalog, App& app) {
  add_sampling_nodes(catalog);
  add_loader_nodes(catalog, app);
  add_multigpu_nodes(catalog, app);
  add_conditioning_nodes(catalog);
  add_sized_prompt_nodes(catalog);
  add_flux_nodes(catalog);
  add_advanced_model_nodes(catalog);
  add_sd3_nodes(catalog);
  add_model_patch_nodes(catalog);
  add_model_merging_nodes(catalog);
  add_controlnet_nodes(catalog, app);
  add_latent_nodes(catalog);
  add_latent_file_nodes(catalog, app);
  add_vae_nodes(catalog);
  add_image_nodes(catalog);
  add_image_file_nodes(catalog, app);
  add_mask_nodes(catalog);
  add_primitive_nodes(catalog);
}

}  // namespace distorch::nodes
