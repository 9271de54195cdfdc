#include "distorch/nodes/wan_wrapper.h"

#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"

namespace distorch::nodes {

namespace wan_wrapper {

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
}

}  // namespace distorch::nodes
