// Device-placement variants of loader nodes, as the workflows of the MultiGPU add-on name them. The facts are
// those of the nodes' public definitions; the inputs are read by the loaders themselves.
#include "distorch/graph/catalog.h"

namespace distorch::graph {
namespace {

constexpr const char* kModule = "custom_nodes.ComfyUI-MultiGPU";

// The first accelerator, `cpu` where there is none.
Json usual_device(const Json& devices) {
  for (auto& device : devices)
    if (device != "cpu") return device;
  return "cpu";
}

Input device_choice(std::string name, const Choices& devices, bool cpu_by_default) {
  Input input = choice(std::move(name), devices);
  input.options = {{"default", cpu_by_default ? Json("cpu") : usual_device(devices.read())}};
  return optional(std::move(input));
}

Input virtual_vram(double max) {
  return optional(number("virtual_vram_gb", {.def = 4.0, .min = 0.0, .max = max, .step = 0.1}));
}

Input expert_string() {
  return optional(text("expert_mode_allocations", {.def = "", .multiline = false}));
}

// Adds an input; one of the same name is replaced where it stands (CLIPLoader has a `device` of its own).
void add_input(NodeType& type, Input input) {
  for (auto& present : type.inputs)
    if (present.name == input.name) {
      present = std::move(input);
      return;
    }
  type.inputs.push_back(std::move(input));
}

NodeType variant_of(const NodeType& loader, const char* suffix, const char* category) {
  NodeType type = loader;
  type.name = loader.name + suffix;
  type.display_name = type.name;
  type.category = category;
  type.python_module = kModule;
  return type;
}

}  // namespace

std::vector<NodeType> multigpu_variants(const NodeType& loader, const VariantOptions& options) {
  std::vector<NodeType> variants;

  NodeType pick = variant_of(loader, "MultiGPU", "multigpu");
  add_input(pick, device_choice("device", options.devices, false));
  variants.push_back(std::move(pick));

  NodeType spread = variant_of(loader, "DisTorch2MultiGPU", "multigpu/distorch_2");
  add_input(spread, device_choice(options.text_encoder ? "device" : "compute_device", options.devices, false));
  add_input(spread, virtual_vram(128.0));
  add_input(spread, device_choice("donor_device", options.devices, true));
  add_input(spread, expert_string());
  add_input(spread, optional(boolean("eject_models", {.def = !options.text_encoder})));
  variants.push_back(std::move(spread));

  if (options.legacy_v1) {
    // The original lists the text encoders' variants of this kind one level up.
    NodeType legacy =
        variant_of(loader, "DisTorchMultiGPU", options.text_encoder ? "multigpu" : "multigpu/legacy");
    add_input(legacy, device_choice("device", options.devices, false));
    add_input(legacy, virtual_vram(24.0));
    add_input(legacy, optional(boolean("use_other_vram", {.def = false})));
    add_input(legacy, expert_string());
    variants.push_back(std::move(legacy));
  }
  return variants;
}

}  // namespace distorch::graph
