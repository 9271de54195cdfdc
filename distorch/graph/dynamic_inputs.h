#pragma once
#include <memory>
#include <string>
#include <vector>

#include "distorch/graph/catalog.h"

/// Inputs of newer node types that a definition does not list one by one. In a prompt they have
/// names with a dot: "values.a", "resize_type.width".
namespace distorch::graph {

constexpr const char* kMatchType = "COMFY_MATCHTYPE_V3";
constexpr const char* kGrowing = "COMFY_AUTOGROW_V3";
constexpr const char* kDynamicChoice = "COMFY_DYNAMICCOMBO_V3";

/// A link of any of the `allowed` types ("IMAGE,MASK"); an output of type kMatchType has the type of
/// what is linked.
Input match_type(std::string name, std::string id, std::string allowed = "*", bool lazy = false);

/// As many inputs like `element` as are linked, called prefix0, prefix1, ...: at least `min` and at
/// most `max` of them.
Input growing(std::string name, const Input& element, std::string prefix, int min, int max);
/// The same with given names, of which the first `min` are required.
Input growing(std::string name, const Input& element, std::vector<std::string> names, int min);

/// A list of which each choice brings inputs of its own.
struct Option {
  std::string key;
  std::vector<Input> inputs;
};
Input dynamic_choice(std::string name, const std::vector<Option>& options,
                     std::string tooltip = {});

/// The widgets that a choice brings, of a list whose options name them under "formats", as
/// VideoHelperSuite's do: [name, type or choices, options], called by these names in a prompt.
Json widgets_of(const Json& options, const std::string& chosen);

/// The inputs that a node of this type has when a prompt gives it these values, in order: what
/// grows or belongs to a choice is listed under its whole name. Null: those of the type.
std::shared_ptr<const std::vector<Input>> live_inputs(const NodeType& type, const Json& given);

/// The types that an input takes: for kMatchType the allowed ones.
std::string accepted_type(const Input& input);
/// For /object_info: the id of the type that an output shares with inputs, null for others; null
/// instead of a list where there is none such.
Json output_match_ids(const NodeType& type);

}  // namespace distorch::graph
