#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "distorch/graph/catalog.h"
#include "distorch/nodes/app.h"
#include "distorch/nodes/clip_vision.h"
#include "distorch/nodes/values.h"
#include "distorch/tokenizers/llama_bpe.h"

/// What travels between the nodes of the HunyuanVideoWrapper, which run on the same network, weights
/// and streaming as the native ones. LATENT is sampling::Latent [1, 16, T, h, w] float32 on the CPU,
/// VAE is Vae, both as everywhere. HYVIDCONTEXT, LOOPARGS and their like that Wan's wrapper has too
/// are its types (wan_wrapper.h). Source: ComfyUI-HunyuanVideoWrapper (May 2025) and
/// ComfyUI-MultiGPU's variants of its nodes.
namespace distorch::nodes::hyvideo {

/// How a model takes a picture.
enum class Condition {
  Concat,     // in channels beside the latent
  Replace,    // as its first frame
  Reference,  // as tokens before the video
};

/// HYVIDEOMODEL
struct HyModel {
  /// Open, its weights planned for as the loader was told, with its LoRAs.
  Model model;
  std::filesystem::path file;
  Condition condition = Condition::Concat;
  /// What noise is drawn in, as the original draws it: a seed means other noise in each type.
  at::ScalarType precision = at::kFloat;
};

/// BLOCKSWAPARGS: so many blocks, counted from the first, do not stay on the compute device.
struct BlockSwap {
  std::int64_t doubles = 0, singles = 0;
};

/// One entry of a HYVIDLORA; `blocks` ("double_blocks.3."): only of these; nothing: of all.
struct LoraChoice {
  std::string name;
  double strength = 1.0;
  std::optional<std::set<std::string>> blocks;
};
using LoraChoices = std::vector<LoraChoice>;
/// SELECTEDBLOCKS
using Blocks = std::set<std::string>;

/// HYVIDTEXTENCODER
struct HyText {
  std::shared_ptr<LoadedEncoder> words;
  std::shared_ptr<const tokenizers::LlamaBpe> vocabulary;
  std::filesystem::path folder;         // that both come from
  bool sees = false;                    // it is a LLaVA, for texts with pictures in them
  ClipVision vision;                    // its vision half; null: the folder has none
  std::shared_ptr<LoadedEncoder> clip;  // null: none
};

/// PROMPT_TEMPLATE: stands around a text, which goes where it has "{}"; the states of the first
/// `crop` tokens are left out.
struct Frame {
  std::string text;
  std::int64_t crop = 0;
};

/// HYVID_CFG
struct Guidance {
  std::string negative;
  double scale = 1.0, start = 0.0, end = 1.0;
  bool together = false;  // both prompts in one call
  bool zero_star = true;
};

/// HYVIDEMBEDS, float32 on the CPU. Undefined: none.
struct Embeds {
  at::Tensor states, negative;         // [1, n, width]
  at::Tensor pooled, negative_pooled;  // [1, width]
  at::Tensor mask, pooled_mask;        // [1, n]: older files have them
  std::optional<Guidance> guidance;    // its text has been encoded
};

/// STGARGS
struct WeakBlock {
  bool apart = true;  // STG-A; else STG-R
  std::int64_t block = 0;
  double scale = 1.0, start = 0.0, end = 1.0;
};

/// FETAARGS
struct Enhance {
  double weight = 2.0;
  bool singles = true, doubles = true;
  double start = 0.0, end = 1.0;
};

/// TEACACHEARGS. Steps of the run; end -1: to the last.
struct TeaCache {
  double threshold = 0.15;
  bool on_device = false;  // where what is kept lies
  std::int64_t start = 0, end = -1;
};

/// FRESCA_ARGS
struct Frequencies {
  double low = 1.0, high = 1.25;
  std::int64_t cutoff = 20;
};

/// SLGARGS: the negative is computed without these blocks.
struct SkippedBlocks {
  std::set<std::string> blocks;  // "double_blocks.3"
  double start = 0.4, end = 0.8;
};

/// The value at an input as `T`; nothing where none is linked.
template <class T>
std::optional<T> optional_input(const graph::Call& call, const char* name) {
  if (!call.node_type().find_input(name) || !call.has(name)) return std::nullopt;
  return call.get<T>(name);
}

/// Adds the nodes of a file.
void add_loaders(graph::Catalog& catalog, App& app);
void add_encoder_nodes(graph::Catalog& catalog, App& app);
void add_text_nodes(graph::Catalog& catalog, App& app);
void add_vae_nodes(graph::Catalog& catalog, App& app);
void add_setting_nodes(graph::Catalog& catalog, App& app);
void add_sampler_nodes(graph::Catalog& catalog);

inline constexpr const char* kModule = "custom_nodes.ComfyUI-HunyuanVideoWrapper";
inline constexpr const char* kCategory = "HunyuanVideoWrapper";
inline constexpr const char* kMultiGpuModule = "custom_nodes.ComfyUI-MultiGPU";
/// Between latents of VAE nodes and the network's.
inline constexpr double kLatentScale = 0.476986;

/// Adds the variant of a node that chooses a device.
void add_device_variant(graph::Catalog& catalog, graph::NodeType node);
/// Its device; "" where the node names none.
std::string named_device(const graph::Call& call);

/// A node that makes one value of its widgets.
graph::NodeType setting(const char* name, const char* title, std::vector<graph::Input> inputs,
                        graph::Output output, void (*run)(graph::Call&));

}  // namespace distorch::nodes::hyvideo

namespace distorch::nodes {

/// All of them.
void add_hyvideo_wrapper_nodes(graph::Catalog& catalog, App& app);

}  // namespace distorch::nodes
