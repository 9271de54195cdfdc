#include "distorch/nodes/saved_names.h"

#include <array>
#include <optional>
#include <utility>

namespace distorch::nodes {

using Names = SavedLayout::Text::Names;

namespace {

/// What OpenCLIP calls a tensor that is one of its own; "" where it has the tensor with others in
/// one, or not at all.
std::string open_clip_name(const std::string& name) {
  static const std::array<std::pair<std::string, std::string>, 3> whole = {{
      {"text_model.embeddings.position_embedding.weight", "positional_embedding"},
      {"text_model.embeddings.token_embedding.weight", "token_embedding.weight"},
      {"text_model.final_layer_norm.", "ln_final."},
  }};
  static const std::array<std::pair<std::string, std::string>, 5> parts = {{
      {".layer_norm1.", ".ln_1."},
      {".layer_norm2.", ".ln_2."},
      {".mlp.fc1.", ".mlp.c_fc."},
      {".mlp.fc2.", ".mlp.c_proj."},
      {".self_attn.out_proj.", ".attn.out_proj."},
  }};
  for (const auto& [from, to] : whole)
    if (name.starts_with(from)) return to + name.substr(from.size());
  const std::string layers = "text_model.encoder.layers.";
  if (!name.starts_with(layers)) return "";
  auto rest = "transformer.resblocks." + name.substr(layers.size());
  for (const auto& [from, to] : parts)
    if (auto at = rest.find(from); at != std::string::npos)
      return rest.replace(at, from.size(), to);
  return "";
}

/// "…self_attn.q_proj.weight" -> the fused tensor of q, k and v; nothing for any other name.
std::optional<SavedWeight> fused(const std::string& name) {
  const std::string query = ".self_attn.q_proj.", layers = "text_model.encoder.layers.";
  auto at = name.find(query);
  if (at == std::string::npos || !name.starts_with(layers)) return {};
  auto end = name.substr(at + query.size());
  auto layer = name.substr(0, at);
  SavedWeight weight;
  weight.name = "transformer.resblocks." + layer.substr(layers.size()) + ".attn.in_proj_" + end;
  for (const char* part : {"q", "k", "v"})
    weight.sources.push_back(layer + ".self_attn." + part + "_proj." + end);
  return weight;
}

std::vector<SavedWeight> open_clip(const SavedModel& encoder, const std::string& prefix) {
  std::vector<SavedWeight> list;
  auto add = [&](std::string name, SavedWeight weight) {
    weight.name = prefix + std::move(name);
    list.push_back(std::move(weight));
  };
  for (const auto& name : encoder.names()) {
    if (auto weight = fused(name))
      add(weight->name, *weight);
    else if (name == "text_projection" || name == "logit_scale")
      add(name, {.sources = {name}});
    else if (name == "text_projection.weight")
      add("text_projection", {.sources = {name}, .transposed = true});
    else if (auto own = open_clip_name(name); !own.empty())
      add(own, {.sources = {name}});
  }
  return list;
}

}  // namespace

SavedLayout saved_layout(const models::Family& family) {
  const std::string unet = "model.diffusion_model.", first_stage = "first_stage_model.";
  const auto name = family.name();
  if (name == "SD1.x")
    return {unet, first_stage, {{"clip_l", "cond_stage_model.transformer.", Names::Transformers}}};
  if (name == "SD2.x" || name == "SD2.1 unCLIP")
    return {unet, first_stage, {{"clip_h", "cond_stage_model.model.", Names::OpenClip}}};
  if (name == "SDXL")
    return {unet,
            first_stage,
            {{"clip_l", "conditioner.embedders.0.transformer.", Names::Transformers},
             {"clip_g", "conditioner.embedders.1.model.", Names::OpenClip}}};
  if (name == "SDXL refiner")
    return {unet, first_stage, {{"clip_g", "conditioner.embedders.0.model.", Names::OpenClip}}};
  return {unet, name == "SD3" ? first_stage : "vae.", {}};
}

std::vector<SavedWeight> saved_text(const SavedModel& encoder, const std::string& prefix,
                                    Names names) {
  if (names == Names::OpenClip) return open_clip(encoder, prefix);
  std::vector<SavedWeight> list;
  for (const auto& name : encoder.names()) {
    bool bare_projection = name == "text_projection";
    if (names == Names::Transformers &&
        (bare_projection || name == "text_projection.weight" || name == "logit_scale"))
      continue;
    list.push_back({.name = prefix + (bare_projection ? "text_projection.weight" : name),
                    .sources = {name},
                    .transposed = bare_projection});
  }
  return list;
}

}  // namespace distorch::nodes
