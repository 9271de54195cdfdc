#include "distorch/server/template_lists.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <set>

#include "distorch/base/log.h"
#include "distorch/graph/json_text.h"

namespace distorch::server {
namespace {

namespace fs = std::filesystem;
using graph::Json;
using Knows = std::function<bool(const std::string& type)>;

// The page itself takes care of these.
const std::set<std::string> kPageTypes = {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"};

std::optional<Json> read_json(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return std::nullopt;
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  try {
    return graph::parse_json(text, file.filename().string());
  } catch (const Error& error) {
    log::warn("template {}", error.what());
    return std::nullopt;
  }
}

// A list below this key; an empty one where there is none.
Json list_at(const Json& object, const char* key) {
  const bool there = object.is_object() && object.contains(key) && object.at(key).is_array();
  return there ? object.at(key) : Json::array();
}

std::string text_at(const Json& object, const char* key) {
  const bool there = object.is_object() && object.contains(key) && object.at(key).is_string();
  return there ? object.at(key).get<std::string>() : "";
}

bool can_run(const Json& workflow, const Knows& knows) {
  std::set<std::string> own_types = kPageTypes;
  const Json definitions = workflow.is_object() ? workflow.value("definitions", Json()) : Json();
  const Json subgraphs = list_at(definitions, "subgraphs");
  for (const Json& subgraph : subgraphs) own_types.insert(text_at(subgraph, "id"));
  auto all_known = [&](const Json& graph) {
    for (const Json& node : list_at(graph, "nodes")) {
      const std::string type = text_at(node, "type");
      if (!own_types.contains(type) && !knows(type)) return false;
    }
    return true;
  };
  return all_known(workflow) && std::all_of(subgraphs.begin(), subgraphs.end(), all_known);
}

class Judge {
 public:
  Judge(fs::path folder, const Knows& knows) : folder_(std::move(folder)), knows_(knows) {}

  bool takes(const std::string& name) {
    auto known = verdicts_.find(name);
    if (known != verdicts_.end()) return known->second;
    const bool is_name = !name.empty() && name.find('/') == std::string::npos;
    const auto workflow = is_name ? read_json(folder_ / (name + ".json")) : std::nullopt;
    return verdicts_[name] = workflow && can_run(*workflow, knows_);
  }

 private:
  fs::path folder_;
  const Knows& knows_;
  std::map<std::string, bool> verdicts_;
};

Json what_is_left(const Json& list, Judge& judge) {
  Json result = Json::array();
  for (const Json& category : list) {
    Json kept = Json::array();
    for (const Json& entry : list_at(category, "templates"))
      if (judge.takes(text_at(entry, "name"))) kept.push_back(entry);
    if (kept.empty()) continue;
    Json copy = category;
    copy["templates"] = std::move(kept);
    result.push_back(std::move(copy));
  }
  return result;
}

bool is_list(const std::string& name) {
  return (name == "index.json" || (name.starts_with("index.") && name.ends_with(".json"))) &&
         name != "index.schema.json";
}

}  // namespace

std::map<std::string, std::string> template_lists(const fs::path& folder, const Knows& knows) {
  std::map<std::string, std::string> result;
  std::error_code code;
  Judge judge(folder, knows);
  for (const auto& entry : fs::directory_iterator(folder, code)) {
    const std::string name = entry.path().filename().string();
    if (!is_list(name)) continue;
    const auto list = read_json(entry.path());
    if (list && list->is_array()) result[name] = graph::json_line(what_is_left(*list, judge));
  }
  return result;
}

}  // namespace distorch::server
