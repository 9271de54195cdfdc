#pragma once
#include <cstdint>
#include <ctime>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "distorch/graph/catalog.h"

namespace distorch::graph {

/// The node definitions that a conversion needs, by type, in the form of /object_info. Not for
/// several threads at once: definitions of a catalog are made when they are first asked for.
class Definitions {
 public:
  /// The catalog must outlive this object.
  explicit Definitions(const Catalog& catalog);
  /// {type: definition}, as a server answers GET /object_info.
  explicit Definitions(const Json& object_info);

  /// nullptr for an unknown type.
  const Json* find(const std::string& type) const;
  std::vector<std::string> names() const;

 private:
  const Catalog* catalog_ = nullptr;
  mutable std::map<std::string, Json> by_type_;
};

enum class WorkflowFormat {
  Ui,  // what the page saves: nodes, links, positions
  Api  // what is executed: {id: {class_type, inputs}}
};
/// Throws Error(Format, where) for JSON that is neither.
WorkflowFormat detect_format(const Json& json, const std::string& where);

enum class UnknownTypes {
  Refuse,
  Keep  // sent with what the file says about them: values by name, links
};

struct ConvertOptions {
  std::string where = "workflow";        // named in errors
  std::uint64_t dynamic_seed = 0;        // chooses among {a|b|c} in prompts
  std::time_t now = std::time(nullptr);  // for %date:...%, shown in local time
  UnknownTypes unknown_types = UnknownTypes::Refuse;
};

struct Prompt {
  Json nodes;     // {id: {"inputs", "class_type", "_meta": {"title"}}}
  Json workflow;  // the UI workflow it came from, null where it was a prompt already
  // what the user should know: dynamic prompts chosen, decorations left out
  std::vector<std::string> notes;
};

/// UI workflow -> prompt: subgraphs are flattened (ids "2:31"), reroutes, primitives, notes, muted
/// and bypassed nodes are resolved, widget values get their names, %date% and %Node.widget% in file
/// names are filled in. Throws Error(Usage) naming node and type for everything it cannot convert
/// (all unknown types at once, unless they are kept), Error(Format) for broken structure: links in a loop, a subgraph
/// that contains itself. Source of the rules: the behaviour of ComfyUI's page, checked by
/// tests/workflows/graph_to_prompt.
Prompt ui_to_api(const Json& workflow, const Definitions& definitions,
                 const ConvertOptions& options = {});

/// Text of a workflow or a prompt file (also {"prompt": {...}}, a request as it is posted) ->
/// prompt.
Prompt load_prompt(std::string_view text, const Definitions& definitions,
                   const ConvertOptions& options = {});

}  // namespace distorch::graph
