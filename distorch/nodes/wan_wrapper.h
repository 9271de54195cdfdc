#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "distorch/graph/catalog.h"
#include "distorch/nodes/app.h"
#include "distorch/nodes/values.h"
#include "distorch/sampling/wan_schedule.h"
#include "distorch/sampling/wan_solver.h"

namespace distorch::models::audio {
class Wav2Vec2;
}
namespace distorch::models::wan {
class SpeechProjection;
}

/// What travels between the nodes of the WanVideoWrapper, which run on the same networks, weights
/// and streaming as the native ones. LATENT is sampling::Latent [1, C, T, h, w] float32 on the CPU,
/// as everywhere, but in the model's own scale; what only these nodes know of one beside its
/// numbers is in wan_wrapper_latents.h. Source: ComfyUI-WanVideoWrapper (October 2025) and
/// ComfyUI-MultiGPU's variants of its nodes.
namespace distorch::nodes::wan_wrapper {

/// WAV2VECMODEL
struct Wav2Vec {
  std::shared_ptr<Loaded<models::audio::Wav2Vec2>> loaded;
  bool levels = true;  // its sound is brought to the mean 0 and the spread 1
};

/// FANTASYTALKINGMODEL is a pointer to one of these.
struct Speech {
  std::filesystem::path file;
  weights::Checkpoint tensors;
  std::shared_ptr<Loaded<models::wan::SpeechProjection>> projection;
  /// Video models that are open with its layers, by the identity of the model without.
  WeakCache<LoadedDiffusion> models;
};

/// FANTASYTALKING_EMBEDS
struct SpeechEmbeds {
  at::Tensor tokens;   // [1, T, n, width] float32 on the CPU, of each latent frame
  double scale = 1.0;  // how much they count
  /// How much more than without them, by step, the last one for all that follow; 1: no more.
  std::vector<double> cfg = {1.0};
};

/// BLOCKSWAPARGS: so many layers, counted from the last, do not stay on the compute device.
struct BlockSwap {
  std::int64_t blocks = 0, vace_blocks = 0;
  std::string device = "cpu";  // where they rest
};

/// VRAM_MANAGEMENTARGS: this part of the weights does not stay on the compute device.
struct Offload {
  double part = 1.0;
};

/// One entry of a WANVIDLORA.
struct LoraChoice {
  std::string name;
  std::vector<double> strengths;  // of each step, the last one for all that follow
};
using LoraChoices = std::vector<LoraChoice>;

struct FollowedVideo;  // wan_wrapper_control.h

/// WANVIDEOMODEL
struct WanModel {
  /// Open, its weights planned for as `swap` or `offload` say; LoRAs with their first strengths.
  Model model;
  /// How it was opened.
  std::filesystem::path file;
  std::string weight_dtype;
  std::string precision;  // fp32, bf16, fp16, fp16_fast
  std::string compute;    // "": the engine's choice
  std::optional<BlockSwap> swap;
  std::optional<Offload> offload;
  std::shared_ptr<Speech> speech;  // whose layers it has beside its own; null: none
  /// Of each of model.loras, by step.
  std::vector<std::vector<double>> strengths;
  /// What published coefficients of step caches are for, told by the file's name and sizes: "1_3B",
  /// "14B", "i2v_480", "i2v_720", "14B_2.2", "i2v_14B_2.2".
  std::string variant;
  /// What a ControlNet steers it by; null: nothing.
  std::shared_ptr<const FollowedVideo> followed;
};

/// WANTEXTENCODER
struct WanText {
  Clip clip;
  std::filesystem::path file;
  streaming::PlacementRequest placement;
};

/// WANVIDEOTEXTEMBEDS: states [n, width] float32 on the CPU, n tokens of the prompt.
struct TextEmbeds {
  std::vector<at::Tensor> prompts;
  at::Tensor negative;  // undefined: none
};

/// WANVIDIMAGE_CLIPEMBEDS: [1, n, 1280] float32 on the CPU.
struct ClipEmbeds {
  at::Tensor positive, negative;  // undefined: none
};

/// Frames that stand in the latent from its start, "extra_latents" of nodes.
struct ExtraLatent {
  at::Tensor samples;  // [1, C, t, h, w]
  std::int64_t index = 0;
};

/// A picture or video that a model follows in its channels beside the latent.
struct ControlLatents {
  at::Tensor latent;  // [C, T, h, w]
  double start = 0, end = 1;
  at::Tensor reference;  // [1, C, 1, h, w]; undefined: none
};

/// Frames that VACE follows.
struct VaceControl {
  at::Tensor context;  // [96, T, h, w]: what stays, what is made anew, 64 of the mask
  double strength = 1.0;
  double start = 0, end = 1;
};

/// WANVIDIMAGE_EMBEDS: what a video is to be like, beside the text.
struct ImageEmbeds {
  std::int64_t frames = 81;               // of the video
  std::int64_t height = 60, width = 104;  // of the latent, at 8 pixels a cell
  at::Tensor latent;                      // [C, T, h, w] of the pictures given; undefined: none
  at::Tensor mask;                        // [4, T, h, w], 1 = given
  ClipEmbeds clip;
  bool end_image = false;
  bool fun_or_first_last = false;
  bool has_reference = false;  // one latent frame before the video
  std::vector<ExtraLatent> extra;
  std::optional<ControlLatents> control;
  std::vector<VaceControl> vace;
};

/// CACHEARGS: steps that are told from earlier ones. Steps of the run's slice; end -1: to the last.
struct CacheChoice {
  enum class Kind { Tea, Mag, Easy } kind = Kind::Tea;
  double threshold = 0.3;
  std::int64_t start = 1, end = -1;
  bool coefficients = true;  // Tea
  bool parts = false;        // Tea: mode "e0"
  std::int64_t most = 4;     // Mag: steps left out in a row
  bool on_device = false;    // where what is kept lies
};

/// SLGARGS: the negative is computed without these layers.
struct SkippedLayers {
  std::vector<std::int64_t> layers;
  double start = 0.1, end = 1.0;  // parts of the run's slice
};

/// FETAARGS
struct Enhance {
  double weight = 2.0, start = 0.0, end = 1.0;
};

/// EXPERIMENTALARGS
struct Experimental {
  bool zero_star = false, zero_init = false;
  std::int64_t zero_star_steps = 0;
  bool frequencies = false;
  double scale_low = 1.0, scale_high = 1.25;
  std::int64_t cutoff = 20;
  bool tangential = false;
  double raag = 0.0;
  bool both_ways = false;  // the video from its end as well
  bool rescaled_score = false;
  double score_k = 0.95, score_sigma = 1.0;
};

/// WANVIDCONTEXT: a long video is computed in windows of frames.
struct ContextChoice {
  std::string schedule = "uniform_standard";
  std::int64_t frames = 81, stride = 4, overlap = 16;  // pixels' frames
  bool free_noise = true;
  bool pyramid = false;
};

/// LOOPARGS: the video's end meets its start.
struct Loop {
  std::int64_t skip = 6;
  double start = 0.0, end = 1.0;
};

/// A schedule in place of the name of one.
struct ReadySchedule {
  sampling::WanSchedule schedule;
  sampling::SaOdeOptions sa_ode;
};

/// The value at an input as `T`; nothing where none is linked.
template <class T>
std::optional<T> optional_input(const graph::Call& call, const char* name) {
  if (!call.has(name)) return std::nullopt;
  return call.get<T>(name);
}

/// The numbers at an input that takes one, or over a link a list of one for each step. Error(Usage)
/// for an empty list.
std::vector<double> numbers_of_steps(const graph::Call& call, const char* input);

/// WANVAE is a Vae. Error(Usage) where the input holds none, Error(Shape) naming its file where it
/// codes no video.
const Vae& video_vae(const graph::Call& call);

/// Adds the nodes of a file.
void add_loaders(graph::Catalog& catalog, App& app);
void add_lora_nodes(graph::Catalog& catalog, App& app);
void add_text_nodes(graph::Catalog& catalog, App& app);
void add_image_nodes(graph::Catalog& catalog);
void add_vae_nodes(graph::Catalog& catalog);
void add_vace_nodes(graph::Catalog& catalog);
void add_control_nodes(graph::Catalog& catalog, App& app);
void add_setting_nodes(graph::Catalog& catalog);
void add_sampler_nodes(graph::Catalog& catalog);
void add_speech_nodes(graph::Catalog& catalog, App& app);

inline constexpr const char* kModule = "custom_nodes.ComfyUI-WanVideoWrapper";
inline constexpr const char* kCategory = "WanVideoWrapper";
inline constexpr const char* kMultiGpuModule = "custom_nodes.ComfyUI-MultiGPU";
inline constexpr const char* kMultiGpuCategory = "multigpu/WanVideoWrapper";

/// The variant of a node that chooses a device: its name, category and pack.
graph::NodeType multigpu_variant(graph::NodeType node);
/// The list of devices of such variants, the first accelerator by default.
graph::Input device_input(const char* name, const char* usual = nullptr);
/// "main_device" or "offload_device", which make no difference here.
graph::Input load_device_input(const char* usual = "offload_device");
/// Devices of another machine are taken: the engine replaces them and says so.
void take_devices(graph::NodeType& node);
/// The device that a MultiGPU node names; "" elsewhere. Older workflows name it "device" everywhere.
std::string named_device(const graph::Call& call);

}  // namespace distorch::nodes::wan_wrapper

namespace distorch::nodes {

/// All of them.
void add_wan_wrapper_nodes(graph::Catalog& catalog, App& app);

}  // namespace distorch::nodes
