#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "distorch/base/weak_cache.h"
#include "distorch/models/control/control.h"
#include "distorch/models/family.h"
#include "distorch/models/model_patch.h"
#include "distorch/models/patches.h"
#include "distorch/sampling/conditioning.h"
#include "distorch/sampling/guidance_stages.h"
#include "distorch/sampling/ksampler.h"
#include "distorch/streaming/engine.h"
#include "distorch/streaming/streamed_model.h"

/// What travels over the links of a workflow. Every value is immutable and cheap to copy:
///
/// - MODEL: Model; CLIP: Clip; VAE: Vae; CONDITIONING: sampling::Conditioning
/// - CONTROL_NET: ControlNet (control.h)
/// - MODEL_PATCH: ModelPatch (model_patch.h)
/// - LATENT: sampling::Latent, samples [B, C, h, w] or [B, C, T, h, w] float32 on the CPU, as the VAE
///   gives them
/// - IMAGE: at::Tensor [B, H, W, C] float32 0..1 on the CPU
/// - MASK: at::Tensor [B, H, W] or [H, W] float32 0..1 on the CPU
/// - INT, FLOAT, STRING, BOOLEAN: graph::Json (graph::Value::constant)
namespace distorch::nodes {

/// Matched adapters by LoRA file, so that what is used in several places exists once.
using LoraCache = WeakCache<const std::vector<weights::NamedAdapter>>;

struct Replicas;         // replicas.h
struct KeptModulations;  // step_modulations.h

/// A network that is open: its layers, its weights wherever they rest, its names in LoRA files.
template <class Network>
struct Loaded {
  std::unique_ptr<Network> network;
  /// Another one of the same shape without weights, for dry runs.
  std::function<std::unique_ptr<Network>()> make;
  std::shared_ptr<streaming::StreamedModel> weights;  // points into network
  models::LoraNames lora_names;
  LoraCache loras;
  std::string identity;  // of its weights and where they go
  streaming::PlacementRequest placement;
  /// Removes a file of mixed weights with the model; empty for others.
  std::shared_ptr<const void> file_guard;
  /// The same network on other devices; null: there has been none.
  std::shared_ptr<Replicas> replicas;
};

/// A diffusion model that is open.
struct LoadedDiffusion : Loaded<models::Network> {
  std::shared_ptr<const models::Family> family;
  std::shared_ptr<const sampling::ModelSampling> sampling;
  /// What runs before have made of it; null: nothing.
  std::shared_ptr<KeptModulations> modulations;
};

using LoadedVae = Loaded<models::VaeNetwork>;

/// `loaded` is null where a checkpoint holds no autoencoder.
struct Vae {
  std::shared_ptr<LoadedVae> loaded;
};

/// What one of the model patches of a MODEL looks at (model_patch.h).
struct PatchUse {
  Vae vae;
  at::Tensor image;    // [B, H, W, 3] 0..1 on the CPU; undefined: none, where the patch inpaints
  at::Tensor inpaint;  // the picture that is filled in, of that form; undefined: none
  at::Tensor keep;     // [B, 1, H, W], 1 = keep; undefined: all
  double strength = 1.0;
  models::PatchPicture picture;
};

struct Model {
  std::shared_ptr<LoadedDiffusion> loaded;
  std::vector<streaming::LoraUse> loras;
  /// Noise levels in place of the loaded model's own; null: none.
  std::shared_ptr<const sampling::ModelSampling> sampling;
  /// A latent format in place of the family's.
  std::optional<models::LatentFormat> latent;
  sampling::GuidanceStages guidance;
  models::Patches patches;
  /// By the patches that the loaded model has, in order.
  std::vector<PatchUse> patch_uses;
  /// The most devices that conditionings may be computed on at the same time; 0: as the settings
  /// say (team.h).
  int most_devices = 0;

  const sampling::ModelSampling& noise_levels() const {
    return sampling ? *sampling : *loaded->sampling;
  }
  const models::LatentFormat& latent_format() const {
    return latent ? *latent : loaded->family->latent();
  }
};

/// A ControlNet or T2I-adapter that is open.
struct LoadedControl : Loaded<models::control::ControlNetwork> {
  /// Of each residual only its mean over the picture counts.
  bool averaged = false;
  /// Weights that are a UNet's, and how the network's file changes them.
  std::set<std::string> from_unet;
  std::vector<streaming::LoraUse> changes;

  /// The LoRAs of the UNet, as far as they concern weights that this network has from it, and its
  /// own changes to those.
  std::vector<streaming::LoraUse> loras_over(const std::vector<streaming::LoraUse>& unet);
};

/// A file that holds changes to a UNet's weights instead of a ControlNet's own.
struct ControlOverlay {
  std::filesystem::path path;
  streaming::PlacementRequest placement;
};

/// A text encoder that is open.
struct LoadedEncoder : Loaded<models::TextEncoder> {
  std::string name;  // "clip_l", "clip_g", ...: its tensor in textual inversion files
};

/// The text encoders of a model and how what they give is joined.
struct LoadedText {
  std::vector<std::shared_ptr<LoadedEncoder>> encoders;
  models::TextRecipe::Join join = nullptr;
};

/// `loaded` is null where a checkpoint holds no text encoder.
struct Clip {
  std::shared_ptr<LoadedText> loaded;
  /// By encoder; a shorter list: the others have none.
  std::vector<std::vector<streaming::LoraUse>> loras;
  std::optional<int> layer;  // of CLIPSetLastLayer
};

}  // namespace distorch::nodes
