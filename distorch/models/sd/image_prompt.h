#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "distorch/models/network.h"
#include "distorch/models/sd/unet_config.h"

/// Pictures that the UNet of SDXL looks at beside the text: what an adapter (models/pulid) makes of
/// them are keys and values for every attention to the text, once for a run.
namespace distorch::models::sd {

/// How what the pictures say, p, joins what the text says, t (both [B, L, C]; their shadow is the
/// part of p along t, channel by channel over the places). Source: PuLID_ComfyUI pulid.py,
/// pulid_attention.
enum class PromptJoin {
  Plain,       // t + p
  Orthogonal,  // t + p - shadow
  /// t + p - (1 - a) · shadow, a being the attention that the identity's tokens get on average.
  Faithful,
};

/// Tokens at the beginning that stand for the face itself.
inline constexpr std::int64_t kIdentityTokens = 5;

/// Pictures as a MODEL carries them, on the CPU.
struct ImagePrompt {
  /// [1, tokens, prompt_width()] for positive conditionings and for negative ones: of each of
  /// prompted_layers() the keys, then the values, which hold the strength.
  at::Tensor positive, negative;
  PromptJoin join = PromptJoin::Plain;
  at::Tensor mask;  // [n, H, W] of the picture, where they count; undefined: everywhere
  float sigma_start = 1e9f, sigma_end = 0;  // they count while sigma lies between
};

/// An attention to the text that adapters of SDXL have keys and values for.
struct PromptedLayer {
  std::string stage;          // "input_blocks.4"
  std::int64_t depth = 0;     // the transformer block there
  std::int64_t channels = 0;  // C
  std::int64_t number = 0;    // by which adapters call it: 1, 3, 5, ...
  std::int64_t first = 0;     // of its 2·C numbers in a token of an ImagePrompt
};
/// In the order of execution. The numbers are those of SDXL's 70 layers; a UNet with fewer of them
/// has some, another kind of UNet whichever lie in the same places.
std::vector<PromptedLayer> prompted_layers(const UNetConfig& config);
std::int64_t prompt_width(const UNetConfig& config);

/// Names of the network's inputs for picture i: keys and values, mask, and the number that says how
/// they join.
std::string prompt_input(std::int64_t index);
std::string prompt_mask_input(std::int64_t index);
std::string prompt_join_input(std::int64_t index);
InputSpecs prompt_inputs(const UNetConfig& config);

/// What one attention to the text gets of a picture.
struct BesideText {
  at::Tensor heads;  // [B, tokens, 2·C]
  at::Tensor mask;   // [B, H, W] or undefined
  PromptJoin join = PromptJoin::Plain;
  std::int64_t height = 0, width = 0;  // of the latent
};

/// t with what the picture says: `queries` [B, L, C] asked for t. Computes sums over places in
/// float32.
at::Tensor with_picture(const at::Tensor& t, const at::Tensor& queries, std::int64_t heads,
                        const BesideText& picture);

/// The pictures of one call.
class Prompts {
 public:
  Prompts(const UNetConfig& config, const Inputs& inputs);
  std::vector<BesideText> at(const std::string& stage, std::int64_t depth) const;

 private:
  std::vector<PromptedLayer> layers_;
  std::vector<BesideText> pictures_;  // of all layers
};

}  // namespace distorch::models::sd
