#include "distorch/models/hunyuan_video/config.h"

#include <fmt/format.h>

#include <array>
#include <string_view>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::hunyuan_video {

using weights::Checkpoint;

namespace {

using Names = std::pair<std::string_view, std::string_view>;

// Parts of Tencent's names and ours, in the order of replacing. Source: ComfyUI
// comfy/supported_models.py, HunyuanVideo.process_unet_state_dict.
constexpr std::array<Names, 18> kTencent = {{
    {"txt_in.t_embedder.mlp.0.", "txt_in.t_embedder.in_layer."},
    {"txt_in.t_embedder.mlp.2.", "txt_in.t_embedder.out_layer."},
    {"txt_in.c_embedder.linear_1.", "txt_in.c_embedder.in_layer."},
    {"txt_in.c_embedder.linear_2.", "txt_in.c_embedder.out_layer."},
    {"_mod.linear.", "_mod.lin."},
    {"_attn_qkv.", "_attn.qkv."},
    {"mlp.fc1.", "mlp.0."},
    {"mlp.fc2.", "mlp.2."},
    {"_attn_q_norm.weight", "_attn.norm.query_norm.scale"},
    {"_attn_k_norm.weight", "_attn.norm.key_norm.scale"},
    {".q_norm.weight", ".norm.query_norm.scale"},
    {".k_norm.weight", ".norm.key_norm.scale"},
    {"_attn_proj.", "_attn.proj."},
    {".modulation.linear.", ".modulation.lin."},
    {"_in.mlp.0.", "_in.in_layer."},
    {"_in.mlp.2.", "_in.out_layer."},
    {".query_norm.weight", ".query_norm.scale"},
    {".key_norm.weight", ".key_norm.scale"},
}};

void replace(std::string& text, std::string_view from, std::string_view to) {
  if (auto at = text.find(from); at != std::string::npos) text.replace(at, from.size(), to);
}

std::string our_name(std::string name) {
  for (const auto& [from, to] : kTencent) replace(name, from, to);
  return name;
}

const std::string kRefiner = "txt_in.individual_token_refiner.blocks.";

/// What diffusers' tensors tell of the sizes that its names are mapped by.
Config diffusers_config(const Checkpoint& below) {
  Config c;
  c.hidden = size_of(below, "x_embedder.proj.weight", 0);
  c.mlp = size_of(below, "transformer_blocks.0.ff.net.2.weight", 1);
  c.depth = below.count("transformer_blocks.");
  c.single_depth = below.count("single_transformer_blocks.");
  c.refiner_depth = below.count("context_embedder.token_refiner.refiner_blocks.");
  return c;
}

void add_refiner(std::map<std::string, flux::OriginalPlace>& places, const Config& c,
                 std::int64_t index) {
  auto from = fmt::format("context_embedder.token_refiner.refiner_blocks.{}.", index);
  auto to = fmt::format("{}{}.", kRefiner, index);
  auto D = c.hidden;
  places[from + "attn.to_q"] = {to + "self_attn.qkv", 0, D};
  places[from + "attn.to_k"] = {to + "self_attn.qkv", D, D};
  places[from + "attn.to_v"] = {to + "self_attn.qkv", 2 * D, D};
  for (const auto& [theirs, ours] : std::initializer_list<std::pair<const char*, const char*>>{
           {"attn.to_out.0", "self_attn.proj"},
           {"ff.net.0.proj", "mlp.0"},
           {"ff.net.2", "mlp.2"},
           {"norm1", "norm1"},
           {"norm2", "norm2"},
           {"norm_out.linear", "adaLN_modulation.1"}})
    places[from + theirs] = {to + ours};
}

}  // namespace

flux::Config Config::blocks() const {
  flux::Config c;
  c.hidden = hidden;
  c.head = head;
  c.mlp = mlp;
  c.depth = depth;
  c.single_depth = single_depth;
  c.out_channels = out_channels;
  c.patch = patch;
  auto first = head / 8 / 2 * 2;
  c.axes = {first, (head - first) / 2, (head - first) / 2};
  c.theta = kTheta;
  return c;
}

std::map<std::string, flux::OriginalPlace> diffusers_places(const Config& config) {
  auto places = flux::diffusers_places(config.blocks());
  for (const char* other : {"x_embedder", "context_embedder"}) places.erase(other);
  for (const auto& [theirs, ours] : std::initializer_list<std::pair<std::string, const char*>>{
           {"x_embedder.proj", "img_in.proj"},
           {"context_embedder.proj_in", "txt_in.input_embedder"},
           {"context_embedder.time_text_embed.timestep_embedder.linear_1",
            "txt_in.t_embedder.in_layer"},
           {"context_embedder.time_text_embed.timestep_embedder.linear_2",
            "txt_in.t_embedder.out_layer"},
           {"context_embedder.time_text_embed.text_embedder.linear_1",
            "txt_in.c_embedder.in_layer"},
           {"context_embedder.time_text_embed.text_embedder.linear_2",
            "txt_in.c_embedder.out_layer"}})
    places[theirs] = {ours};
  for (std::int64_t i = 0; i < config.refiner_depth; ++i) add_refiner(places, config, i);
  return places;
}

Checkpoint with_our_names(const Checkpoint& below) {
  auto part = below;
  if (below.has("x_embedder.proj.weight") &&
      below.has_prefix("context_embedder.token_refiner.refiner_blocks.0.") &&
      below.has("transformer_blocks.0.attn.add_q_proj.weight")) {
    part = flux::with_original_names(below, diffusers_places(diffusers_config(below)));
  } else if (below.has(kRefiner + "0.norm1.weight")) {
    for (const auto& [name, stored] : below.tensors())
      if (auto ours = our_name(name); ours != name) part.rename(name, ours);
  }
  const auto* first = part.find("img_in.proj.weight");
  if (!first || first->shape.size() != 5 || !part.has(kRefiner + "0.norm1.weight")) return {};
  const std::vector<std::int64_t> patch(first->shape.begin() + 2, first->shape.end());
  if (part.has("vision_in.proj.0.weight"))
    return patch == std::vector<std::int64_t>{1, 1, 1} ? part : Checkpoint{};
  if (patch != std::vector<std::int64_t>{1, kPatch, kPatch} || part.has_prefix("byt5_in.") ||
      part.has_prefix("time_r_in."))
    return {};
  return part;
}

Config config_of(const Checkpoint& part) {
  Config c;
  auto size = [&](const char* name, std::size_t dim) { return size_of(part, name, dim); };
  c.hidden = size("img_in.proj.weight", 0);
  c.in_channels = size("img_in.proj.weight", 1);
  c.patch = size("img_in.proj.weight", 4);
  c.out_channels = size("final_layer.linear.weight", 0) / (c.patch * c.patch);
  c.text_width = size("txt_in.input_embedder.weight", 1);
  c.vector_width = part.has_prefix("vector_in.") ? size("vector_in.in_layer.weight", 1) : 0;
  c.guidance = part.has_prefix("guidance_in.");
  c.head = size("double_blocks.0.img_attn.norm.key_norm.scale", 0);
  c.mlp = size("double_blocks.0.img_mlp.2.weight", 1);
  c.depth = part.count("double_blocks.");
  c.single_depth = part.count("single_blocks.");
  c.refiner_depth = part.count(kRefiner);
  auto fails = [&](const std::string& why) {
    throw Error(ErrorKind::Shape, part.path(), "holds a HunyuanVideo transformer " + why);
  };
  if (part.has("vision_in.proj.0.weight")) c.vision_width = size("vision_in.proj.0.weight", 0);
  if (part.has("byt5_in.fc1.weight")) {
    c.glyph_width = size("byt5_in.fc1.weight", 1);
    c.glyph_hidden = size("byt5_in.fc1.weight", 0);
    c.glyph_out = size("byt5_in.fc2.weight", 0);
  }
  c.marked_kinds = part.has("cond_type_embedding.weight");
  if (part.has_prefix("time_r_in."))
    fails(
        "that was distilled to be told the next noise level too ('time_r_in.*'), which is not "
        "supported: take the model that was not distilled, or one distilled for guidance alone");
  constexpr std::int64_t smallest_head = 8;
  if (c.head % smallest_head != 0 || c.hidden % c.head != 0)
    fails(fmt::format("of width {}, which heads of {} do not divide", c.hidden, c.head));
  if (c.is_15() && c.beside() != c.out_channels + 1)
    fails(
        fmt::format("1.5 that takes {} channels and gives {}: known are those that take one more "
                    "than twice as many",
                    c.in_channels, c.out_channels));
  if (c.beside() != 0 && c.beside() != c.out_channels && c.beside() != c.out_channels + 1)
    fails(
        fmt::format("that takes {} channels and gives {}: known are those that take as many, "
                    "twice as many, or one more than that",
                    c.in_channels, c.out_channels));
  return c;
}

}  // namespace distorch::models::hunyuan_video
