#pragma once
#include "distorch/graph/catalog.h"

namespace distorch::nodes {

/// Small nodes of KJNodes.
void add_kj_nodes(graph::Catalog& catalog);

}  // namespace distorch::nodes
