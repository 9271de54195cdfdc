#pragma once
#include "distorch/graph/call.h"
#include "distorch/nodes/model_cache.h"
#include "distorch/nodes/model_folders.h"
#include "distorch/nodes/settings.h"
#include "distorch/streaming/engine.h"

namespace distorch::nodes {

/// Everything that nodes find in a run's context. One an application; must outlive its catalogs and
/// runs.
///
///   nodes::App app(settings, ModelFolders("models"), engine_options);
///   graph::Catalog catalog;
///   nodes::add_all(catalog, app);      // nodes/catalog.h
///   graph::Context context = app.context();
struct App {
  explicit App(Settings settings, ModelFolders folders = {}, streaming::EngineOptions engine = {});
  App(const App&) = delete;
  App& operator=(const App&) = delete;

  /// Settings, ModelFolders, Engine, ModelCache and App itself, by type. Nodes that run with it are
  /// in torch's inference mode, and an operation of theirs that runs out of memory makes room.
  graph::Context context();

  Settings settings;
  ModelFolders folders;
  streaming::Engine engine;
  ModelCache models;
};

}  // namespace distorch::nodes
