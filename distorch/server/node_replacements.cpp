#include "distorch/server/node_replacements.h"

#include <string>
#include <utility>
#include <vector>

namespace distorch::server {

namespace {

/// An old type in the form of its entry in the answer.
struct Replacement {
  const char* old_type;
  const char* new_type;
  Json widgets;  // names of the old one's widgets in their order, or null
  Json inputs;   // [{"new_id", "old_id" or "set_value"}], or null
  Json outputs;  // [{"new_idx", "old_idx"}], or null
};

Json renamed(const char* new_id, const char* old_id) {
  return {{"new_id", new_id}, {"old_id", old_id}};
}

/// Facts of ComfyUI 0.33.
const std::vector<Replacement>& known_replacements() {
  static const std::vector<Replacement> list = {
      {"ResizeImagesByLongerEdge", "ImageScaleToMaxDimension", Json::array({"longer_edge"}),
       Json::array({renamed("image", "images"), renamed("largest_size", "longer_edge"),
                    Json{{"new_id", "upscale_method"}, {"set_value", "lanczos"}}}),
       Json::array({Json{{"new_idx", 0}, {"old_idx", 0}}})},
      {"ImageBatch", "BatchImagesNode", nullptr,
       Json::array({renamed("images.image0", "image1"), renamed("images.image1", "image2")}),
       nullptr},
      {"ImageScaleBy", "ResizeImageMaskNode", Json::array({"upscale_method", "scale_by"}),
       Json::array({renamed("input", "image"),
                    Json{{"new_id", "resize_type"}, {"set_value", "scale by multiplier"}},
                    renamed("resize_type.multiplier", "scale_by"),
                    renamed("scale_method", "upscale_method")}),
       nullptr},
      {"T2IAdapterLoader", "ControlNetLoader", nullptr,
       Json::array({renamed("control_net_name", "t2i_adapter_name")}), nullptr},
      {"SDV_img2vid_Conditioning", "SVD_img2vid_Conditioning", nullptr, nullptr, nullptr},
      {"ConditioningAverage ", "ConditioningAverage", nullptr, nullptr, nullptr},
  };
  return list;
}

bool is_listed(const graph::Catalog& catalog, const std::string& name) {
  const auto* type = catalog.find(name);
  return type && type->name == name;
}

void add(Json& all, const std::string& old_type, const std::string& new_type,
         const Json& widgets = nullptr, const Json& inputs = nullptr,
         const Json& outputs = nullptr) {
  all[old_type] = Json::array({{{"new_node_id", new_type},
                                {"old_node_id", old_type},
                                {"old_widget_ids", widgets},
                                {"input_mapping", inputs},
                                {"output_mapping", outputs}}});
}

Json mapped_inputs(const Json& inputs, const Json& mapping) {
  if (!mapping.is_array()) return inputs;
  Json mapped = Json::object();
  for (const auto& entry : mapping) {
    const auto& name = entry.at("new_id").get_ref<const std::string&>();
    if (auto value = entry.find("set_value"); value != entry.end())
      mapped[name] = *value;
    else if (auto old = inputs.find(entry.at("old_id").get<std::string>()); old != inputs.end())
      mapped[name] = *old;
  }
  return mapped;
}

/// Links to outputs of node `id` count as the new type has its outputs.
void follow_outputs(Json& prompt, const std::string& id, const Json& mapping) {
  for (auto& node : prompt) {
    if (!node.is_object() || !node.contains("inputs") || !node["inputs"].is_object()) continue;
    for (auto& value : node["inputs"]) {
      if (!value.is_array() || value.size() != 2 || value[0] != id) continue;
      for (const auto& entry : mapping)
        if (value[1] == entry.at("old_idx")) {
          value[1] = entry.at("new_idx");
          break;
        }
    }
  }
}

}  // namespace

Json node_replacements(const graph::Catalog& catalog) {
  Json all = Json::object();
  for (const auto& entry : known_replacements())
    if (!is_listed(catalog, entry.old_type) && is_listed(catalog, entry.new_type))
      add(all, entry.old_type, entry.new_type, entry.widgets, entry.inputs, entry.outputs);
  // The catalog knows the August 2025 spelling of these, which the page does not.
  const std::string ending = "DisTorch2MultiGPU", old_ending = "Distorch2MultiGPU";
  for (const auto& name : catalog.names()) {
    bool fits = name.size() > ending.size() &&
                name.compare(name.size() - ending.size(), ending.size(), ending) == 0;
    if (!fits) continue;
    auto old_type = name.substr(0, name.size() - ending.size()) + old_ending;
    if (catalog.find(old_type) == catalog.find(name)) add(all, old_type, name);
  }
  return all;
}

void replace_nodes(Json& prompt, const Json& replacements) {
  if (!prompt.is_object()) return;
  for (auto& [id, node] : prompt.items()) {
    if (!node.is_object() || !node.contains("inputs") || !node["inputs"].is_object()) continue;
    auto type = node.find("class_type");
    if (type == node.end() || !type->is_string()) continue;
    auto found = replacements.find(type->get<std::string>());
    if (found == replacements.end()) continue;
    const auto& replacement = found->at(0);
    node["class_type"] = replacement.at("new_node_id");
    node["inputs"] = mapped_inputs(node["inputs"], replacement.at("input_mapping"));
    if (replacement.at("output_mapping").is_array())
      follow_outputs(prompt, id, replacement.at("output_mapping"));
  }
}

}  // namespace distorch::server
