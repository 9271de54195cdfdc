#pragma once
#include "distorch/server/log_routes.h"
#include "distorch/server/models_routes.h"
#include "distorch/server/object_info_routes.h"
#include "distorch/server/settings_routes.h"
#include "distorch/server/system_routes.h"
#include "distorch/server/upload_routes.h"
#include "distorch/server/userdata_routes.h"
#include "distorch/server/view_routes.h"

namespace distorch::server {

struct PageOptions {
  FileFolders folders;
  bool several_users = false;
  ServerFacts facts;
  PageScripts scripts;
};

/// All that a page asks of the server beside prompts: files, uploads, user data, settings, node
/// types, models, the system, the log. What is handed over must outlive this object, and this object
/// the router.
class PageServices {
 public:
  /// Versions of the page and its templates that the options do not give are read from what the
  /// set-up noted beside the page. Error(Format) where users.json is none of ours.
  PageServices(PageOptions options, const graph::Catalog& catalog, const ModelPlaces& models,
               const Machine& machine, const NodeChoices& choices, Messages& messages);

  void add_routes(Router& router);
  /// Makes the list of node types, for which a page would wait. From any thread.
  void prepare() { object_info_.text.get(); }
  /// To be told of lines (LogFeed::sink) and of clients that went (LogFeed::unsubscribe).
  LogFeed& log() { return log_; }
  Users& users() { return users_; }
  const FileFolders& folders() const { return folders_; }
  /// What the server answers to a client's "feature_flags".
  Json features() const { return server_features(system_); }

 private:
  FileFolders folders_;
  Users users_;
  LogFeed log_;
  ViewState view_;
  UploadState upload_;
  UserdataState userdata_;
  SettingsState settings_;
  ObjectInfoState object_info_;
  ModelsState models_;
  SystemState system_;
  LogState log_routes_;
};

}  // namespace distorch::server
