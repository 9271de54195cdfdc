#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "distorch/graph/ui_graph.h"
#include "distorch/graph/ui_to_api.h"
#include "distorch/graph/widgets.h"

namespace distorch::graph {

/// One graph as it stands in the whole: the root, or the inside of one subgraph instance.
struct Scope {
  const UiGraph* graph = nullptr;
  const Scope* parent = nullptr;
  const UiNode* host = nullptr;  // the instance, in parent
  std::string prefix;            // "2:5:" before the ids inside
  std::size_t depth = 0;
  std::unordered_map<std::string, const Scope*> inside;  // by the instance's file id
  /// What the instance gives to widgets inside, by inner file id and widget name; nothing where it
  /// only shows the inner value.
  std::map<std::pair<std::string, std::string>, std::optional<Json>> overrides;

  std::string id_of(const UiNode& node) const { return prefix + node.id; }
};

/// The value of one widget of a node in its place.
struct OwnValue {
  const Widget* widget = nullptr;
  Json value;
  bool promoted = false;  // comes from the instance around it: sent as it is
};

/// Where a link comes from in the end.
struct Source {
  enum Kind { Nothing, Node, Constant } kind = Nothing;
  std::string id;
  std::size_t slot = 0;
  Json value;
};

/// A workflow unfolded: one scope per subgraph instance, and the questions a conversion asks of it.
/// Throws Error(Format) for files that grow without bound, nest too deeply, or whose links run in a
/// circle.
class FlatWorkflow {
 public:
  /// All three must outlive this object.
  FlatWorkflow(const UiWorkflow& workflow, const Definitions& definitions,
               const std::string& where);

  /// The root first.
  const std::deque<Scope>& scopes() const { return scopes_; }
  /// Reroutes, notes and the like: on the page only.
  bool is_virtual(const UiNode& node) const;
  /// Widgets and sockets of a node; empty for a type that nobody defines.
  const NodeForm& form(const UiNode& node);
  /// The values of a node's widgets: stored, then written by primitives, then given by the
  /// instance around it.
  std::vector<OwnValue> own_values(const Scope& scope, const UiNode& node);
  /// Follows the link that arrives at this input of the node.
  Source source(const Scope& scope, const UiNode& node, const UiSocket& socket);

 private:
  void enter(Scope& scope, const UiNode& host, const UiGraph& inner);
  std::optional<Json> stored_at(const Scope& scope, const UiNode& host, std::size_t place,
                                const std::string& name) const;
  void note_primitives(const UiGraph& graph);
  const std::vector<bool>& promoted(const UiGraph& graph);
  bool feeds_widget(const UiGraph& graph, const UiLink& link);
  Json host_value(const Scope& scope, const UiNode& host, const UiGraph& inner, std::size_t input);
  const UiLink* first_fed(const UiGraph& graph, std::size_t input);
  Json fed_value(const Scope& scope, std::size_t input);
  const Widget* fed_widget(const Scope* scope, std::size_t input);
  Source resolve(const Scope* scope, std::string link_id, std::string wanted);
  std::optional<Source> leave(const Scope*& scope, const UiLink& link, std::string& link_id);
  std::string pass_virtual(const Scope& scope, const UiNode& node, std::size_t slot) const;
  UiSocket bypass(const UiNode& node, std::size_t slot, const std::string& wanted);
  std::vector<UiSocket> page_sockets(const UiNode& node);

  const UiWorkflow& workflow_;
  const Definitions& definitions_;
  const std::string& where_;
  std::deque<Scope> scopes_;
  // By graph, node and widget: what primitives write.
  std::unordered_map<const UiGraph*, std::unordered_map<std::string, std::map<std::string, Json>>>
      primitives_;
  std::unordered_map<const UiGraph*, std::vector<bool>> promoted_;
  std::unordered_map<const UiNode*, NodeForm> forms_;
  std::size_t steps_ = 0;
};

}  // namespace distorch::graph
