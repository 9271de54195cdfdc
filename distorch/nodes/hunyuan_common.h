#pragma once
#include "distorch/graph/catalog.h"
#include "distorch/nodes/vae_coding.h"

/// What the nodes of Hunyuan's video models share.
namespace distorch::nodes::hunyuan {

/// The node's VAE, which has to make video latents of so many channels. Error(Shape) that names its
/// file, and `wanted`: what would fit.
VaeCoding video_vae_of(graph::Call& call, std::int64_t channels, const char* wanted);

/// The nodes of HunyuanVideo 1.5; add_hunyuan_video_nodes (catalog.h) adds them.
void add_video15_nodes(graph::Catalog& catalog);

}  // namespace distorch::nodes::hunyuan
