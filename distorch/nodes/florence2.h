#pragma once
#include <filesystem>
#include <memory>

#include "distorch/graph/catalog.h"
#include "distorch/models/florence2/generate.h"
#include "distorch/models/florence2/model.h"
#include "distorch/nodes/app.h"
#include "distorch/nodes/values.h"
#include "distorch/tokenizers/byte_bpe.h"

namespace distorch::nodes {

using LoadedFlorence2 = Loaded<models::florence2::Model>;

/// What travels over links of type FL2MODEL.
struct Florence2 {
  std::shared_ptr<LoadedFlorence2> loaded;
  std::shared_ptr<const tokenizers::ByteBpe> tokenizer;
  models::florence2::GenerationConfig writing;
  std::int64_t width = 768, height = 768;  // of the pictures that it sees, in pixels
  std::vector<streaming::LoraUse> loras;
};

/// A picture [H, W, 3] 0..1 as the model sees it, its sides stretched: [1, 3, height, width] float32.
/// Source: CLIPImageProcessor of transformers with the published preprocessor_config.json.
at::Tensor florence2_pixels(const at::Tensor& picture, std::int64_t width, std::int64_t height);

/// What random numbers of a seed begin with: the last 32 bits of the SHA-256 of its decimal digits.
std::uint64_t florence2_seed(std::uint64_t seed);

/// The loaders (florence2.cpp) and Florence2Run (florence2_run.cpp).
void add_florence2_loader_nodes(graph::Catalog& catalog, App& app);
void add_florence2_run_node(graph::Catalog& catalog);

}  // namespace distorch::nodes
