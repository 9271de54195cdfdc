#include "distorch/models/flux/config.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::flux {

using weights::Checkpoint;

namespace {

/// The axes of heads of 128 numbers, in proportion for others.
std::vector<std::int64_t> axes_of(std::int64_t head, bool second) {
  if (second) return {head / 4, head / 4, head / 4, head / 4};
  auto first = head / 8 / 2 * 2;
  return {first, (head - first) / 2, (head - first) / 2};
}

/// Newer files call the norms' weights as all others.
void name_norms(Checkpoint& tensors) {
  std::vector<std::string> names;
  for (const auto& [name, stored] : tensors.tensors())
    if (name.ends_with("_norm.weight")) names.push_back(name);
  for (const auto& name : names) tensors.rename(name, name.substr(0, name.size() - 6) + "scale");
}

/// What diffusers' tensors tell of the sizes that its names are mapped by.
Config diffusers_config(const Checkpoint& below) {
  Config config;
  config.hidden = below.shape("x_embedder.weight").at(0);
  config.depth = below.count("transformer_blocks.");
  config.single_depth = below.count("single_transformer_blocks.");
  config.shared_modulation = below.has("double_stream_modulation_img.linear.weight");
  config.gated_mlp = config.shared_modulation;
  return config;
}

/// Several tensors of the file that are rows of one.
struct Pieces {
  std::map<std::int64_t, weights::Stored> by_row;
};

void add_swapped(Checkpoint& to, const std::string& name, const weights::Stored& stored) {
  Checkpoint halves;
  if (stored.shape.empty())
    throw Error(ErrorKind::Shape, to.path(), fmt::format("'{}' is made of a scalar", name));
  auto half = stored.shape[0] / 2;
  halves.add_rows("second", stored, half, half);
  halves.add_rows("first", stored, 0, half);
  to.add_joined(name, {*halves.find("second"), *halves.find("first")});
}

bool is_original(const Checkpoint& tensors) {
  return tensors.has("img_in.weight") && tensors.has("txt_in.weight") &&
         tensors.has("double_blocks.0.img_attn.norm.key_norm.scale") &&
         !tensors.has_prefix("distilled_guidance_layer.");
}

void add_double(std::map<std::string, OriginalPlace>& places, const Config& c, std::int64_t index) {
  auto from = fmt::format("transformer_blocks.{}.", index);
  auto to = fmt::format("double_blocks.{}.", index);
  auto D = c.hidden;
  auto fused = [&](const char* q, const char* k, const char* v, const char* name) {
    places[from + q] = {to + name, 0, D};
    places[from + k] = {to + name, D, D};
    places[from + v] = {to + name, 2 * D, D};
  };
  fused("attn.to_q", "attn.to_k", "attn.to_v", "img_attn.qkv");
  fused("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "txt_attn.qkv");
  for (auto [theirs, ours] : std::initializer_list<std::pair<const char*, const char*>>{
           {"attn.to_out.0", "img_attn.proj"},
           {"attn.to_add_out", "txt_attn.proj"},
           {"norm1.linear", "img_mod.lin"},
           {"norm1_context.linear", "txt_mod.lin"},
           {"ff.net.0.proj", "img_mlp.0"},
           {"ff.net.2", "img_mlp.2"},
           {"ff_context.net.0.proj", "txt_mlp.0"},
           {"ff_context.net.2", "txt_mlp.2"},
           {"ff.linear_in", "img_mlp.0"},
           {"ff.linear_out", "img_mlp.2"},
           {"ff_context.linear_in", "txt_mlp.0"},
           {"ff_context.linear_out", "txt_mlp.2"},
           {"attn.norm_q", "img_attn.norm.query_norm.scale"},
           {"attn.norm_k", "img_attn.norm.key_norm.scale"},
           {"attn.norm_added_q", "txt_attn.norm.query_norm.scale"},
           {"attn.norm_added_k", "txt_attn.norm.key_norm.scale"}})
    places[from + theirs] = {to + ours};
}

void add_single(std::map<std::string, OriginalPlace>& places, const Config& c, std::int64_t index) {
  auto from = fmt::format("single_transformer_blocks.{}.", index);
  auto to = fmt::format("single_blocks.{}.", index);
  auto D = c.hidden;
  places[from + "attn.to_q"] = {to + "linear1", 0, D};
  places[from + "attn.to_k"] = {to + "linear1", D, D};
  places[from + "attn.to_v"] = {to + "linear1", 2 * D, D};
  places[from + "proj_mlp"] = {to + "linear1", 3 * D, c.mlp * (c.gated_mlp ? 2 : 1)};
  places[from + "attn.to_qkv_mlp_proj"] = {to + "linear1"};
  places[from + "attn.to_out"] = {to + "linear2"};
  places[from + "proj_out"] = {to + "linear2"};
  places[from + "norm.linear"] = {to + "modulation.lin"};
  places[from + "attn.norm_q"] = {to + "norm.query_norm.scale"};
  places[from + "attn.norm_k"] = {to + "norm.key_norm.scale"};
}

}  // namespace

std::map<std::string, OriginalPlace> diffusers_places(const Config& config) {
  std::map<std::string, OriginalPlace> places;
  for (std::int64_t i = 0; i < config.depth; ++i) add_double(places, config, i);
  for (std::int64_t i = 0; i < config.single_depth; ++i) add_single(places, config, i);
  const std::string time = config.shared_modulation ? "time_guidance_embed." : "time_text_embed.";
  for (auto [theirs, ours] : std::initializer_list<std::pair<std::string, const char*>>{
           {"x_embedder", "img_in"},
           {"context_embedder", "txt_in"},
           {time + "timestep_embedder.linear_1", "time_in.in_layer"},
           {time + "timestep_embedder.linear_2", "time_in.out_layer"},
           {time + "guidance_embedder.linear_1", "guidance_in.in_layer"},
           {time + "guidance_embedder.linear_2", "guidance_in.out_layer"},
           {time + "text_embedder.linear_1", "vector_in.in_layer"},
           {time + "text_embedder.linear_2", "vector_in.out_layer"},
           {"double_stream_modulation_img.linear", "double_stream_modulation_img.lin"},
           {"double_stream_modulation_txt.linear", "double_stream_modulation_txt.lin"},
           {"single_stream_modulation.linear", "single_stream_modulation.lin"},
           {"proj_out", "final_layer.linear"}})
    places[theirs] = {ours};
  places["norm_out.linear"] = {.name = "final_layer.adaLN_modulation.1", .swapped = true};
  return places;
}

Checkpoint with_original_names(const Checkpoint& below,
                               const std::map<std::string, OriginalPlace>& places) {
  auto result = below.part("no tensor begins like this");
  std::map<std::string, Pieces> fused;
  for (const auto& [name, stored] : below.tensors()) {
    auto dot = name.rfind('.');
    auto place = dot == std::string::npos ? places.end() : places.find(name.substr(0, dot));
    if (place == places.end()) {
      result.add(name, stored);
      continue;
    }
    const auto& to = place->second;
    auto full = to.name.ends_with(".scale") ? to.name : to.name + name.substr(dot);
    if (to.swapped)
      add_swapped(result, full, stored);
    else if (to.rows == 0)
      result.add(full, stored);
    else
      fused[full].by_row[to.first_row] = stored;
  }
  for (const auto& [name, pieces] : fused) {
    std::vector<weights::Stored> list;
    for (const auto& [row, stored] : pieces.by_row) list.push_back(stored);
    result.add_joined(name, list);
  }
  return result;
}

Checkpoint flux_tensors(const Checkpoint& below) {
  if (below.has("x_embedder.weight") && below.has("context_embedder.weight") &&
      below.has("transformer_blocks.0.attn.add_q_proj.weight") &&
      below.has_prefix("single_transformer_blocks.0."))
    return with_original_names(below, diffusers_places(diffusers_config(below)));
  if (!below.has("img_in.weight") || !below.has_prefix("double_blocks.0.img_attn.")) return {};
  auto tensors = below;
  name_norms(tensors);
  return is_original(tensors) ? tensors : Checkpoint();
}

Config config_of(const Checkpoint& tensors) {
  Config c;
  const bool second = tensors.has("double_stream_modulation_img.lin.weight");
  auto size = [&](const char* name, std::size_t dim) { return size_of(tensors, name, dim); };
  c.patch = second ? 1 : 2;
  c.hidden = size("img_in.weight", 0);
  c.in_channels = size("img_in.weight", 1) / (c.patch * c.patch);
  // ControlNets end with matrices of their blocks' tokens in place of a last layer.
  c.out_channels = tensors.has_prefix("controlnet_blocks.")
                       ? c.in_channels
                       : size("final_layer.linear.weight", 0) / (c.patch * c.patch);
  c.context_width = size("txt_in.weight", 1);
  c.vector_width = tensors.has_prefix("vector_in.") ? size("vector_in.in_layer.weight", 1) : 0;
  c.guidance = tensors.has_prefix("guidance_in.");
  c.head = size("double_blocks.0.img_attn.norm.key_norm.scale", 0);
  c.depth = tensors.count("double_blocks.");
  c.single_depth = tensors.count("single_blocks.");
  c.mlp = size("double_blocks.0.img_mlp.2.weight", 1);
  // Two of each, so that one that is missing is missed.
  c.qkv_bias = tensors.has("double_blocks.0.img_attn.qkv.bias") ||
               tensors.has("double_blocks.0.txt_attn.qkv.bias");
  c.bias = tensors.has("img_in.bias") || tensors.has("txt_in.bias");
  c.shared_modulation = c.gated_mlp = second;
  c.axes = axes_of(c.head, second);
  if (second) {
    c.theta = 2000;
    c.text_axis = 3;
    c.reference = ReferenceMethod::Index;
    c.reference_step = 10;
  }
  return c;
}

}  // namespace distorch::models::flux
