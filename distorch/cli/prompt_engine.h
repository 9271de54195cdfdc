#pragma once
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "distorch/cli/machine_options.h"
#include "distorch/cli/placement_reports.h"
#include "distorch/graph/executor.h"
#include "distorch/nodes/app.h"
#include "distorch/server/prompt_runner.h"

namespace distorch::cli {

struct EngineChoices {
  graph::CacheMode cache = graph::CacheMode::Classic;
  std::size_t cache_size = 0;                            // nodes, of CacheMode::Lru
  std::function<void(graph::Catalog&)> more_nodes = {};  // beside those of distorch/nodes
};

/// The engine as a server sees it. `app` must outlive it.
class PromptEngine final : public server::PromptRunner, public server::MachineView {
 public:
  /// `options` describe `app`; plans are made for a second application of the same description.
  PromptEngine(nodes::App& app, MachineOptions options, EngineChoices choices = {});

  const graph::Catalog& catalog() const { return catalog_; }
  /// Told how runs go; null: nobody. Before the first run; must outlive the last one.
  void set_reports(PlacementReports* reports) { reports_ = reports; }

  graph::Validation validate(graph::Json& prompt,
                             std::optional<std::vector<std::string>> targets) override;
  graph::RunResult run(const server::Job& job, const std::shared_ptr<RunToken>& token,
                       graph::EventSink& sink) override;
  void release(bool models, bool results) override;
  /// Also asks the system to read the model files that the prompt names, where they fit into RAM.
  graph::Json look_ahead(const server::Job& job, const std::shared_ptr<RunToken>& token) override;
  graph::Json predict(const server::Job& job, const std::shared_ptr<RunToken>& token) override;

  graph::Json devices() override;
  server::EngineNumbers numbers() override;
  graph::Json plan(const graph::Json& prompt, const std::vector<std::string>& outputs) override;

 private:
  /// What reports say of the job of this id comes from its plan; "": of none.
  graph::Json plan(const graph::Json& prompt, const std::vector<std::string>& outputs,
                   const std::shared_ptr<RunToken>& token, const std::string& job);

  nodes::App& app_;
  MachineOptions options_;
  EngineChoices choices_;
  nodes::PreviewMethod previews_;  // where a prompt asks for none
  graph::Catalog catalog_;
  graph::Json replacements_;                     // of old node types
  std::unique_ptr<nodes::Downloads> downloads_;  // null: nothing may be downloaded
  graph::Context context_;
  graph::Executor executor_;
  PlacementReports* reports_ = nullptr;
  std::mutex planning_;
};

/// Model files that constants of a prompt name, each once.
std::vector<std::filesystem::path> model_files_of(const graph::Json& prompt,
                                                  const nodes::ModelFolders& folders);

}  // namespace distorch::cli
