// Device-placement variants of loader nodes, as the workflows of the MultiGPU add-on name them. The
// facts are those of the nodes' public definitions; the inputs are read by the loaders themselves.
#include <fmt/format.h>

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

// "cpu", "cuda", "cuda:1", "sim:0": a word, then perhaps a number. "default" is CLIPLoader's own
// choice.
std::string refuse_malformed(const std::string& device) {
  std::size_t colon = device.find(':');
  std::string kind = device.substr(0, colon);
  std::string index = colon == std::string::npos ? "0" : device.substr(colon + 1);
  bool good = !kind.empty() &&
              kind.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string::npos &&
              !index.empty() && index.size() <= 4 &&
              index.find_first_not_of("0123456789") == std::string::npos;
  return good ? "" : fmt::format("'{}' is not a device name such as cpu or cuda:0", device);
}

// Workflows name devices of the machine they were made on: the list here is an offer, not a limit.
void check_devices(NodeType& type, const VariantOptions& options) {
  auto refuse = options.refuse_device ? options.refuse_device : refuse_malformed;
  for (const char* name : {"device", "compute_device", "donor_device"})
    if (type.find_input(name))
      type.checks.push_back({{name}, [name, refuse](const Call& call) {
                               return call.has(name) ? refuse(call.text(name)) : std::string();
                             }});
}

Input virtual_vram(double max) {
  return optional(number("virtual_vram_gb", {.def = 4.0, .min = 0.0, .max = max, .step = 0.1}));
}

Input expert_string() {
  return optional(text("expert_mode_allocations", {.def = "", .multiline = false}));
}

// Adds an input; one of the same name is replaced where it stands (CLIPLoader has a `device` of its
// own).
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
  add_input(spread, device_choice(options.text_encoder ? "device" : "compute_device",
                                  options.devices, false));
  add_input(spread, virtual_vram(128.0));
  add_input(spread, device_choice("donor_device", options.devices, true));
  add_input(spread, expert_string());
  add_input(spread, optional(boolean("eject_models", {.def = !options.text_encoder})));
  variants.push_back(std::move(spread));

  if (options.legacy_v1) {
    // The original lists the text encoders' variants of this kind one level up.
    NodeType legacy = variant_of(loader, "DisTorchMultiGPU",
                                 options.text_encoder ? "multigpu" : "multigpu/legacy");
    add_input(legacy, device_choice("device", options.devices, false));
    add_input(legacy, virtual_vram(24.0));
    add_input(legacy, optional(boolean("use_other_vram", {.def = false})));
    add_input(legacy, expert_string());
    variants.push_back(std::move(legacy));
  }
  for (auto& variant : variants) check_devices(variant, options);
  return variants;
}

}  // namespace distorch::graph
