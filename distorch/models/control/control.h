#pragma once
#include <ATen/core/Tensor.h>

#include <compare>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distorch/models/network.h"
#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

/// Networks that steer a UNet by a picture: ControlNets and T2I-adapters. They give residuals, which
/// the UNet adds at named places.
namespace distorch::models::control {

/// Where a UNet adds a residual: to the output of an entry of input_blocks before anything else sees
/// it (Input), to the output of the middle (Middle), or to the skip connection that comes from an
/// entry of input_blocks (Skip), [B, C, h, w] of that tensor each. Where a transformer does: to the
/// image tokens behind a block (Block), [B, n, width] for the first n.
struct Place {
  enum class At { Input, Middle, Skip, Block };
  At at = At::Middle;
  int block = 0;  // of input_blocks, or of the transformer
  auto operator<=>(const Place&) const = default;
};
/// The name of a place among a model's inputs: "control_input.3", "control_middle",
/// "control_output.11" (skip connections count as the entry of input_blocks they come from),
/// "control_block.7".
std::string name_of(const Place& place);

/// What a network wants of the picture that steers it.
struct HintFormat {
  std::int64_t channels = 3;  // 1: of a picture in colours, their mean
  std::int64_t multiple = 1;  // height and width are rounded up to a multiple of it, in pixels
  /// The picture as a latent of the VAE that belongs to the model, [B, channels, (T,) h, w].
  bool latent = false;
  /// A mask (1 = keep) is its last channel.
  bool masked = false;
};

/// A network that steers a UNet. encode() is for what does not change from step to step.
class ControlNetwork {
 public:
  virtual ~ControlNetwork() = default;
  virtual weights::Manifest& manifest() = 0;
  virtual HintFormat hint() const = 0;
  /// Where the residuals go.
  virtual const std::vector<Place>& places() const = 0;
  /// Kinds of control that one of them is chosen from (union networks); 0: it knows one kind.
  virtual int control_types() const { return 0; }

  /// hint [B, channels, H, W] 0..1 on the compute device, H and W those of the picture that is made
  /// (rounded up as hint() says), or a latent of that size; `type`: which kind of control, where there are several (unset: not
  /// told). Gives those inputs of apply() whose source is Control, or the residuals themselves by
  /// name_of(place) where nothing runs at each step. Error(Usage) for a type that the network does
  /// not know, Error(Shape) for a hint of other channels.
  virtual Inputs encode(const at::Tensor& hint, std::optional<int> type) const = 0;

  /// What apply() is called with at each step; empty: it is not called.
  virtual const InputSpecs& inputs() const = 0;
  /// All residuals as one tensor in the compute dtype, so that a whole step is a recording. What
  /// encode() gave may have 1 in place of the batch. Error(Shape) where an input does not fit.
  virtual at::Tensor apply(const Inputs& inputs) const = 0;
  /// The residuals by name_of(place): views of what apply() gave for x of this shape.
  virtual Inputs residuals(const at::Tensor& packed, at::IntArrayRef x) const = 0;
};

/// The tensors of a file under the names of original checkpoints: ControlNets ("control_model." or
/// no prefix, or diffusers names), union ControlNets, T2I-adapters (original or diffusers names).
/// Empty where it holds none of them.
weights::Checkpoint control_part(const weights::Checkpoint& file);

/// Whether the tensors of a ControlNet are no weights of their own but what is to be added to those
/// of the UNet ("difference"), or low-rank factors of that ("lora_controlnet").
enum class Stored { Whole, Difference, LowRank };
Stored stored_as(const weights::Checkpoint& file);

/// A ControlNet that changes a UNet's weights instead of having its own.
struct Merged {
  weights::Checkpoint part;            // byte ranges of both files
  std::vector<std::string> from_unet;  // names of those that are the UNet's
  weights::Checkpoint changes;         // to those, spelled as a LoRA's tensors
};
/// `file` is Difference or LowRank; `unet` has original names. Source: ComfyUI comfy/controlnet.py,
/// ControlLora and load_controlnet_state_dict.
Merged control_over(const weights::Checkpoint& file, const weights::Checkpoint& unet);

/// Declares the network whose tensors `part` has. Error(Format) naming the file where it holds none
/// that is known.
std::unique_ptr<ControlNetwork> make_control(const weights::Checkpoint& part);

/// Kinds of control of the published union ControlNets, in order. Source: ComfyUI
/// comfy/cldm/control_types.py.
const std::vector<std::string>& union_control_types();

}  // namespace distorch::models::control
