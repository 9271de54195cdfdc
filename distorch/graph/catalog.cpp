#include "distorch/graph/catalog.h"

#include "distorch/base/log.h"
#include "distorch/graph/dynamic_inputs.h"
#include "distorch/graph/near_names.h"

namespace distorch::graph {
namespace {

void put_inputs(const NodeType& type, Json& inputs, Json& order) {
  inputs["required"] = Json::object();  // always there, empty too
  order["required"] = Json::array();
  for (bool required : {true, false})
    for (auto& input : type.inputs) {
      if (input.required != required) continue;
      const char* section = required ? "required" : "optional";
      inputs[section][input.name] = input.definition(type.newer_schema);
      order[section].push_back(input.name);
    }
  for (auto& hidden : type.hidden) {
    inputs["hidden"][hidden.name] =
        type.newer_schema ? Json::array({hidden.type}) : Json(hidden.type);
    order["hidden"].push_back(hidden.name);
  }
}

Json tooltips_of(const NodeType& type) {
  Json tooltips = Json::array();
  bool any = type.newer_schema;
  for (auto& output : type.outputs) {
    any = any || !output.tooltip.empty();
    // The older schema has no way to leave one out in the middle.
    tooltips.push_back(output.tooltip.empty() && type.newer_schema ? Json() : Json(output.tooltip));
  }
  return any ? tooltips : Json();
}

}  // namespace

const Input* NodeType::find_input(const std::string& input_name) const {
  for (auto& input : inputs)
    if (input.name == input_name) return &input;
  return nullptr;
}

Json definition_of(const NodeType& type) {
  Json info, inputs = Json::object(), order = Json::object();
  put_inputs(type, inputs, order);
  info["input"] = std::move(inputs);
  info["input_order"] = std::move(order);
  Json types = Json::array(), lists = Json::array(), names = Json::array();
  for (auto& output : type.outputs) {
    types.push_back(output.type);
    lists.push_back(output.is_list);
    names.push_back(output.name.empty() ? output.type : output.name);
  }
  info["output"] = std::move(types);
  info["output_is_list"] = std::move(lists);
  info["output_name"] = std::move(names);
  if (Json ids = output_match_ids(type); !ids.is_null()) info["output_matchtypes"] = ids;
  Json tooltips = tooltips_of(type);
  if (type.newer_schema) info["output_tooltips"] = tooltips;
  info["name"] = type.name;
  info["display_name"] = !type.display_name.empty() ? Json(type.display_name)
                         : type.newer_schema        ? Json()
                                                    : Json(type.name);
  info["description"] = type.description;
  info["python_module"] = type.python_module;
  info["category"] = type.category;
  info["output_node"] = type.output_node;
  if (!type.newer_schema && !tooltips.is_null()) info["output_tooltips"] = tooltips;
  if (type.newer_schema || type.deprecated) info["deprecated"] = type.deprecated;
  if (type.newer_schema || type.experimental) info["experimental"] = type.experimental;
  if (type.newer_schema) info["api_node"] = false;
  return info;
}

void Catalog::add(NodeType type) {
  if (!type.run) throw Error(ErrorKind::Internal, type.name, "is a node type without run");
  if (by_name_.count(type.name))
    throw Error(ErrorKind::Internal, type.name, "is in the catalog already");
  types_.push_back(std::make_unique<NodeType>(std::move(type)));
  by_name_[types_.back()->name] = types_.back().get();
}

void Catalog::add_alias(std::string alias, std::string name) {
  const NodeType* type = find(name);
  if (!type) throw Error(ErrorKind::Internal, alias, "is an alias of the unknown type " + name);
  if (!by_name_.emplace(alias, type).second)
    throw Error(ErrorKind::Internal, alias, "is in the catalog already");
}

const NodeType* Catalog::find(const std::string& name) const {
  auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

const NodeType& Catalog::get(const std::string& name) const {
  if (const NodeType* type = find(name)) return *type;
  throw Error(ErrorKind::Usage, name,
              "is not a node type that distorch knows." + did_you_mean(name, names()));
}

std::vector<std::string> Catalog::names() const {
  std::vector<std::string> result;
  for (auto& [name, type] : by_name_) result.push_back(name);
  return result;
}

Json Catalog::object_info() const {
  Json all = Json::object();
  // push_back keeps this linear; the names are known to differ.
  for (auto& type : types_) {
    try {
      all.get_ref<Json::object_t&>().push_back({type->name, definition_of(*type)});
    } catch (const std::exception& problem) {
      log::warn("node type {} is left out of the list: {}", type->name, problem.what());
    }
  }
  return all;
}

Json Catalog::object_info(const std::string& name) const {
  const NodeType* type = find(name);
  return type ? Json{{name, definition_of(*type)}} : Json::object();
}

void add_loader(Catalog& catalog, NodeType loader, const VariantOptions& options) {
  auto variants = multigpu_variants(loader, options);
  std::string base = loader.name;
  catalog.add(std::move(loader));
  for (auto& variant : variants) catalog.add(std::move(variant));
  // The August 2025 release of the original wrote one of its names this way.
  catalog.add_alias(base + "Distorch2MultiGPU", base + "DisTorch2MultiGPU");
}

}  // namespace distorch::graph
