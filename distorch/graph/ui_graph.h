#pragma once
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "distorch/graph/value.h"

namespace distorch::graph {

/// The page's workflow file read into plain structures. Ids of nodes and links, numbers or texts in
/// the file, are texts here.

struct UiSocket {
  std::string name, type;
  std::string link;    // id of the link that arrives here, "" for none
  std::string widget;  // name of the widget it stands for, "" for a plain socket
};

enum class UiMode { Active, Muted, Bypassed };

struct UiNode {
  std::string id;       // unique in the whole workflow (renumbered where the file repeats one)
  std::string file_id;  // as its own graph's links name it
  std::string type, title;
  UiMode mode = UiMode::Active;
  std::vector<UiSocket> inputs;
  std::vector<UiSocket> outputs;  // name and type; `link` is not used
  bool any_output_linked = false;
  Json widgets_values;  // array, object or null
  Json named_values;    // widgets_values_named of newer files: object or null
  /// Older promoted widgets, in the order of widgets_values: inner file id ("-1": an input) and
  /// widget name.
  std::vector<std::pair<std::string, std::string>> proxy_widgets;
  std::string search_name;  // properties["Node name for S&R"]
  std::string pack;         // "name version" of the pack that the node came from, "" if not told

  const UiSocket* find_input(const std::string& name) const;
  bool is_virtual() const;  // lives on the page only: Reroute, PrimitiveNode, Note, MarkdownNote
  /// The same for types that widespread extensions of the page bring: GetNode, SetNode, ...
  bool is_page_addon() const;
};

struct UiLink {
  std::string from, to;  // file ids; "-10" and "-20" are a subgraph's own inputs and outputs
  std::size_t from_slot = 0, to_slot = 0;
};

struct UiGraph {
  std::string id, name;                               // of a subgraph definition
  std::size_t place = 0;                              // of a definition: its place in the file
  std::vector<UiSocket> inputs, outputs;              // of a subgraph definition
  std::vector<std::vector<std::string>> input_links;  // link ids by input, in the order of the file
  std::vector<UiNode> nodes;
  std::unordered_map<std::string, std::size_t> by_id;  // file id -> nodes
  std::unordered_map<std::string, UiLink> links;
  std::unordered_map<std::size_t, std::string> output_links;  // slot of -20 -> link id

  const UiNode* find(const std::string& file_id) const;
  const UiLink* find_link(const std::string& link_id) const;
};

struct UiWorkflow {
  UiGraph root;
  std::map<std::string, UiGraph> subgraphs;  // by definition id
  std::vector<std::string> group_nodes;      // names of old group nodes that the file defines

  /// The page loads inner definitions first, but gives up sorting where a definition holds another
  /// one twice: it then loads them as the file lists them, and an instance whose definition is not
  /// loaded yet forgets the values of its widgets.
  bool loaded_in_file_order = false;

  const UiGraph* subgraph(const std::string& type) const;
  /// True when an instance of `inner` within `outer` has lost its values that way.
  bool forgets_values(const UiGraph& outer, const UiGraph& inner) const;
};

inline constexpr const char* kSubgraphInput = "-10";
inline constexpr const char* kSubgraphOutput = "-20";

/// Throws Error(Format, where): fields of the wrong kind, definitions that contain themselves.
UiWorkflow read_ui_workflow(const Json& json, const std::string& where);

}  // namespace distorch::graph
