#pragma once
#include "distorch/graph/catalog.h"

/// Nodes with the names and signatures that ComfyUI's own tests of execution ask for, and that
/// tests/serve/semantics_test.py uses: what they do is small, how they are run is what is tested.
/// They belong to distorch_test_server and to no other program.
namespace distorch::testing_nodes {

/// Pictures, masks and numbers to begin with: StubImage, StubMask, StubInt, ...
void add_stub_nodes(graph::Catalog& catalog);
/// On pictures: lazy and undeclared inputs, own checks, change keys, expansions.
void add_picture_nodes(graph::Catalog& catalog);
/// Loops and blockers.
void add_flow_nodes(graph::Catalog& catalog);
/// Lists, accumulations, conditions and arithmetic.
void add_list_nodes(graph::Catalog& catalog);
/// Nodes that wait, or fail after a while.
void add_waiting_nodes(graph::Catalog& catalog);

}  // namespace distorch::testing_nodes
