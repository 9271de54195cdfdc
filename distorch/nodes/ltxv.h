#pragma once
#include "distorch/graph/catalog.h"
#include "distorch/nodes/app.h"

namespace distorch::nodes {

/// ComfyUI's own nodes of LTX-Video (ltxv.cpp), and those of the packs that workflows use
/// (ltxv_packs.cpp).
void add_ltxv_nodes(graph::Catalog& catalog);
/// Those that make latents larger (latent_upscale.cpp).
void add_latent_upscale_nodes(graph::Catalog& catalog, App& app);
void add_ltxv_pack_nodes(graph::Catalog& catalog, App& app);

}  // namespace distorch::nodes
