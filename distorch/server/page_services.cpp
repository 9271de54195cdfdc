#include "distorch/server/page_services.h"

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"

namespace distorch::server {

namespace {

/// The set-up notes the version of a folder that it fetched beside it: "page.version" tells of
/// "page". "" where there is no such note.
std::string version_of(const std::filesystem::path& folder) {
  try {
    auto text = read_file(folder.string() + ".version", 1000);
    return text.substr(0, text.find_first_of(" \r\n"));
  } catch (const Error&) {
    return "";
  }
}

ServerFacts completed(ServerFacts facts, const std::filesystem::path& page) {
  if (page.empty()) return facts;
  if (facts.page_version.empty()) facts.page_version = version_of(page);
  if (facts.templates_version.empty())
    facts.templates_version = version_of(page.parent_path() / "templates");
  return facts;
}

}  // namespace

PageServices::PageServices(PageOptions options, const graph::Catalog& catalog,
                           const ModelPlaces& models, const Machine& machine,
                           const NodeChoices& choices, Messages& messages)
    : folders_(std::move(options.folders)),
      users_(folders_.user, options.several_users),
      log_(messages),
      view_{folders_, models},
      upload_{folders_},
      userdata_{users_},
      settings_(users_),
      object_info_(catalog, choices),
      models_{models},
      system_{machine,
              models,
              folders_,
              catalog,
              completed(options.facts, options.scripts.page),
              std::move(options.scripts)},
      log_routes_{log_} {}

void PageServices::add_routes(Router& router) {
  add_view_routes(router, view_);
  add_upload_routes(router, upload_);
  add_userdata_routes(router, userdata_);
  add_settings_routes(router, settings_);
  add_object_info_routes(router, object_info_);
  add_models_routes(router, models_);
  add_system_routes(router, system_);
  add_log_routes(router, log_routes_);
}

}  // namespace distorch::server
