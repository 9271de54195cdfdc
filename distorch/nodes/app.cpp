#include "distorch/nodes/app.h"

namespace distorch::nodes {

App::App(Settings given, ModelFolders places, streaming::EngineOptions options)
    : settings(std::move(given)),
      folders(std::move(places)),
      engine(std::move(options)),
      models(settings, folders, engine) {}

graph::Context App::context() {
  graph::Context context;
  context.set(*this);
  context.set(settings);
  context.set(folders);
  context.set(engine);
  context.set(models);
  return context;
}

}  // namespace distorch::nodes
