#pragma once
#include <string>
#include <utility>
#include <vector>

#include "distorch/graph/value.h"

namespace distorch::graph {

/// The widgets of a node type, in the order of the places they take in a workflow's
/// `widgets_values`.
struct Widget {
  enum class Place {
    Sent,    // an input of the node
    Page,    // only the page uses it: seed control, upload button; takes a place, is not sent
    Refresh  // the button of a remote list; sent as the text "refresh"
  };
  std::string name;
  Place place = Place::Sent;
  std::string type;  // INT, FLOAT, STRING, BOOLEAN, COMBO, ...
  Json initial;      // the value when the workflow has none
  bool dynamic_prompts = false;
  bool forced = false;  // forceInput: a socket now, but older files had a place for it
};

/// A plain socket or widget of a type, by name.
struct DeclaredInput {
  std::string name, type;
  bool widget = false;
};

/// What the conversion needs to know of one /object_info definition.
struct WidgetLayout {
  std::vector<Widget> places;         // forced ones included, in definition order
  std::vector<DeclaredInput> inputs;  // required, then optional
};
WidgetLayout widget_layout(const Json& definition);

/// Name and value of every widget that is sent, from `widgets_values` (array by position, object by
/// name, or null). `class_type` decides on a fix-up: samplers lose an old "sample_" prefix.
std::vector<std::pair<std::string, Json>> widget_values(const WidgetLayout& layout,
                                                        const Json& stored,
                                                        const std::string& class_type);

/// The type of an input as links see it: "COMBO" for lists.
std::string link_type(const Json& input_definition);
/// True when a link of type `from` may feed an input of type `to`: equal, anything, or a shared
/// member of "A,B".
bool types_fit(const std::string& from, const std::string& to);

}  // namespace distorch::graph
