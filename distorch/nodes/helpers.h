#pragma once
#include "distorch/graph/catalog.h"

namespace distorch::nodes {

/// Small nodes of several add-ons that the workflows of ComfyUI-MultiGPU use: texts and whole
/// numbers.
void add_helper_nodes(graph::Catalog& catalog);

}  // namespace distorch::nodes
