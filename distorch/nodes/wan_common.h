#pragma once
#include <ATen/core/Tensor.h>

#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "distorch/graph/catalog.h"
#include "distorch/nodes/vae_coding.h"
#include "distorch/sampling/conditioning.h"

/// What the nodes of Wan's video models share, and those of others use. Source: ComfyUI comfy_extras/nodes_wan.py.
namespace distorch::nodes::wan {

inline constexpr std::int64_t kFramesOfCell = 4, kPixelsOfCell = 8, kChannels = 16;
inline constexpr float kGray = 0.5f;

/// Latent frames of so many frames: the first alone, then four at a time.
std::int64_t latent_frames(std::int64_t frames);

/// The wanted video's size, as all of these nodes ask for it. Frames that make no whole latent frame
/// are told once a node (ComfyUI's rule: lengths are 4n + 1).
struct Wish {
  explicit Wish(graph::Call& call);
  Wish(graph::Call& call, std::int64_t width, std::int64_t height, std::int64_t batch);

  at::Tensor blank(std::int64_t channels = kChannels, std::int64_t pixels = kPixelsOfCell) const;
  /// Frames [T, H, W, C] in the wanted size, in colour.
  at::Tensor fitted(const at::Tensor& frames, const char* method = "bilinear") const;
  /// A gray video.
  at::Tensor gray() const;
  /// The same to be encoded: without numbers where only plans are wanted.
  at::Tensor canvas(graph::Call& call) const;
  /// The first frames of a linked picture or video; undefined where none is linked.
  at::Tensor first_of(graph::Call& call, const char* input) const;
  /// The last ones.
  at::Tensor last_of(graph::Call& call, const char* input) const;

  std::int64_t width, height, length, batch;
};

/// The node's VAE, which has to be one of so many channels: Wan 2.1's of 16, Wan 2.2's of 48.
/// Error(Shape) that names its file and what would fit.
VaeCoding vae_of(graph::Call& call, std::int64_t channels = kChannels);

/// Masks by frame [1, 1, 4 · T, h, w] -> with a channel for each frame of a cell [1, 4, T, h, w].
at::Tensor by_cell(const at::Tensor& mask);

/// What one node puts on every item of both conditionings.
struct Given {
  std::map<std::string, at::Tensor> tensors;
  /// Behind those that an item has.
  std::vector<at::Tensor> references;
  std::map<std::string, double> numbers;
  /// [1, 1, ...] each, behind those that an item has under that name, in dimension 1.
  std::map<std::string, at::Tensor> appended;
};
/// Error(Shape) where what is appended has other sizes than what is there.
sampling::Conditioning with(sampling::Conditioning conditioning, const Given& given);

/// Both conditionings with that, and the latent: the first three outputs. `instead`: what the
/// negative one gets in place of tensors of the same names.
void answer(graph::Call& call, const Given& given, at::Tensor samples,
            const std::map<std::string, at::Tensor>& instead = {});

/// What a VAE of so many channels encodes where the network sees zeros, [B, C, T, h, w].
at::Tensor nothing(at::IntArrayRef sizes);
/// The first frames of `given` in place of those of `latent` [B, C, T, h, w], from that channel on.
void put(const at::Tensor& latent, std::int64_t first_channel, const at::Tensor& given);

/// What a picture encoder saw, of one or two pictures, where any is linked.
void add_vision(graph::Call& call, std::initializer_list<const char*> inputs, Given& given);

/// The inputs of sizes, with these defaults.
std::vector<graph::Input> sizes(std::int64_t width, std::int64_t height, std::int64_t length,
                                std::int64_t step = 16);

/// A node of conditionings, VAE and sizes; more inputs behind those, the optional ones last.
struct Conditioned {
  const char* name;
  std::vector<graph::Input> more;
  void (*run)(graph::Call&);
  std::vector<graph::Input> required = {};
  std::int64_t length = 81;
};
/// To change what is not as in most, before it is added.
graph::NodeType conditioned(Conditioned node);

}  // namespace distorch::nodes::wan

namespace distorch::nodes {

// The nodes of each file; add_wan_video_nodes (catalog.h) adds them all.
void add_wan_control_nodes(graph::Catalog& catalog);
void add_wan_camera_nodes(graph::Catalog& catalog);
void add_wan_motion_nodes(graph::Catalog& catalog);

}  // namespace distorch::nodes
