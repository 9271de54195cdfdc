#pragma once
#include <map>
#include <string>
#include <vector>

#include "distorch/graph/catalog.h"
#include "distorch/server/router.h"
#include "distorch/server/surroundings.h"

namespace distorch::server {

/// What the program says about itself. Set once at the start.
struct ServerFacts {
  /// The level of ComfyUI's API that is implemented; clients and the page decide by it.
  std::string comfyui_version = "0.33.0";
  std::string distorch_version;
  std::string torch_version;
  /// Of the page and its templates; "" where they are not installed.
  std::string page_version;
  std::string templates_version;
  /// The command line. Values of --auth-token and --tls-key are hidden in answers.
  std::vector<std::string> arguments;
  std::int64_t upload_limit = 100 << 20;  // bytes
};

/// Scripts that the page imports at its start.
struct PageScripts {
  /// The page's own tree; its scripts below "extensions/" are listed. May be empty.
  std::filesystem::path page;
  /// Folders that are served as /extensions/<name>/.
  std::map<std::string, std::filesystem::path> extensions;
  /// Addresses of scripts that the server itself has.
  std::vector<std::string> own;
};

struct SystemState {
  const Machine& machine;
  const ModelPlaces& models;
  const FileFolders& folders;
  const graph::Catalog& catalog;
  ServerFacts facts;
  PageScripts scripts;
};

/// What the server says it can do: GET /features, and the answer to a client's "feature_flags" on
/// its socket. Only what exists is announced.
Json server_features(const SystemState& state);

/// GET /system_stats, /features, /node_replacements, /extensions, /i18n, /global_subgraphs,
/// /internal/folder_paths, /internal/files/{type}. `state` must outlive the router.
void add_system_routes(Router& router, SystemState& state);

}  // namespace distorch::server
