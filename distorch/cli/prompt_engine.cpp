#include "distorch/cli/prompt_engine.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "distorch/base/log.h"
#include "distorch/base/rig.h"
#include "distorch/base/text.h"
#include "distorch/cli/devices_report.h"
#include "distorch/cli/plan_report.h"
#include "distorch/cli/workflow_run.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/nodes/catalog.h"
#include "distorch/placement/placement.h"
#include "distorch/server/node_replacements.h"
#include "distorch/streaming/engine_watch.h"

namespace distorch::cli {

using graph::Json;

namespace {

/// For which node each planned run was made.
class PlannedNodes final : public graph::EventSink {
 public:
  explicit PlannedNodes(const streaming::Engine& engine) : engine_(engine) {}
  void send(const graph::Event& event) override {
    const auto* executing = std::get_if<graph::Executing>(&event);
    if (!executing || !executing->node) return;
    attribute();
    node_ = executing->display_node;
    seconds_.try_emplace(node_);
  }
  /// Of every node that was run; `all` are the prices of the engine's planned runs.
  NodeSeconds seconds(const std::vector<Priced>& all) {
    attribute();
    for (const auto& priced : all) {
      auto one = priced.seconds();
      if (!std::isfinite(one) || one <= 0) continue;
      for (auto run : priced.runs) {
        auto& sum = seconds_[owners_.at(run)];
        sum = sum.value_or(0) + one;
      }
    }
    return std::move(seconds_);
  }

 private:
  void attribute() { owners_.resize(engine_.planned_runs().size(), node_); }

  const streaming::Engine& engine_;
  std::string node_;
  std::vector<std::string> owners_;
  NodeSeconds seconds_;
};

/// What the prompt's extra_data asks for, else `usual`; a method that is none counts as not asked.
nodes::PreviewMethod previews_of(const server::Job& job, nodes::PreviewMethod usual) {
  auto asked = job.extra_data.find("preview_method");
  if (asked == job.extra_data.end() || !asked->is_string() || *asked == "default") return usual;
  try {
    return nodes::preview_method(asked->get<std::string>());
  } catch (const Error& error) {
    log::warn("prompt {}: {}", job.id, error.what());
    return usual;
  }
}

bool names_a_model(const std::string& text) {
  auto small = lower(text);
  for (const char* ending : {".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin"})
    if (small.ends_with(ending)) return true;
  return false;
}

void read_ahead(const std::filesystem::path& path, std::int64_t& room) {
  std::error_code code;
  auto size = static_cast<std::int64_t>(std::filesystem::file_size(path, code));
  if (code || size > room) return;
  int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  ::posix_fadvise(file, 0, 0, POSIX_FADV_WILLNEED);
  ::close(file);
  room -= size;
}

/// The same options for a plan: accelerators that are simulated as sim:0, sim:1, ... have the names of
/// the rig there.
MachineOptions planned_options(MachineOptions options, const Rig& rig) {
  int index = 0;
  for (const auto& device : rig.devices) {
    if (placement::kind_of(device.name) != placement::DeviceKind::Accelerator) continue;
    const auto running = fmt::format("sim:{}", index++);
    for (auto& entry : options.device_map)
      if (entry.ends_with("=" + running))
        entry.replace(entry.size() - running.size(), running.size(), device.name);
    for (auto& entry : options.memory)
      if (entry.starts_with(running + "=")) entry.replace(0, running.size(), device.name);
    if (options.device == running) options.device = device.name;
    for (auto& entry : options.compute_devices)
      if (entry == running) entry = device.name;
    // Workflows may name them as they are called while they run.
    options.device_map.push_back(running + "=" + device.name);
  }
  return options;
}

}  // namespace

PromptEngine::PromptEngine(nodes::App& app, MachineOptions options, EngineChoices choices)
    : app_(app),
      options_(std::move(options)),
      choices_(std::move(choices)),
      previews_(app.settings.previews),
      downloads_(allowed_downloads(options_)),
      context_(app.context()),
      executor_(catalog_, choices_.cache, choices_.cache_size) {
  if (downloads_) context_.set(*downloads_);
  nodes::add_all(catalog_, app);
  if (choices_.more_nodes) choices_.more_nodes(catalog_);
  replacements_ = server::node_replacements(catalog_);
}

graph::Validation PromptEngine::validate(Json& prompt,
                                         std::optional<std::vector<std::string>> targets) {
  server::replace_nodes(prompt, replacements_);
  return graph::validate(prompt, catalog_, {.targets = std::move(targets), .context = &context_});
}

graph::RunResult PromptEngine::run(const server::Job& job, const std::shared_ptr<RunToken>& token,
                                   graph::EventSink& sink) {
  app_.settings.previews = previews_of(job, previews_);
  graph::RunRequest request;
  request.prompt = job.prompt;
  request.outputs = job.outputs;
  request.prompt_id = job.id;
  if (const auto* info = job.extra_pnginfo()) request.extra_pnginfo = *info;
  request.context = &context_;
  request.token = token;
  PlacementReports::Run watched(reports_, sink, job.prompt, job.outputs);
  auto result = executor_.run(request, watched);
  if (result.error) {
    log::error("node {} ({}): {}", result.error->node_id, result.error->node_type,
               result.error->exception_message);
    if (result.error->exception_type == "OOMError") app_.engine.unload_all();
  }
  return result;
}

void PromptEngine::release(bool models, bool results) {
  if (results) executor_.release();
  if (models) app_.engine.unload_all();
  for (const auto& info : app_.engine.devices())
    if (info.accelerator) device::empty_cache(device::to_torch(info.name));
  if (reports_) reports_->settle();
}

std::vector<std::filesystem::path> model_files_of(const Json& prompt,
                                                  const nodes::ModelFolders& folders) {
  std::vector<std::filesystem::path> files;
  std::set<std::string> seen;
  auto types = folders.types();
  if (!prompt.is_object()) return files;
  for (const auto& node : prompt) {
    if (!node.is_object() || !node.contains("inputs") || !node["inputs"].is_object()) continue;
    for (const auto& value : node["inputs"]) {
      if (!value.is_string()) continue;
      auto name = value.get<std::string>();
      if (!names_a_model(name) || !seen.insert(name).second) continue;
      for (const auto& type : types)
        if (auto path = folders.find(type, name)) {
          files.push_back(*path);
          break;
        }
    }
  }
  return files;
}

Json PromptEngine::look_ahead(const server::Job& job, const std::shared_ptr<RunToken>& token) {
  auto room = device::host_room();
  for (const auto& path : model_files_of(job.prompt, app_.folders)) {
    token->throw_if_stopped();
    read_ahead(path, room);
  }
  Json prompt = job.prompt;
  auto validation = validate(prompt, job.outputs);
  if (!validation.can_run())
    throw Error(ErrorKind::Usage, "prompt " + job.id,
                fmt::format("{}", fmt::join(validation.lines(), "; ")));
  return plan(prompt, validation.good_outputs, token, job.id);
}

Json PromptEngine::predict(const server::Job& job, const std::shared_ptr<RunToken>& token) {
  return plan(job.prompt, job.outputs, token, job.id);
}

Json PromptEngine::devices() {
  return as_json(app_.engine.devices(), device::load_links(device::default_link_file()));
}

server::EngineNumbers PromptEngine::numbers() {
  auto state = streaming::engine_watch().state();
  return {.held_bytes = state.held_bytes(),
          .link_bytes = state.link_bytes,
          .placed = state.counts.placed,
          .reused = state.counts.reused,
          .evicted = state.counts.evicted,
          .evicted_bytes = state.counts.evicted_bytes,
          .shrunk = state.counts.shrunk,
          .shrunk_bytes = state.counts.shrunk_bytes};
}

Json PromptEngine::plan(const Json& prompt, const std::vector<std::string>& outputs) {
  return plan(prompt, outputs, nullptr, "");
}

Json PromptEngine::plan(const Json& prompt, const std::vector<std::string>& outputs,
                        const std::shared_ptr<RunToken>& token, const std::string& job) {
  std::lock_guard lock(planning_);
  auto options = options_;
  std::optional<Rig> rig;
  if (!options.rig.empty()) {
    rig = read_rig(options.rig);
    options = planned_options(std::move(options), *rig);
  }
  auto app = make_app(options, std::move(rig), true);
  graph::Catalog catalog;
  nodes::add_all(catalog, *app);
  if (choices_.more_nodes) choices_.more_nodes(catalog);
  auto context = app->context();
  graph::Executor executor(catalog);
  graph::RunRequest request;
  request.prompt = prompt;
  request.outputs = outputs;
  request.context = &context;
  request.token = token;
  PlannedNodes nodes(app->engine);
  auto result = executor.run(request, nodes);
  if (result.status != graph::RunStatus::Success) rethrow_with_node(result);
  const auto all = price_all(app->engine.planned_runs());
  Json models = Json::array();
  double seconds = 0;
  for (const auto& priced : all) {
    seconds += priced.times * priced.seconds();
    models.push_back(as_json(priced));
  }
  auto by_node = nodes.seconds(all);
  Json plan = {{"seconds", seconds}, {"nodes", as_json(by_node)}, {"models", std::move(models)}};
  if (reports_ && !job.empty()) reports_->expect(job, std::move(by_node));
  return plan;
}

}  // namespace distorch::cli
