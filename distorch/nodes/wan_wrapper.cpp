#include "distorch/nodes/wan_wrapper.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/loaders.h"

namespace distorch::nodes {

namespace wan_wrapper {

std::vector<double> numbers_of_steps(const graph::Call& call, const char* input) {
  const auto& value = call.in(input).as<graph::Json>();
  if (!value.is_array()) return {call.number(input)};
  std::vector<double> numbers;
  for (const auto& one : value) numbers.push_back(one.get<double>());
  if (numbers.empty())
    throw Error(ErrorKind::Usage, call.place(), fmt::format("input '{}' is an empty list", input));
  return numbers;
}

const Vae& video_vae(const graph::Call& call) {
  const auto& vae = call.get<Vae>("vae");
  if (!vae.loaded)
    throw Error(ErrorKind::Usage, call.place(),
                "the checkpoint that 'vae' comes from holds no autoencoder; load one with "
                "WanVideoVAELoader");
  if (vae.loaded->network->shape().dimensions != 3)
    throw Error(ErrorKind::Shape, vae.loaded->weights->checkpoint().path(),
                "codes pictures, and " + call.place() + " wants Wan's autoencoder of video");
  return vae;
}

graph::NodeType multigpu_variant(graph::NodeType node) {
  node.name += "MultiGPU";
  node.display_name = node.name;
  node.category = kMultiGpuCategory;
  node.python_module = kMultiGpuModule;
  return node;
}

graph::Input device_input(const char* name, const char* usual) {
  auto devices = device_choices();
  graph::Json first = usual ? graph::Json(usual) : graph::Json("cpu");
  for (const auto& one : devices.read())
    if (!usual && one != "cpu") {
      first = one;
      break;
    }
  return graph::choice(name, devices, {.def = first});
}

graph::Input load_device_input(const char* usual) {
  return graph::choice("load_device", {"main_device", "offload_device"}, {.def = usual});
}

void take_devices(graph::NodeType& node) {
  for (const char* name : {"device", "compute_device", "swap_device"})
    if (node.find_input(name)) node.checks.push_back(any_device({name}));
}

std::string named_device(const graph::Call& call) {
  for (const char* name : {"compute_device", "load_device", "device"})
    if (call.node_type().find_input(name) && call.has(name)) {
      auto device = call.text(name);
      if (device != "main_device" && device != "offload_device" && device != "default")
        return device;
    }
  return "";
}

}  // namespace wan_wrapper

void add_wan_wrapper_nodes(graph::Catalog& catalog, App& app) {
  wan_wrapper::add_loaders(catalog, app);
  wan_wrapper::add_lora_nodes(catalog, app);
  wan_wrapper::add_text_nodes(catalog, app);
  wan_wrapper::add_image_nodes(catalog);
  wan_wrapper::add_vae_nodes(catalog);
  wan_wrapper::add_vace_nodes(catalog);
  wan_wrapper::add_control_nodes(catalog, app);
  wan_wrapper::add_setting_nodes(catalog);
  wan_wrapper::add_sampler_nodes(catalog);
  wan_wrapper::add_speech_nodes(catalog, app);
}

}  // namespace distorch::nodes
