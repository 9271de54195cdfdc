#pragma once
#include "distorch/graph/catalog.h"

namespace distorch::cli {

/// Node types that `serve` has beside those of distorch/nodes: none (no_more_nodes.cpp). The server
/// that tests start, distorch_test_server, is the same program with nodes of tests/serve/nodes.
void add_more_nodes(graph::Catalog& catalog);

}  // namespace distorch::cli
