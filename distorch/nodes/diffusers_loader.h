#pragma once
#include "distorch/graph/catalog.h"
#include "distorch/nodes/app.h"

namespace distorch::nodes {

/// DiffusersLoader and its variants.
void add_diffusers_loader_nodes(graph::Catalog& catalog, App& app);

}  // namespace distorch::nodes
