// LoRAs of the WanVideoWrapper: chosen in a list, then given to a model.
#include <fmt/format.h>

#include "distorch/nodes/loaders.h"
#include "distorch/nodes/wan_wrapper.h"
#include "distorch/nodes/wan_wrapper_models.h"

namespace distorch::nodes::wan_wrapper {

using graph::boolean;
using graph::Call;
using graph::choice;
using graph::Choices;
using graph::link;
using graph::number;
using graph::optional;
using graph::Value;

namespace {

constexpr int kMany = 5;
constexpr const char* kNone = "none";

/// A strength is a number or, over a link, one for each step.
std::vector<double> strengths(const Call& call, const std::string& input) {
  const auto& value = call.in(input).as<graph::Json>();
  if (!value.is_array()) return {call.number(input)};
  std::vector<double> list;
  for (const auto& one : value) list.push_back(one.get<double>());
  return list.empty() ? std::vector<double>{0.0} : list;
}

LoraChoices before(const Call& call) {
  return optional_input<LoraChoices>(call, "prev_lora").value_or(LoraChoices{});
}

void run_select(Call& call) {
  auto choices = before(call);
  choices.push_back({call.text("lora"), strengths(call, "strength")});
  call.out(0, Value::of("WANVIDLORA", std::move(choices)));
}

void run_select_many(Call& call) {
  auto choices = before(call);
  for (int i = 0; i < kMany; ++i)
    if (auto name = call.text(fmt::format("lora_{}", i)); name != kNone)
      choices.push_back({name, strengths(call, fmt::format("strength_{}", i))});
  call.out(0, Value::of("WANVIDLORA", std::move(choices)));
}

void run_set(Call& call) {
  auto model = call.get<WanModel>("model");
  if (call.has("lora")) add_loras(model, call.get<LoraChoices>("lora"), call.context<ModelCache>());
  call.out(0, Value::of("WANVIDEOMODEL", std::move(model)));
}

graph::Input strength(const std::string& name) {
  return number(name, {.def = 1.0, .min = -10.0, .max = 10.0, .step = 0.0001});
}

/// What both ways of choosing have besides.
void add_common(graph::NodeType& node) {
  node.category = kCategory;
  node.python_module = kModule;
  node.inputs.push_back(
      optional(link("prev_lora", "WANVIDLORA", {.extra = {{"default", nullptr}}})));
  node.inputs.push_back(optional(link("blocks", "SELECTEDBLOCKS")));
  node.inputs.push_back(optional(boolean("low_mem_load", {.def = false})));
  node.inputs.push_back(optional(boolean(
      "merge_loras",
      {.def = true,
       .tooltip = "LoRAs are applied beside the weights either way, which stay as they are."})));
  node.outputs = {{"WANVIDLORA", "lora"}};
}

}  // namespace

void add_lora_nodes(graph::Catalog& catalog, App& app) {
  graph::NodeType one{
      .name = "WanVideoLoraSelect",
      .display_name = "WanVideo Lora Select",
      .description = "A LoRA for a Wan model, behind those chosen before.",
      .inputs = {choice("lora", model_choices(app, "loras")), strength("strength")},
      .hidden = {{"unique_id", "UNIQUE_ID"}},
      .run = run_select,
      .change_key = when_replaced(app, {{"loras", "lora"}}),
  };
  add_common(one);
  catalog.add(std::move(one));
  graph::NodeType many{
      .name = "WanVideoLoraSelectMulti",
      .display_name = "WanVideo Lora Select Multi",
      .description = "Up to five LoRAs for a Wan model.",
      .run = run_select_many,
  };
  auto names = Choices([&app] {
                 auto list = app.folders.list("loras");
                 list.insert(list.begin(), kNone);
                 return list;
               }).with_origin([&app] { return app.folders.searched("loras"); });
  for (int i = 0; i < kMany; ++i) {
    many.inputs.push_back(choice(fmt::format("lora_{}", i), names, {.def = kNone}));
    many.inputs.push_back(strength(fmt::format("strength_{}", i)));
  }
  add_common(many);
  catalog.add(std::move(many));
  catalog.add({
      .name = "WanVideoSetLoRAs",
      .display_name = "WanVideo Set LoRAs",
      .category = kCategory,
      .description = "The same model with LoRAs.",
      .python_module = kModule,
      .inputs = {link("model", "WANVIDEOMODEL"), optional(link("lora", "WANVIDLORA"))},
      .outputs = {{"WANVIDEOMODEL", "model"}},
      .experimental = true,
      .run = run_set,
  });
}

}  // namespace distorch::nodes::wan_wrapper
