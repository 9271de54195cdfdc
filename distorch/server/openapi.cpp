#include "distorch/server/openapi.h"

#include "distorch/base/text.h"

namespace distorch::server {

namespace {

/// The parameters of a pattern in their order, and the pattern as OpenAPI writes it: "{path...}"
/// has no dots there.
struct Pattern {
  std::string path;
  std::vector<std::string> parameters;
};

Pattern pattern_of(const std::string& text) {
  Pattern pattern;
  for (std::size_t at = 0; at < text.size();) {
    auto end = text[at] == '{' ? text.find('}', at) : std::string::npos;
    if (end == std::string::npos) {
      pattern.path += text[at++];
      continue;
    }
    auto name = text.substr(at + 1, end - at - 1);
    if (name.size() > 3 && name.compare(name.size() - 3, 3, "...") == 0)
      name.resize(name.size() - 3);
    pattern.path += '{';
    pattern.path += name;
    pattern.path += '}';
    pattern.parameters.push_back(std::move(name));
    at = end + 1;
  }
  return pattern;
}

/// "get_userdata_file": unique, since method and path are.
std::string operation_id(const std::string& method, const std::string& path) {
  auto id = method;
  for (char c : path) {
    bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (word)
      id += c;
    else if (id.back() != '_')
      id += '_';
  }
  while (id.back() == '_') id.pop_back();
  return id;
}

Json servers_of(Mount mount) {
  Json servers = Json::array();
  if (mount != Mount::Api) servers.push_back({{"url", "/"}});
  if (mount != Mount::Plain) servers.push_back({{"url", "/api"}});
  return servers;
}

Json operation_of(const Route& route, const Pattern& pattern, const std::string& method) {
  Json operation = {{"summary", route.summary},
                    {"operationId", operation_id(method, pattern.path)},
                    {"servers", servers_of(route.mount)}};
  if (!pattern.parameters.empty()) operation["parameters"] = Json::array();
  for (const auto& name : pattern.parameters)
    operation["parameters"].push_back(
        {{"name", name}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}});
  operation["responses"] = {{"200", {{"description", "What the summary says."}}},
                            {"default", {{"$ref", "#/components/responses/Refusal"}}}};
  return operation;
}

Json refusal_schema() {
  Json schema = {{"type", "object"}, {"properties", {{"error", Json::object()}}}};
  return Json{{"description", "Why the request was refused."},
              {"content", {{"application/json", {{"schema", schema}}}}}};
}

}  // namespace

Json openapi_of(const std::vector<Route>& routes, const std::string& version) {
  Json paths = Json::object();
  for (const auto& route : routes) {
    auto pattern = pattern_of(route.pattern);
    auto method = lower(name_of(route.method));
    auto& operations = paths[pattern.path];
    if (!operations.contains(method)) operations[method] = operation_of(route, pattern, method);
  }
  return Json{{"openapi", "3.1.0"},
              {"info", {{"title", "distorch: ComfyUI's API"}, {"version", version}}},
              {"paths", paths},
              {"components", {{"responses", {{"Refusal", refusal_schema()}}}}}};
}

void add_openapi_route(Router& router, const std::string& version) {
  router.add({.method = Method::Get,
              .pattern = "/openapi.json",
              .summary = "This description.",
              .handler = [&router, version](const Request&) {
                return Response::json(openapi_of(router.routes(), version));
              }});
}

}  // namespace distorch::server
