#pragma once
#include "distorch/server/router.h"
#include "distorch/server/surroundings.h"

namespace distorch::server {

struct UploadState {
  const FileFolders& folders;
};

/// POST /upload/image: stores a file of any kind in the input, output or temp folder.
/// POST /upload/mask: stores a picture of those folders with the alpha of the posted one.
/// Files appear whole or not at all. A name that is taken by another content gets " (1)", " (2)",
/// ... before its ending; one that holds the same content is kept and answered.
/// `state` must outlive the router.
void add_upload_routes(Router& router, UploadState& state);

}  // namespace distorch::server
