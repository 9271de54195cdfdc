#pragma once
#include "distorch/graph/catalog.h"

/// Further categories, one line each like those of catalog.h.
namespace distorch::nodes {

void add_model_saving_nodes(graph::Catalog& catalog);
void add_color_nodes(graph::Catalog& catalog);
void add_crop_to_mask_nodes(graph::Catalog& catalog);
void add_animation_nodes(graph::Catalog& catalog);

}  // namespace distorch::nodes
