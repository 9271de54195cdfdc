#include "distorch/models/wan/config.h"

#include <fmt/format.h>

#include <array>
#include <string_view>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::wan {

using weights::Checkpoint;

std::vector<std::int64_t> Config::axes() {
  constexpr std::int64_t side = 2 * (kHeadWidth / 6);
  return {kHeadWidth - 2 * side, side, side};
}

bool Config::image_to_video() const {
  constexpr std::int64_t first_frame_channels = 36, second_vae_channels = 48;
  return out_channels == second_vae_channels ||
         (vision_width > 0 && camera_channels == 0 && face_layers == 0 &&
          in_channels == first_frame_channels);
}

namespace {

using Names = std::pair<std::string_view, std::string_view>;

// What diffusers calls the layers beside the blocks, and inside a block. Source: diffusers
// transformer_wan.py, WanTransformer3DModel.
constexpr std::array<Names, 14> kOutside = {{
    {"condition_embedder.time_embedder.linear_1.", "time_embedding.0."},
    {"condition_embedder.time_embedder.linear_2.", "time_embedding.2."},
    {"condition_embedder.text_embedder.linear_1.", "text_embedding.0."},
    {"condition_embedder.text_embedder.linear_2.", "text_embedding.2."},
    {"condition_embedder.time_proj.", "time_projection.1."},
    {"condition_embedder.image_embedder.norm1.", "img_emb.proj.0."},
    {"condition_embedder.image_embedder.ff.net.0.proj.", "img_emb.proj.1."},
    {"condition_embedder.image_embedder.ff.net.2.", "img_emb.proj.3."},
    {"condition_embedder.image_embedder.norm2.", "img_emb.proj.4."},
    {"condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos"},
    {"scale_shift_table", "head.modulation"},
    {"proj_out.", "head.head."},
    {"patch_embedding.", "patch_embedding."},
    {"vace_patch_embedding.", "vace_patch_embedding."},
}};
constexpr std::array<Names, 21> kInside = {{
    {"attn1.to_q.", "self_attn.q."},
    {"attn1.to_k.", "self_attn.k."},
    {"attn1.to_v.", "self_attn.v."},
    {"attn1.to_out.0.", "self_attn.o."},
    {"attn1.norm_q.", "self_attn.norm_q."},
    {"attn1.norm_k.", "self_attn.norm_k."},
    {"attn2.to_q.", "cross_attn.q."},
    {"attn2.to_k.", "cross_attn.k."},
    {"attn2.to_v.", "cross_attn.v."},
    {"attn2.to_out.0.", "cross_attn.o."},
    {"attn2.norm_q.", "cross_attn.norm_q."},
    {"attn2.norm_k.", "cross_attn.norm_k."},
    {"attn2.add_k_proj.", "cross_attn.k_img."},
    {"attn2.add_v_proj.", "cross_attn.v_img."},
    {"attn2.norm_added_k.", "cross_attn.norm_k_img."},
    {"norm2.", "norm3."},
    {"ffn.net.0.proj.", "ffn.0."},
    {"ffn.net.2.", "ffn.2."},
    {"scale_shift_table", "modulation"},
    {"proj_in.", "before_proj."},
    {"proj_out.", "after_proj."},
}};

template <std::size_t N>
std::string renamed(const std::string& name, const std::array<Names, N>& table) {
  for (const auto& [from, to] : table)
    if (name.starts_with(from)) return std::string(to) + name.substr(from.size());
  return name;
}

std::string original_name(const std::string& name) {
  for (std::string_view blocks : {"blocks.", "vace_blocks."}) {
    if (!name.starts_with(blocks)) continue;
    auto dot = name.find('.', blocks.size());
    if (dot == std::string::npos) return name;
    return name.substr(0, dot + 1) + renamed(name.substr(dot + 1), kInside);
  }
  return renamed(name, kOutside);
}

/// Of the layers that with_speech() adds (speech.h).
constexpr const char* kSpeechKeys = "blocks.0.cross_attn.k_proj.weight";

/// A part of a relative that needs more than this network has.
constexpr const char* kForeign = "audio_proj.audio_proj_glob_1.layer.bias";

}  // namespace

Checkpoint renamed_layers(const Checkpoint& theirs) {
  auto part = theirs;
  for (const auto& [name, stored] : theirs.tensors())
    if (auto original = original_name(name); original != name) part.rename(name, original);
  return part;
}

Checkpoint with_original_names(const Checkpoint& below) {
  const bool theirs =
      below.has("condition_embedder.time_proj.weight") && below.has("scale_shift_table");
  auto part = theirs ? renamed_layers(below) : below;
  if (!part.has("head.modulation") || !part.has("head.head.weight") ||
      !part.has("patch_embedding.weight") || !part.has("blocks.0.ffn.0.weight"))
    return {};
  if (part.has(kForeign)) return {};
  return part;
}

Config config_of(const Checkpoint& part) {
  Config c;
  c.width = size_of(part, "patch_embedding.weight", 0);
  c.in_channels = size_of(part, "patch_embedding.weight", 1);
  c.out_channels = size_of(part, "head.head.weight", 0) / (kPatch * kPatch);
  c.mlp_width = size_of(part, "blocks.0.ffn.0.weight", 0);
  c.text_width = size_of(part, "text_embedding.0.weight", 1);
  c.sinusoids = size_of(part, "time_embedding.0.weight", 1);
  c.layers = part.count("blocks.");
  if (part.has("img_emb.proj.1.weight")) c.vision_width = size_of(part, "img_emb.proj.1.weight", 1);
  if (part.has("img_emb.emb_pos")) c.vision_places = size_of(part, "img_emb.emb_pos", 1);
  if (part.has(kSpeechKeys)) c.speech_width = size_of(part, kSpeechKeys, 1);
  if (part.has("ref_conv.weight")) c.reference_channels = size_of(part, "ref_conv.weight", 1);
  if (part.has("vace_patch_embedding.weight")) {
    c.vace_channels = size_of(part, "vace_patch_embedding.weight", 1);
    c.vace_layers = part.count("vace_blocks.");
    if (c.vace_layers == 0)
      throw Error(ErrorKind::MissingWeight, part.path(),
                  "has 'vace_patch_embedding.weight' and no layers 'vace_blocks.0'");
  } else if (part.has("control_adapter.conv.weight")) {
    c.camera_channels = size_of(part, "control_adapter.conv.weight", 1) / (kRayPixels * kRayPixels);
    c.camera_layers = part.count("control_adapter.residual_blocks.");
  } else if (part.has("casual_audio_encoder.encoder.final_linear.weight")) {
    c.audio_layers = size_of(part, "casual_audio_encoder.weights", 1);
    c.audio_width = size_of(part, "casual_audio_encoder.encoder.conv1_local.conv.weight", 1);
  } else if (part.has("face_adapter.fuser_blocks.0.k_norm.weight")) {
    c.face_layers = part.count("face_adapter.fuser_blocks.");
  }
  if (c.width % Config::kHeadWidth != 0)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("holds a Wan transformer of width {}, which is no multiple of its "
                            "heads' {}",
                            c.width, Config::kHeadWidth));
  if (c.in_channels < c.out_channels)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("holds a Wan transformer that takes {} channels and gives {}",
                            c.in_channels, c.out_channels));
  return c;
}

}  // namespace distorch::models::wan
