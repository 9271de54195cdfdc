#include "distorch/cli/server_surroundings.h"

#include <torch/headeronly/version.h>

#include <algorithm>

#include "distorch/base/hash.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/nodes/input_files.h"
#include "distorch/nodes/model_endings.h"

namespace distorch::cli {

namespace {

device::MemoryUse ram() { return device::memory_use(device::to_torch("cpu")); }

server::DeviceState state_of(const device::DeviceInfo& info) {
  auto torch = device::to_torch(info.name);
  auto use = device::memory_use(torch);
  server::DeviceState state;
  state.type = info.kind;
  state.total = use.total;
  if (!info.accelerator) {
    state.name = info.name;
    state.free = state.reserved_free = use.free;
    state.reserved = use.total;
    return state;
  }
  state.name = info.name + " " + info.description;
  state.index = torch.index();
  state.reserved = use.reserved;
  state.reserved_free = std::max<std::int64_t>(use.reserved - use.in_use, 0);
  state.free = use.free + state.reserved_free;
  return state;
}

server::PageOptions filled(const nodes::App& app, server::PageOptions options) {
  options.folders.input = app.settings.input_folder;
  options.folders.output = app.settings.output_folder;
  options.folders.temp = app.settings.temp_folder;
  options.facts.torch_version = TORCH_VERSION;
  return options;
}

}  // namespace

std::vector<std::filesystem::path> AppModels::folders(const std::string& type) const {
  return folders_.folders(type);
}

std::vector<std::string> AppModels::extensions(const std::string& type) const {
  return nodes::model_endings(type);
}

std::vector<std::string> AppModels::files(const std::string& type) const {
  return folders_.list(type);
}

std::optional<std::filesystem::path> AppModels::find(const std::string& type,
                                                     const std::string& name) const {
  return folders_.find(type, name);
}

std::int64_t AppMachine::ram_total() const { return ram().total; }

std::int64_t AppMachine::ram_free() const { return ram().free; }

std::vector<server::DeviceState> AppMachine::devices() const {
  auto first = engine_.device_for("");
  std::vector<server::DeviceState> states;
  for (const auto& info : engine_.devices()) {
    auto state = state_of(info);
    states.insert(info.name == first ? states.begin() : states.end(), std::move(state));
  }
  return states;
}

std::string AppChoices::state() const {
  std::string names;
  auto add = [&](const std::vector<std::string>& list) {
    for (const auto& name : list) {
      names += name;
      names += '\0';
    }
    names += '\n';
  };
  for (const auto& type : app_.folders.types()) add(app_.folders.list(type));
  add(nodes::input_names(app_.settings, {}));
  return hex(digest(names));
}

ServerSurroundings::ServerSurroundings(nodes::App& app, const graph::Catalog& catalog,
                                       server::PageOptions options, server::Messages& messages)
    : models_(app),
      machine_(app),
      choices_(app),
      services_(filled(app, std::move(options)), catalog, models_, machine_, choices_, messages) {}

}  // namespace distorch::cli
