#include "distorch/nodes/app.h"

#include <c10/core/InferenceMode.h>

#include "distorch/device/device.h"
#include "distorch/device/retry.h"
#include "distorch/nodes/next_run.h"

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
  context.set(paces());
  // Nothing here is ever differentiated: without autograd's bookkeeping operations are issued sooner.
  context.set_surround([this](const graph::Context::Work& work) {
    c10::InferenceMode inference;
    // What nodes and samplers compute themselves needs memory, too.
    device::RetryScope retry([this](at::Device device, std::int64_t bytes) {
      return engine.make_room(device::name_of(device), bytes, nullptr);
    });
    work();
  });
  return context;
}

}  // namespace distorch::nodes
