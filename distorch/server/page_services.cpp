#include "distorch/server/page_services.h"

namespace distorch::server {

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
      system_{
          machine, models, folders_, catalog, std::move(options.facts), std::move(options.scripts)},
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
