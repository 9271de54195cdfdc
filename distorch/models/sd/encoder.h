#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "distorch/models/sd/res_block.h"
#include "distorch/models/sd/transformer.h"
#include "distorch/models/sd/unet_config.h"
#include "distorch/nn/conv.h"
#include "distorch/nn/linear.h"
#include "distorch/weights/manifest.h"

/// What a UNet and the ControlNets that steer it have in common: the embedding of the timestep, the
/// way down and the middle. Names of weights and blocks are those of the original checkpoints.
/// Source: ComfyUI comfy/ldm/modules/diffusionmodules/openaimodel.py, comfy/cldm/cldm.py.
namespace distorch::models::sd {

/// Two linear layers with SiLU in between: [B, in] -> [B, width].
struct EmbeddingMlp {
  EmbeddingMlp(const nn::Linear& first, const nn::Linear& second) : first(first), second(second) {}
  at::Tensor operator()(const at::Tensor& x) const;
  nn::Linear first, second;
};

/// The embedding of the timestep (and of the second conditioning vector, where there is one). One
/// weights::Block, "time_embed".
class TimeEmbedding {
 public:
  TimeEmbedding(const weights::Scope& scope, const UNetConfig& config);

  /// timestep [B], vector [B, V] or undefined, context [B, L, D] or undefined
  /// -> {embedding [B, time_width], context}, both in the compute dtype on the compute device.
  weights::Tensors forward(const at::Tensor& timestep, const at::Tensor& vector,
                           const at::Tensor& context) const;

 private:
  weights::Block block_;
  std::int64_t channels_;
  EmbeddingMlp time_;
  std::optional<EmbeddingMlp> vector_;
};

/// The first convolution, which also brings the latent into the compute dtype and memory format.
/// One weights::Block.
class Entry {
 public:
  Entry(const weights::Scope& scope, const UNetConfig& config);
  /// x [B, C, h, w] and further channels [B, C', h, w] (undefined: none) -> [B, model_channels, h,
  /// w].
  at::Tensor forward(const at::Tensor& x, const at::Tensor& concat) const;

 private:
  weights::Block block_;
  nn::Conv2d conv_;
};

/// One entry of input_blocks or output_blocks, or the middle: any of its parts may be absent.
struct Stage {
  std::string name;
  std::optional<ResBlock> res;
  std::optional<SpatialTransformer> transformer;
  std::optional<ResBlock> second_res;  // the middle's
  std::optional<Downsample> down;
  std::optional<Upsample> up;

  /// All parts but `up`, in the order above; `skip` is stacked below x (undefined: none), edited
  /// with it before; `pictures` lie beside the text, null: none. Moved arguments are freed as soon
  /// as they are used.
  at::Tensor forward(at::Tensor x, at::Tensor skip, const at::Tensor& emb,
                     const at::Tensor& context, Attend attend = Attend::Usual,
                     const ResBlock::Edit& edit = {}, const Prompts* pictures = nullptr) const;
  /// What the tokens of its transformer attend to (SpatialTransformer::received_attention); without
  /// a transformer an undefined tensor.
  at::Tensor received_attention(const at::Tensor& x, const at::Tensor& emb) const;
};

ResBlock make_res_block(const weights::Scope& scope, const UNetConfig& config, std::int64_t in,
                        std::int64_t out);
SpatialTransformer make_transformer(const weights::Scope& scope, const UNetConfig& config,
                                    std::int64_t channels, std::int64_t depth);

/// The first half of a UNet: input_blocks and middle_block with the embedding that goes into them.
struct Encoder {
  Encoder(weights::Manifest& manifest, const UNetConfig& config);

  TimeEmbedding time;
  Entry entry;  // input_blocks.0
  std::vector<Stage> down;
  Stage middle;
};

/// Widths of the outputs of input_blocks.0, 1, ..., one for each.
std::vector<std::int64_t> stage_widths(const UNetConfig& config);

}  // namespace distorch::models::sd
