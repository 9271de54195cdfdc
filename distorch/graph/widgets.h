#pragma once
#include <string>
#include <utility>
#include <vector>

#include "distorch/graph/value.h"

namespace distorch::graph {

/// One widget of a node as the page has it, with the value that a workflow gives it.
struct Widget {
  std::string name;
  std::string type;  // INT, FLOAT, STRING, BOOLEAN, COMBO, COMFY_DYNAMICCOMBO_V3, COLOR, ...
  Json value;
  Json first_choice;  // what a choice falls back on when null is stored; null for other widgets
  bool dynamic_prompts = false;
  bool stored = false;  // the workflow has a value for it
};

/// A socket of a node, by name. Every widget has one too.
struct DeclaredInput {
  std::string name, type;
  bool widget = false;
};

/// What the conversion needs to know of one node: its widgets and sockets as they are once the
/// workflow's values are in place. They depend on the values: a dynamic combo brings the inputs of
/// the option that is chosen.
struct NodeForm {
  std::vector<Widget> widgets;  // those that are sent, in order
  /// In the page's order: plain sockets first, then widgets, those of an option behind their combo.
  std::vector<DeclaredInput> inputs;

  const Widget* find_widget(const std::string& name) const;
  const DeclaredInput* find_input(const std::string& name) const;
  /// True for a socket of the file that the page drops because the option chosen lacks it.
  bool drops(const std::string& socket) const;
};

/// What a workflow says about one node.
struct StoredNode {
  std::string type;
  Json values;                      // widgets_values: array by place, object by name, or null
  std::vector<std::string> linked;  // names of the inputs at which a link arrives
};

/// The form of a node, from its definition in /object_info and what the workflow stores. Missing
/// places have the defaults. Files of older pages had places for `forceInput` inputs: they are
/// skipped where the count tells.
NodeForm node_form(const Json& definition, const StoredNode& stored);

/// A value as the page writes it into a text: null is empty, whole numbers have no fraction.
std::string text_of_value(const Json& value);

/// The type of an input as links see it: "COMBO" for lists.
std::string link_type(const Json& input_definition);
/// True when a link of type `from` may feed an input of type `to`: equal, anything, or a shared
/// member of "A,B".
bool types_fit(const std::string& from, const std::string& to);

}  // namespace distorch::graph
