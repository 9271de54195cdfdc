#pragma once
#include <map>
#include <string>
#include <vector>

#include "distorch/weights/checkpoint.h"

namespace distorch::models::flux {

/// Where the tokens of reference pictures lie to those of the picture that is made.
enum class ReferenceMethod {
  Offset,  // beside it, each at the end of the others, in the direction that stays smaller
  Index,   // at the same place, each on an index of its own
  Uxo,     // behind its lower right corner, one after the other
  /// As Index; the reference tokens are modulated as if they were free of noise.
  IndexTimestepZero,
};

/// FLUX.1 and FLUX.2, read off the shapes of a checkpoint with original names.
struct Config {
  std::int64_t hidden = 3072;
  std::int64_t head = 128;   // width of one
  std::int64_t mlp = 12288;  // width between the two layers
  std::int64_t depth = 19;   // double blocks
  std::int64_t single_depth = 38;
  std::int64_t in_channels = 16;  // latent and what lies beside it
  std::int64_t out_channels = 16;
  std::int64_t patch = 2;  // latent cells a token, each way
  std::int64_t context_width = 4096;
  std::int64_t vector_width = 768;  // of the pooled text; 0: none
  bool guidance = true;
  bool qkv_bias = true;
  bool bias = true;  // of all other layers
  /// FLUX.2: one modulation for all double blocks and one for all single ones.
  bool shared_modulation = false;
  bool gated_mlp = false;                         // FLUX.2: silu(gate) · x in place of GELU
  std::vector<std::int64_t> axes = {16, 56, 56};  // numbers of a head that each axis turns
  double theta = 10000;
  /// The axis along which text tokens are counted; -1: all lie at 0.
  int text_axis = -1;
  ReferenceMethod reference = ReferenceMethod::Offset;
  double reference_step = 1;      // index between two of them
  bool keeps_references = false;  // may keep what it makes of them (reference_cache.h)

  std::int64_t heads() const { return hidden / head; }
};

/// `tensors` has original names.
Config config_of(const weights::Checkpoint& tensors);

/// The tensors under original names where they are a FLUX model's (original or diffusers names);
/// else empty.
weights::Checkpoint flux_tensors(const weights::Checkpoint& below);

/// Where a tensor of diffusers' naming lies in the original: all rows of a weight, or some.
struct OriginalPlace {
  std::string name;
  std::int64_t first_row = 0;
  std::int64_t rows = 0;  // 0: all
  /// The halves of the rows stand the other way round (scale and shift).
  bool swapped = false;
};

/// Diffusers' names of all layers, without the ending ("weight", "bias"): for files of that naming
/// and for LoRA files. A tensor that both namings write alike is left out. Names of norms lead to
/// the whole name of their tensor ("....scale"). Source: diffusers FluxTransformer2DModel and
/// Flux2Transformer2DModel.
std::map<std::string, OriginalPlace> diffusers_places(const Config& config);

/// The tensors under original names, by the places of what they are called; what has no place keeps
/// its name.
weights::Checkpoint with_original_names(const weights::Checkpoint& below,
                                        const std::map<std::string, OriginalPlace>& places);

}  // namespace distorch::models::flux
