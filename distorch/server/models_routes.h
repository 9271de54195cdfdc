#pragma once
#include "distorch/server/router.h"
#include "distorch/server/surroundings.h"

namespace distorch::server {

struct ModelsState {
  const ModelPlaces& models;
};

/// GET /models, /models/{folder}, /embeddings; GET /experiment/models and
/// /experiment/models/{folder}: model files with their sizes and times;
/// GET /experiment/models/preview/{folder}/{index}/{file...}: a picture of a model.
/// `state` must outlive the router.
void add_models_routes(Router& router, ModelsState& state);

}  // namespace distorch::server
