#include <array>

#include "distorch/server/system_routes.h"

namespace distorch::server {

namespace {

/// An old type whose inputs and outputs are those of the new one, less those of other names.
struct Renamed {
  const char* old_type;
  const char* new_type;
  std::vector<std::pair<const char*, const char*>> inputs;  // new name, old name
};

/// Facts of ComfyUI 0.33.
const std::vector<Renamed>& renamed() {
  static const std::vector<Renamed> list = {
      {"T2IAdapterLoader", "ControlNetLoader", {{"control_net_name", "t2i_adapter_name"}}},
      {"SDV_img2vid_Conditioning", "SVD_img2vid_Conditioning", {}},
      {"ConditioningAverage ", "ConditioningAverage", {}},
  };
  return list;
}

bool is_listed(const graph::Catalog& catalog, const std::string& name) {
  const auto* type = catalog.find(name);
  return type && type->name == name;
}

void add(Json& all, const std::string& old_type, const std::string& new_type, Json inputs) {
  all[old_type] = Json::array({{{"new_node_id", new_type},
                                {"old_node_id", old_type},
                                {"old_widget_ids", nullptr},
                                {"input_mapping", std::move(inputs)},
                                {"output_mapping", nullptr}}});
}

}  // namespace

Json node_replacements(const graph::Catalog& catalog) {
  Json all = Json::object();
  for (const auto& entry : renamed()) {
    if (is_listed(catalog, entry.old_type) || !is_listed(catalog, entry.new_type)) continue;
    Json inputs = nullptr;
    for (const auto& [new_id, old_id] : entry.inputs)
      inputs.push_back({{"new_id", new_id}, {"old_id", old_id}});
    add(all, entry.old_type, entry.new_type, std::move(inputs));
  }
  // The catalog knows the August 2025 spelling of these, which the page does not.
  const std::string ending = "DisTorch2MultiGPU", old_ending = "Distorch2MultiGPU";
  for (const auto& name : catalog.names()) {
    bool fits = name.size() > ending.size() &&
                name.compare(name.size() - ending.size(), ending.size(), ending) == 0;
    if (!fits) continue;
    auto old_type = name.substr(0, name.size() - ending.size()) + old_ending;
    if (catalog.find(old_type) == catalog.find(name)) add(all, old_type, name, nullptr);
  }
  return all;
}

}  // namespace distorch::server
