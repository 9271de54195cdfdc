#pragma once
#include "distorch/graph/catalog.h"
#include "distorch/nodes/app.h"

namespace distorch::nodes {

/// Every node type. `app` is asked for the lists that depend on the machine (files, devices) and
/// must outlive the catalog.
void add_all(graph::Catalog& catalog, App& app);

// One line a category; each has a file of that name.
void add_loader_nodes(graph::Catalog& catalog, App& app);
void add_multigpu_nodes(graph::Catalog& catalog, App& app);
void add_conditioning_nodes(graph::Catalog& catalog);
void add_sized_prompt_nodes(graph::Catalog& catalog);
void add_flux_nodes(graph::Catalog& catalog);
void add_advanced_model_nodes(graph::Catalog& catalog);
void add_sd3_nodes(graph::Catalog& catalog);
void add_model_patch_nodes(graph::Catalog& catalog);
void add_model_merging_nodes(graph::Catalog& catalog);
void add_controlnet_nodes(graph::Catalog& catalog, App& app);
void add_latent_nodes(graph::Catalog& catalog);
void add_latent_file_nodes(graph::Catalog& catalog, App& app);
void add_vae_nodes(graph::Catalog& catalog);
void add_image_nodes(graph::Catalog& catalog);
void add_image_file_nodes(graph::Catalog& catalog, App& app);
void add_mask_nodes(graph::Catalog& catalog);
void add_sampling_nodes(graph::Catalog& catalog);
void add_primitive_nodes(graph::Catalog& catalog);

}  // namespace distorch::nodes
