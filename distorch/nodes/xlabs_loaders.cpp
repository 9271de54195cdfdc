#include "distorch/base/error.h"
#include "distorch/models/flux/control_net.h"
#include "distorch/nodes/loaders.h"
#include "distorch/nodes/lora_files.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/xlabs.h"

namespace distorch::nodes {

using graph::Call;
using graph::choice;
using graph::link;
using graph::number;
using graph::Value;

namespace {

/// "model_name" says nothing that the file does not say by its shapes.
void run_load_control(Call& call) {
  const auto path =
      call.context<ModelFolders>().get("xlabs_controlnets", call.text("controlnet_path"));
  auto loaded = call.context<ModelCache>().control(path, placement_of(call));
  if (!loaded || !dynamic_cast<const models::flux::ControlNet*>(loaded->network.get()))
    throw Error(ErrorKind::Format, path.string(),
                "holds no ControlNet of XLabs for FLUX.1; others are loaded with ControlNetLoader");
  call.out(0, Value::of("FluxControlNet", XlabsControlNet{std::move(loaded)}));
}

void run_apply_control(Call& call) {
  std::vector<XlabsControl> uses;
  if (call.has("controlnet_condition"))
    uses = call.get<std::vector<XlabsControl>>("controlnet_condition");
  XlabsControl use;
  use.net = call.get<XlabsControlNet>("controlnet");
  use.image = match_channels(image_input(call, "image"), 3);
  use.strength = call.number("strength");
  if (call.node_type().find_input("start")) {
    use.start = call.number("start");
    use.end = call.number("end");
  }
  uses.push_back(std::move(use));
  call.out(0, Value::of("ControlNetCondition", std::move(uses)));
}

/// Whether a LoRA's tensor changes the attention of a double block, in whatever spelling.
bool is_for_attention(const std::string& name) {
  return name.find("double_blocks") != std::string::npos &&
         (name.find("processor") != std::string::npos || name.find("_attn") != std::string::npos);
}

/// As XLabs' node, which knows the attention of double blocks alone. That adds the part of the text's
/// projection behind the MLP; here it is where LoRAs are trained, as in its other class.
void run_load_lora(Call& call) {
  const auto path = call.context<ModelFolders>().get("xlabs_loras", call.text("lora_name"));
  auto model = call.get<Model>("model");
  if (auto strength = call.number("strength_model"); strength != 0) {
    const auto file = call.context<ModelCache>().checkpoint(path);
    auto part = file.part("no tensor begins like this");
    for (const auto& [name, stored] : file.tensors())
      if (is_for_attention(name)) part.add(name, stored);
    if (part.empty())
      throw Error(ErrorKind::Format, path.string(),
                  "holds no LoRA for the attention of FLUX's double blocks, such as "
                  "'double_blocks.0.processor.qkv_lora1.down.weight'");
    add_lora(part, ModelCache::identity(path) + "|double attention", model, strength);
  }
  call.out(0, Value::of("MODEL", std::move(model)));
}

graph::NodeType apply_node(const char* name, const char* display, bool windowed) {
  auto share = [](const char* input, double usual) {
    return number(input, {.def = usual, .min = 0.0, .max = 1.0, .step = 0.01});
  };
  graph::NodeType type{
      .name = name,
      .display_name = display,
      .category = kXlabsCategory,
      .python_module = kXlabsModule,
      .inputs = {link("controlnet", "FluxControlNet"), link("image", "IMAGE"),
                 number("strength", {.def = 1.0, .min = 0.0, .max = 10.0, .step = 0.01})},
      .outputs = {{"ControlNetCondition", "controlnet_condition"}},
      .run = run_apply_control,
  };
  if (windowed) {
    type.inputs.push_back(share("start", 0.0));
    type.inputs.push_back(share("end", 1.0));
  }
  type.inputs.push_back(xlabs_optional("controlnet_condition", "ControlNetCondition"));
  return type;
}

}  // namespace

graph::Input xlabs_optional(std::string name, std::string type) {
  auto input = link(std::move(name), std::move(type));
  input.options["default"] = nullptr;
  return graph::optional(std::move(input));
}

void add_xlabs_loader_nodes(graph::Catalog& catalog, App& app) {
  graph::NodeType control{
      .name = "LoadFluxControlNet",
      .display_name = "Load Flux ControlNet",
      .category = kXlabsCategory,
      .python_module = kXlabsModule,
      .inputs = {choice("model_name", {"flux-dev", "flux-dev-fp8", "flux-schnell"}),
                 choice("controlnet_path", model_choices(app, "xlabs_controlnets"))},
      .outputs = {{"FluxControlNet", "ControlNet"}},
      .run = run_load_control,
      .change_key = when_replaced(app, {{"xlabs_controlnets", "controlnet_path"}}),
  };
  add_with_device(catalog, std::move(control));
  catalog.add(apply_node("ApplyFluxControlNet", "Apply Flux ControlNet", false));
  catalog.add(apply_node("ApplyAdvancedFluxControlNet", "Apply Advanced Flux ControlNet", true));
  catalog.add({
      .name = "FluxLoraLoader",
      .display_name = "Load Flux LoRA",
      .category = kXlabsCategory,
      .description = "Adds what a LoRA has learned about the attention of FLUX's double blocks.",
      .python_module = kXlabsModule,
      .inputs = {link("model", "MODEL"), choice("lora_name", model_choices(app, "xlabs_loras")),
                 number("strength_model", {.def = 1.0, .min = -100.0, .max = 100.0, .step = 0.01})},
      .outputs = {"MODEL"},
      .run = run_load_lora,
      .change_key = when_replaced(app, {{"xlabs_loras", "lora_name"}}),
  });
}

}  // namespace distorch::nodes
