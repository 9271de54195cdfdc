#include "distorch/nodes/hyvideo_wrapper.h"

#include "distorch/nodes/loaders.h"

namespace distorch::nodes {

namespace hyvideo {

void add_device_variant(graph::Catalog& catalog, graph::NodeType node) {
  node.display_name.clear();
  auto variant = graph::multigpu_variants(node, {.devices = device_choices()}).front();
  variant.display_name = variant.name;
  variant.python_module = kMultiGpuModule;
  catalog.add(std::move(variant));
}

std::string named_device(const graph::Call& call) {
  return call.node_type().find_input("device") && call.has("device") ? call.text("device") : "";
}

graph::NodeType setting(const char* name, const char* title, std::vector<graph::Input> inputs,
                        graph::Output output, void (*run)(graph::Call&)) {
  return {
      .name = name,
      .display_name = title,
      .category = kCategory,
      .python_module = kModule,
      .inputs = std::move(inputs),
      .outputs = {std::move(output)},
      .run = run,
  };
}

}  // namespace hyvideo

void add_hyvideo_wrapper_nodes(graph::Catalog& catalog, App& app) {
  hyvideo::add_loaders(catalog, app);
  hyvideo::add_encoder_nodes(catalog, app);
  hyvideo::add_text_nodes(catalog, app);
  hyvideo::add_vae_nodes(catalog, app);
  hyvideo::add_setting_nodes(catalog, app);
  hyvideo::add_sampler_nodes(catalog);
}

}  // namespace distorch::nodes
