#pragma once
#include <string>
#include <vector>

#include "distorch/graph/catalog.h"

namespace distorch::graph {

/// "NODE.INPUT=VALUE" from the command line. The last dot before the first '=' separates node and
/// input; node ids of subgraphs ("2:31") and titles with dots work.
struct Override {
  std::string node, input, value;
};
/// Throws Error(Usage) quoting the text.
Override parse_override(const std::string& text);

/// Sets inputs of a prompt. NODE is an id, else a title, else a node type, and must mean one node
/// (letters' case decides only where it must). VALUE is read as the input's declared type wants it;
/// a link on that input is replaced. Throws Error(Usage): unknown or ambiguous node (with
/// candidates), unknown input (with the node's inputs), an input that takes no constant, a value
/// that does not fit.
void apply_override(Json& prompt, const Override& change, const Catalog& catalog);
void apply_overrides(Json& prompt, const std::vector<std::string>& texts, const Catalog& catalog);

}  // namespace distorch::graph
