#pragma once
#include "distorch/nodes/app.h"
#include "distorch/server/page_services.h"
#include "distorch/server/surroundings.h"

namespace distorch::cli {

/// The server's view of the models of an application.
class AppModels : public server::ModelPlaces {
 public:
  explicit AppModels(const nodes::App& app) : folders_(app.folders) {}
  std::vector<std::string> types() const override { return folders_.types(); }
  std::vector<std::filesystem::path> folders(const std::string& type) const override;
  std::vector<std::string> extensions(const std::string& type) const override;
  std::vector<std::string> files(const std::string& type) const override;
  std::optional<std::filesystem::path> find(const std::string& type,
                                            const std::string& name) const override;

 private:
  const nodes::ModelFolders& folders_;
};

/// Its devices and memory.
class AppMachine : public server::Machine {
 public:
  explicit AppMachine(nodes::App& app) : engine_(app.engine) {}
  std::int64_t ram_total() const override;
  std::int64_t ram_free() const override;
  std::vector<server::DeviceState> devices() const override;

 private:
  streaming::Engine& engine_;
};

/// What its nodes offer to choose from: model files and input files.
class AppChoices : public server::NodeChoices {
 public:
  explicit AppChoices(const nodes::App& app) : app_(app) {}
  std::string state() const override;

 private:
  const nodes::App& app_;
};

/// What `distorch serve` makes: everything a page asks beside prompts, for an application. `app`,
/// `catalog` and `messages` must outlive it.
///
///   ServerSurroundings surroundings(app, catalog, options, hub);
///   surroundings.services().add_routes(router);
///   spdlog::default_logger()->sinks().push_back(surroundings.services().log().sink());
class ServerSurroundings {
 public:
  /// Of `options` the folders for input, output and temp and the version of torch are filled in
  /// from the application. Error(Format) where users.json is none of ours.
  ServerSurroundings(nodes::App& app, const graph::Catalog& catalog, server::PageOptions options,
                     server::Messages& messages);
  server::PageServices& services() { return services_; }
  const server::Machine& machine() const { return machine_; }
  const server::ModelPlaces& models() const { return models_; }

 private:
  AppModels models_;
  AppMachine machine_;
  AppChoices choices_;
  server::PageServices services_;
};

}  // namespace distorch::cli
