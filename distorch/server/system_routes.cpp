#include "distorch/server/system_routes.h"

#include <algorithm>

#include "distorch/server/address.h"
#include "distorch/server/answers.h"
#include "distorch/server/node_replacements.h"
#include "distorch/server/user_files.h"

namespace distorch::server {

namespace fs = std::filesystem;

namespace {

/// The command line without what must stay secret.
Json shown_arguments(const std::vector<std::string>& arguments) {
  Json shown = Json::array();
  bool hide = false;
  for (const auto& argument : arguments) {
    auto name = argument.substr(0, argument.find('='));
    bool secret = name == "--auth-token" || name == "--tls-key";
    if (hide)
      shown.push_back("***");
    else if (secret && name.size() < argument.size())
      shown.push_back(name + "=***");
    else
      shown.push_back(argument);
    hide = !hide && secret && name.size() == argument.size();
  }
  return shown;
}

Json text_or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

Json packages_of(const ServerFacts& facts) {
  Json packages = Json::array();
  auto add = [&](const char* name, const std::string& version) {
    if (!version.empty())
      packages.push_back({{"name", name}, {"installed", version}, {"required", version}});
  };
  add("comfyui-frontend-package", facts.page_version);
  add("comfyui-workflow-templates", facts.templates_version);
  return packages;
}

Response system_stats(const Request&, const SystemState& state) {
  const auto& facts = state.facts;
  Json devices = Json::array();
  for (const auto& device : state.machine.devices())
    devices.push_back({{"name", device.name},
                       {"type", device.type},
                       {"index", device.index ? Json(*device.index) : Json()},
                       {"vram_total", device.total},
                       {"vram_free", device.free},
                       {"torch_vram_total", device.reserved},
                       {"torch_vram_free", device.reserved_free}});
  return Response::json(
      Json{{"system",
            {{"os", "linux"},
             {"ram_total", state.machine.ram_total()},
             {"ram_free", state.machine.ram_free()},
             {"comfyui_version", facts.comfyui_version},
             {"required_frontend_version", text_or_null(facts.page_version)},
             {"installed_templates_version", text_or_null(facts.templates_version)},
             {"required_templates_version", text_or_null(facts.templates_version)},
             {"comfy_package_versions", packages_of(facts)},
             {"python_version", "none (distorch " + facts.distorch_version + ")"},
             {"pytorch_version", facts.torch_version},
             {"embedded_python", false},
             {"deploy_environment", "distorch"},
             {"argv", shown_arguments(facts.arguments)}}},
           {"devices", devices}});
}

/// Paths of the scripts below a folder, behind `prefix`, sorted.
void add_scripts(Json& all, const fs::path& folder, const std::string& prefix) {
  for (const auto& file : files_below(folder, folder, true))
    if (file.extension() == ".js")
      all.push_back(prefix + file.lexically_relative(folder).generic_string());
}

Response extensions(const Request&, const SystemState& state) {
  Json all = Json::array();
  const auto& scripts = state.scripts;
  if (!scripts.page.empty()) add_scripts(all, scripts.page / "extensions", "/extensions/");
  for (const auto& [name, folder] : scripts.extensions)
    add_scripts(all, folder, "/extensions/" + percent_encoded(name) + "/");
  for (const auto& script : scripts.own) all.push_back(script);
  return Response::json(all);
}

Response folder_paths(const Request&, const SystemState& state) {
  Json all = Json::object();
  for (const auto& type : state.models.types()) {
    auto& folders = all[type] = Json::array();
    for (const auto& folder : state.models.folders(type))
      folders.push_back(fs::absolute(folder).lexically_normal().string());
  }
  return Response::json(all);
}

/// Names of the files directly in a folder, newest first, as choices name them.
Response files_of_type(const Request& request, const SystemState& state) {
  const auto& type = request.parameters.at("type");
  const auto* folder = state.folders.of_type(type);
  if (!folder) return refusal(400, "Invalid directory type");
  std::vector<std::pair<double, std::string>> found;
  for (const auto& file : files_below(*folder, *folder, false))
    found.emplace_back(-times_of(file).modified, file.filename().string());
  std::sort(found.begin(), found.end());
  Json names = Json::array();
  for (const auto& [time, name] : found) names.push_back(name + " [" + type + "]");
  return Response::json(names);
}

/// Routes that exist for what add-ons bring; there are no add-ons.
Response nothing(const Request&, const SystemState&) { return Response::json(Json::object()); }

}  // namespace

Json server_features(const SystemState& state) {
  return Json{{"supports_preview_metadata", true},
              {"max_upload_size", state.facts.upload_limit},
              {"extension", {{"manager", {{"supports_v4", false}}}}},
              {"node_replacements", true},
              {"assets", false}};
}

void add_system_routes(Router& router, SystemState& state) {
  auto add = [&](Mount mount, const char* pattern, const char* summary, auto answer) {
    router.add(
        {.method = Method::Get,
         .pattern = pattern,
         .mount = mount,
         .summary = summary,
         .handler = [&state, answer](const Request& request) { return answer(request, state); }});
  };
  add(Mount::Both, "/system_stats", "Versions, memory and devices.", system_stats);
  add(Mount::Both, "/features", "What the server can do, as the socket's feature_flags say it.",
      [](const Request&, const SystemState& all) { return Response::json(server_features(all)); });
  add(Mount::Both, "/node_replacements", "Old node types and what replaces them.",
      [](const Request&, const SystemState& all) {
        return Response::json(node_replacements(all.catalog));
      });
  add(Mount::Both, "/extensions", "Scripts that the page imports.", extensions);
  add(Mount::Both, "/i18n", "Translations that add-ons bring: none.", nothing);
  add(Mount::Both, "/global_subgraphs", "Subgraphs that add-ons bring: none.", nothing);
  add(Mount::Both, "/global_subgraphs/{id}", "One of these: null.",
      [](const Request&, const SystemState&) { return Response::json(Json()); });
  add(Mount::Plain, "/internal/folder_paths", "Where model files are looked for.", folder_paths);
  add(Mount::Plain, "/internal/files/{type}",
      "Names of the files in the input, output or temp folder, newest first.", files_of_type);
}

}  // namespace distorch::server
