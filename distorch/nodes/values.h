#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distorch/models/catalog.h"
#include "distorch/models/clip/text_model.h"
#include "distorch/models/lora_names.h"
#include "distorch/models/vae/autoencoder.h"
#include "distorch/sampling/conditioning.h"
#include "distorch/sampling/ksampler.h"
#include "distorch/streaming/streamed_model.h"
#include "distorch/tokenizers/clip_tokenizer.h"

/// What travels over the links of a workflow. Every value is immutable and cheap to copy:
///
/// - MODEL: Model; CLIP: Clip; VAE: Vae; CONDITIONING: sampling::Conditioning
/// - LATENT: sampling::Latent, samples [B, C, h, w] float32 on the CPU, as the VAE gives them
/// - IMAGE: at::Tensor [B, H, W, C] float32 0..1 on the CPU
/// - MASK: at::Tensor [B, H, W] or [H, W] float32 0..1 on the CPU
/// - INT, FLOAT, STRING, BOOLEAN: graph::Json (graph::Value::constant)
namespace distorch::nodes {

/// Matched patches by LoRA file, so that a file is read once for a model.
using LoraCache = std::map<std::string, std::shared_ptr<const std::vector<weights::NamedPatch>>>;

/// A diffusion model that is open: its layers, its weights wherever they rest, its noise levels.
struct LoadedDiffusion {
  const models::ModelFamily* family = nullptr;
  std::unique_ptr<models::DiffusionModel> network;
  std::shared_ptr<streaming::StreamedModel> weights;  // points into network
  std::shared_ptr<const sampling::ModelSampling> sampling;
  std::int64_t in_channels = 4;  // of the first convolution: latent and what is concatenated to it
  std::int64_t context_width = 0;  // of text states
  models::LoraNames lora_names;
  LoraCache loras;
};

struct Model {
  std::shared_ptr<LoadedDiffusion> loaded;
  std::vector<streaming::LoraUse> loras;
};

/// A text encoder that is open, with its tokenizer.
struct LoadedText {
  std::unique_ptr<models::clip::TextModel> network;
  std::shared_ptr<streaming::StreamedModel> weights;
  std::unique_ptr<tokenizers::ClipTokenizer> tokenizer;
  std::string embedding_key;  // "clip_l", "clip_h": its tensor in textual inversion files
  models::LoraNames lora_names;
  LoraCache loras;
};

/// `loaded` is null where a checkpoint holds no text encoder.
struct Clip {
  std::shared_ptr<LoadedText> loaded;
  std::vector<streaming::LoraUse> loras;
  std::optional<int> layer;  // of CLIPSetLastLayer
};

struct LoadedVae {
  std::unique_ptr<models::vae::Autoencoder> network;
  std::shared_ptr<streaming::StreamedModel> weights;
};

/// `loaded` is null where a checkpoint holds no autoencoder.
struct Vae {
  std::shared_ptr<LoadedVae> loaded;
};

}  // namespace distorch::nodes
