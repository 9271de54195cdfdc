#include "distorch/nodes/app.h"

#include <c10/core/InferenceMode.h>

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
  // Nothing here is ever differentiated: without autograd's bookkeeping operations are issued sooner.
  context.set_surround([](const graph::Context::Work& work) {
    c10::InferenceMode inference;
    work();
  });
  return context;
}

}  // namespace distorch::nodes
