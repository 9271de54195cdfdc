#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/model_cache.h"

namespace distorch::nodes {

using graph::Call;
using graph::link;
using graph::number;
using graph::Value;
using streaming::LoraUse;

namespace {

double first_of(const Mix& mix) { return mix.first; }
double second_of(const Mix& mix) { return mix.second; }

/// LoRAs are not merged into the weights but go along at run time: each adds to its own model's
/// weights, so its strength is scaled as they are.
void add_scaled(std::vector<LoraUse>& out, const std::vector<LoraUse>& loras, const Mix& mix,
                double (*side)(const Mix&)) {
  for (const auto& lora : loras) {
    std::map<double, std::vector<weights::NamedAdapter>> by_factor;
    if (mix.parts.empty() && mix.kept.empty()) {
      auto scaled = lora;
      scaled.strength *= side(mix);
      out.push_back(std::move(scaled));
      continue;
    }
    for (const auto& adapter : *lora.adapters)
      by_factor[side(mix.of(adapter.weight))].push_back(adapter);
    for (auto& [factor, adapters] : by_factor)
      out.push_back(
          {fmt::format("{} where the factor of {} is {}", lora.key, mix.key(), factor),
           std::make_shared<const std::vector<weights::NamedAdapter>>(std::move(adapters)),
           lora.strength * factor});
  }
}

void out_mixed(Call& call, const Mix& mix) {
  auto model = call.get<Model>("model1");
  const auto& other = call.get<Model>("model2");
  model.loaded = call.context<ModelCache>().mixed(model.loaded, other.loaded, mix);
  auto own = std::exchange(model.loras, {});
  add_scaled(model.loras, own, mix, first_of);
  add_scaled(model.loras, other.loras, mix, second_of);
  call.out(0, Value::of("MODEL", std::move(model)));
}

/// `ratio` of the first, the rest of the second.
Mix between(double ratio) { return {ratio, 1.0 - ratio}; }

void run_simple(Call& call) {
  auto ratio = call.number("ratio");
  if (ratio == 1) return call.out(0, call.in("model1"));
  out_mixed(call, between(ratio));
}

void run_add(Call& call) { out_mixed(call, {1.0, 1.0}); }

void run_subtract(Call& call) {
  auto factor = call.number("multiplier");
  out_mixed(call, {factor, -factor});
}

/// Every input but the models is a ratio for the weights whose names begin as it does; the first of
/// them counts for all others too.
void run_blocks(Call& call) {
  Mix mix;
  bool first = true, all_own = true;
  for (const auto& input : call.node_type().inputs) {
    if (input.type != "FLOAT") continue;
    auto part = between(call.number(input.name));
    if (std::exchange(first, false)) mix = part;
    mix.parts.push_back({input.name, part.first, part.second});
    all_own = all_own && part.second == 0;
  }
  if (all_own) return call.out(0, call.in("model1"));
  out_mixed(call, mix);
}

Clip clip_of(Call& call, const char* input) {
  const auto& clip = call.get<Clip>(input);
  if (!clip.loaded)
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("{} is empty: its checkpoint holds no text encoder", input));
  return clip;
}

void out_mixed_clip(Call& call, Mix mix) {
  mix.kept = {".position_ids", ".logit_scale"};
  auto clip = clip_of(call, "clip1");
  auto other = clip_of(call, "clip2");
  auto mixed = call.context<ModelCache>().mixed(clip.loaded, other.loaded, mix);
  auto own = std::exchange(clip.loras, {});
  own.resize(mixed->encoders.size());
  clip.loras.resize(mixed->encoders.size());
  other.loras.resize(other.loaded->encoders.size());
  for (std::size_t i = 0; i < mixed->encoders.size(); ++i) {
    bool was_mixed = mixed->encoders[i] != clip.loaded->encoders[i];
    if (!was_mixed) {
      clip.loras[i] = own[i];
      continue;
    }
    add_scaled(clip.loras[i], own[i], mix, first_of);
    for (std::size_t j = 0; j < other.loras.size(); ++j)
      if (other.loaded->encoders[j]->name == mixed->encoders[i]->name)
        add_scaled(clip.loras[i], other.loras[j], mix, second_of);
  }
  clip.loaded = std::move(mixed);
  call.out(0, Value::of("CLIP", std::move(clip)));
}

void run_clip_simple(Call& call) {
  auto ratio = call.number("ratio");
  if (ratio == 1) return call.out(0, call.in("clip1"));
  out_mixed_clip(call, between(ratio));
}

void run_clip_add(Call& call) { out_mixed_clip(call, {1.0, 1.0}); }

void run_clip_subtract(Call& call) {
  auto factor = call.number("multiplier");
  out_mixed_clip(call, {factor, -factor});
}

/// Names of inputs, in groups: one name, or `count` numbered ones in place of "{}".
struct Group {
  const char* name;
  int count = 0;
};
using Groups = std::vector<Group>;

struct BlockMerge {
  const char* node;
  Groups groups;
};

/// Which parts of a family's network can be mixed apart from others. The names are those that the
/// weights begin with.
std::vector<BlockMerge> block_merges() {
  auto sd3 = [](int blocks) {
    return Groups{{"pos_embed."},  {"x_embedder."}, {"context_embedder."},
                  {"y_embedder."}, {"t_embedder."}, {"joint_blocks.{}.", blocks},
                  {"final_layer."}};
  };
  auto cosmos = [](int blocks) {
    return Groups{{"pos_embedder."}, {"extra_pos_embedder."},     {"x_embedder."}, {"t_embedder."},
                  {"affline_norm."}, {"blocks.block{}.", blocks}, {"final_layer."}};
  };
  auto cosmos_2 = [](int blocks) {
    return Groups{{"pos_embedder."},     {"x_embedder."},        {"t_embedder."},
                  {"t_embedding_norm."}, {"blocks.{}.", blocks}, {"final_layer."}};
  };
  const Groups sd1 = {{"time_embed."},           {"label_emb."},
                      {"input_blocks.{}.", 12},  {"middle_block.{}.", 3},
                      {"output_blocks.{}.", 12}, {"out."}};
  return {
      {"ModelMergeSD1", sd1},
      {"ModelMergeSD2", sd1},
      {"ModelMergeSDXL",
       {{"time_embed."},
        {"label_emb."},
        {"input_blocks.{}", 9},
        {"middle_block.{}", 3},
        {"output_blocks.{}", 9},
        {"out."}}},
      {"ModelMergeSD3_2B", sd3(24)},
      {"ModelMergeAuraflow",
       {{"init_x_linear."},
        {"positional_encoding"},
        {"cond_seq_linear."},
        {"register_tokens"},
        {"t_embedder."},
        {"double_layers.{}.", 4},
        {"single_layers.{}.", 32},
        {"modF."},
        {"final_linear."}}},
      {"ModelMergeFlux1",
       {{"img_in."},
        {"time_in."},
        {"guidance_in"},
        {"vector_in."},
        {"txt_in."},
        {"double_blocks.{}.", 19},
        {"single_blocks.{}.", 38},
        {"final_layer."}}},
      {"ModelMergeSD35_Large", sd3(38)},
      {"ModelMergeMochiPreview",
       {{"pos_frequencies."},
        {"t_embedder."},
        {"t5_y_embedder."},
        {"t5_yproj."},
        {"blocks.{}.", 48},
        {"final_layer."}}},
      {"ModelMergeLTXV",
       {{"patchify_proj."},
        {"adaln_single."},
        {"caption_projection."},
        {"transformer_blocks.{}.", 28},
        {"scale_shift_table"},
        {"proj_out."}}},
      {"ModelMergeCosmos7B", cosmos(28)},
      {"ModelMergeCosmos14B", cosmos(36)},
      {"ModelMergeWAN2_1",
       {{"patch_embedding."},
        {"time_embedding."},
        {"time_projection."},
        {"text_embedding."},
        {"img_emb."},
        {"blocks.{}.", 40},
        {"head."}}},
      {"ModelMergeCosmosPredict2_2B", cosmos_2(28)},
      {"ModelMergeCosmosPredict2_14B", cosmos_2(36)},
      {"ModelMergeQwenImage",
       {{"pos_embeds."},
        {"img_in."},
        {"txt_norm."},
        {"txt_in."},
        {"time_text_embed."},
        {"transformer_blocks.{}.", 60},
        {"proj_out."}}},
  };
}

graph::Input ratio(const std::string& name) {
  return number(name, {.def = 1.0, .min = 0.0, .max = 1.0, .step = 0.01});
}

std::vector<graph::Input> ratios(const Groups& groups) {
  std::vector<graph::Input> inputs;
  for (const auto& group : groups) {
    if (group.count == 0) inputs.push_back(ratio(group.name));
    for (int i = 0; i < group.count; ++i)
      inputs.push_back(ratio(fmt::format(fmt::runtime(group.name), i)));
  }
  return inputs;
}

graph::NodeType merge(const char* name, const std::vector<graph::Input>& numbers,
                      void (*run)(Call&)) {
  std::vector<graph::Input> inputs = {link("model1", "MODEL"), link("model2", "MODEL")};
  inputs.insert(inputs.end(), numbers.begin(), numbers.end());
  return {.name = name,
          .display_name = name,
          .category = "advanced/model_merging",
          .python_module = "comfy_extras.nodes_model_merging",
          .inputs = std::move(inputs),
          .outputs = {"MODEL"},
          .run = run};
}

graph::NodeType clip_merge(const char* name, const std::vector<graph::Input>& numbers,
                           void (*run)(Call&)) {
  auto type = merge(name, numbers, run);
  type.inputs[0] = link("clip1", "CLIP");
  type.inputs[1] = link("clip2", "CLIP");
  type.outputs = {"CLIP"};
  return type;
}

}  // namespace

void add_model_merging_nodes(graph::Catalog& catalog) {
  const auto multiplier =
      number("multiplier", {.def = 1.0, .min = -10.0, .max = 10.0, .step = 0.01});
  catalog.add(merge("ModelMergeSimple", {ratio("ratio")}, run_simple));
  catalog.add(merge("ModelMergeAdd", {}, run_add));
  catalog.add(merge("ModelMergeSubtract", {multiplier}, run_subtract));
  catalog.add(
      merge("ModelMergeBlocks", {ratio("input"), ratio("middle"), ratio("out")}, run_blocks));
  for (const auto& one : block_merges()) {
    auto type = merge(one.node, ratios(one.groups), run_blocks);
    type.category = "advanced/model_merging/model_specific";
    type.python_module = "comfy_extras.nodes_model_merging_model_specific";
    catalog.add(std::move(type));
  }
  catalog.add(clip_merge("CLIPMergeSimple", {ratio("ratio")}, run_clip_simple));
  catalog.add(clip_merge("CLIPMergeAdd", {}, run_clip_add));
  catalog.add(clip_merge("CLIPMergeSubtract", {multiplier}, run_clip_subtract));
}

}  // namespace distorch::nodes
