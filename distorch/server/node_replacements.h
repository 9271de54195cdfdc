#pragma once
#include "distorch/graph/catalog.h"
#include "distorch/server/http.h"

namespace distorch::server {

/// Old node types that a workflow may name and what replaces them here, as GET /node_replacements
/// answers it: only those whose new type exists and whose old one does not.
Json node_replacements(const graph::Catalog& catalog);

/// Nodes of a prompt whose type is among `replacements` (what node_replacements() gave) become
/// their new type. Inputs are those that the replacement maps, or all where it maps none; links to
/// outputs that have another place follow. Anything that is no prompt stays as it is. As ComfyUI
/// 0.33 does it, which takes all inputs away where none is mapped.
void replace_nodes(Json& prompt, const Json& replacements);

}  // namespace distorch::server
