#pragma once
#include "distorch/server/router.h"
#include "distorch/server/surroundings.h"

namespace distorch::server {

struct ViewState {
  const FileFolders& folders;
  const ModelPlaces& models;
};

/// GET /view: a file of the input, output or temp folder, as it is or re-encoded.
/// GET /view_metadata/{folder}: what a model file says about itself.
/// `state` must outlive the router.
void add_view_routes(Router& router, ViewState& state);

/// The "__metadata__" of a safetensors file as JSON; nothing where the file has none, is no such
/// file, or has a header of more than `limit_bytes`.
std::optional<Json> safetensors_metadata(const std::filesystem::path& file,
                                         std::size_t limit_bytes);

}  // namespace distorch::server
