#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <memory>
#include <thread>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/run_token.h"
#include "distorch/base/units.h"
#include "distorch/cli/commands.h"
#include "distorch/cli/json_log.h"
#include "distorch/cli/machine_options.h"
#include "distorch/cli/prompt_engine.h"
#include "distorch/cli/server_surroundings.h"
#include "distorch/cli/temp_folder.h"
#include "distorch/cli/version.h"
#include "distorch/server/assets_routes.h"
#include "distorch/server/engine_routes.h"
#include "distorch/server/history_routes.h"
#include "distorch/server/jobs_routes.h"
#include "distorch/server/listener.h"
#include "distorch/server/openapi.h"
#include "distorch/server/prompt_routes.h"
#include "distorch/server/sockets.h"
#include "distorch/server/static_files.h"

namespace distorch::cli {

namespace {

struct Options {
  MachineOptions machine;
  std::vector<std::string> listen = {"127.0.0.1"}, host_names;
  std::uint16_t port = 8188;
  std::string user = "user", token, key, certificate, cors, log_format = "text";
  bool several_users = false;
  double upload_mib = 100;
  server::PreviewRules previews;
  std::int64_t history = 10000;
  std::size_t queue = 10000;
  bool cache_classic = false, cache_none = false;
  std::size_t cache_lru = 0;
};

/// Only this machine can reach it.
bool is_loopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

server::ListenerOptions listener_options(const Options& options) {
  server::ListenerOptions listener;
  listener.addresses = options.listen;
  listener.port = options.port;
  if (options.key.empty() != options.certificate.empty())
    throw Error(ErrorKind::Usage, "--tls-keyfile and --tls-certfile", "go together");
  if (!options.key.empty()) listener.tls = server::KeyPair{options.certificate, options.key};
  listener.upload_bytes = static_cast<std::size_t>(options.upload_mib * MiB);
  return listener;
}

server::GateOptions gate_options(const Options& options) {
  return {.token = options.token,
          .host_names = options.host_names,
          .cors_origin = options.cors,
          .secure = !options.key.empty()};
}

EngineChoices engine_choices(const Options& options, MoreNodes more) {
  EngineChoices choices;
  if (options.cache_none) choices.cache = graph::CacheMode::None;
  if (options.cache_lru > 0) choices.cache = graph::CacheMode::Lru;
  choices.cache_size = options.cache_lru;
  choices.more_nodes = std::move(more);
  return choices;
}

/// The command line of this process.
std::vector<std::string> own_arguments() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> arguments;
  for (std::string word; std::getline(file, word, '\0');) arguments.push_back(word);
  return arguments;
}

server::PageOptions page_options(const Options& options) {
  server::PageOptions page;
  page.folders.user = options.user;
  page.several_users = options.several_users;
  page.facts.distorch_version = kVersion;
  page.scripts.page = server::find_page_folders().page;
  page.scripts.own = server::own_scripts();
  page.facts.arguments = own_arguments();
  page.facts.upload_limit = static_cast<std::int64_t>(options.upload_mib * MiB);
  return page;
}

server::PromptOptions prompt_options(const Options& options) {
  std::error_code code;
  std::filesystem::create_directories(options.user, code);
  auto file = std::filesystem::path(options.user) / "distorch-jobs.sqlite";
  return {.store = {.file = file, .history_limit = options.history},
          .most_waiting = options.queue,
          .previews = options.previews};
}

/// What GET /features and the sockets say.
graph::Json features_of(nodes::App& app, const graph::Catalog& catalog,
                        const server::PageOptions& page) {
  AppModels models(app);
  AppMachine machine(app);
  server::SystemState state{machine, models, page.folders, catalog, page.facts, page.scripts};
  return server::server_features(state);
}

void announce(const Options& options, const server::Listener& listener) {
  log::info("serving at {}", fmt::join(listener.urls(), " and "));
  bool network = false;
  for (const auto& address : options.listen) network |= !is_loopback(address);
  if (network && options.token.empty())
    log::warn(
        "everybody who reaches this machine can use the server: set --auth-token, or listen on "
        "127.0.0.1 only");
}

/// A prompt would say it too, but only after its work is done.
void look_at_output(const std::filesystem::path& folder) {
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (!std::filesystem::is_directory(folder, code) || ::access(folder.c_str(), W_OK) != 0)
    log::warn("{}: cannot be written; prompts that save pictures will fail", folder.string());
}

void wait_for_signal() {
  constexpr std::chrono::milliseconds glance(50);
  while (!current_run()->interrupted()) std::this_thread::sleep_for(glance);
}

int serve(const Options& options, const MoreNodes& more) {
  if (options.log_format == "json") log_as_json();
  auto listener_settings = listener_options(options);
  wake_device(options.machine);
  auto rig = install_rig(options.machine);
  auto app = make_app(options.machine, std::move(rig), false);
  listener_settings.body_folder = app->settings.temp_folder;
  PromptEngine engine(*app, options.machine, engine_choices(options, more));

  auto page = page_options(options);
  server::Sockets sockets(features_of(*app, engine.catalog(), page));
  ServerSurroundings surroundings(*app, engine.catalog(), page, sockets);
  spdlog::default_logger()->sinks().push_back(surroundings.services().log().sink());
  server::JobFeed feed(sockets);
  PlacementReports reports(app->engine, sockets);
  engine.set_reports(&reports);
  server::Prompts prompts(engine, feed, prompt_options(options));
  server::Greeting greeting(prompts, &surroundings.services().log());
  sockets.set_listener(&greeting);
  server::EngineState engine_state{prompts, engine};
  server::Assets assets(surroundings.services().folders(), surroundings.models(),
                        std::filesystem::path(options.user) / "distorch-assets.sqlite");
  server::JobsV2 jobs(prompts, feed, surroundings.services().folders(), !options.key.empty());
  server::JobsV2State jobs_v2{jobs, assets};

  server::Router router;
  server::add_prompt_routes(router, prompts);
  server::add_history_routes(router, prompts);
  server::add_jobs_routes(router, prompts);
  server::add_jobs_v2_routes(router, jobs_v2);
  server::add_assets_routes(router, jobs_v2);
  server::add_placement_routes(router, reports.feed());
  server::add_engine_routes(router, engine_state);
  surroundings.services().add_routes(router);
  server::add_openapi_route(router, kVersion);

  server::PageState page_state(server::find_page_folders());
  page_state.knows_node = [&](const std::string& type) { return engine.catalog().find(type); };
  server::add_page_routes(router, page_state);

  server::Gate gate(gate_options(options));
  server::Listener listener(std::move(listener_settings), router, gate, &sockets);
  // Not before the port is known to be free: another server may use the folder.
  empty_temp_folder(app->settings.temp_folder);
  look_at_output(app->settings.output_folder);
  prompts.worker.start();
  listener.start();
  announce(options, listener);
  std::jthread ahead([&] { surroundings.services().prepare(); });
  wait_for_signal();
  log::info("stopping; what waits in the queue is kept");
  prompts.worker.stop();
  listener.stop();
  empty_temp_folder(app->settings.temp_folder);
  return 0;
}

void declare_network(CLI::App& command, Options& o) {
  const char* group = "Network";
  command.add_option("--listen", o.listen, "Addresses to listen on, separated by commas")
      ->delimiter(',')
      ->capture_default_str()
      ->group(group);
  command.add_option("--port", o.port, "Port; 0 takes a free one")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--auth-token", o.token, "What clients must show (a header, a cookie, /?token=)")
      ->envname("DISTORCH_AUTH_TOKEN")
      ->group(group);
  command.add_option("--tls-keyfile", o.key, "PEM file of the key: HTTPS")
      ->check(CLI::ExistingFile)
      ->group(group);
  command.add_option("--tls-certfile", o.certificate, "PEM file of its certificate")
      ->check(CLI::ExistingFile)
      ->group(group);
  command.add_option("--host-name", o.host_names, "Name under which browsers reach the server")
      ->group(group);
  command.add_option("--enable-cors-header", o.cors, "Another page's origin that may call, or *")
      ->group(group);
  command.add_option("--max-upload-size", o.upload_mib, "Largest upload in MiB")
      ->capture_default_str()
      ->check(CLI::Range(1.0, 1e5))
      ->group(group);
}

void declare_keeping(CLI::App& command, Options& o) {
  const char* group = "Serving";
  command
      .add_option("--user-directory", o.user,
                  "Settings and workflows of the users; the queue and the history")
      ->capture_default_str()
      ->group(group);
  command.add_flag("--multi-user", o.several_users, "Several users, each with files of his own")
      ->group(group);
  command.add_option("--history-limit", o.history, "Ended prompts that are kept")
      ->capture_default_str()
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40))
      ->group(group);
  command.add_option("--queue-limit", o.queue, "Waiting prompts that are taken")
      ->capture_default_str()
      ->check(CLI::PositiveNumber)
      ->group(group);
  command.add_option("--preview-size", o.previews.side, "Longer side of previews in pixels")
      ->capture_default_str()
      ->check(CLI::Range(16, 4096))
      ->group(group);
  auto* classic = command.add_flag("--cache-classic", o.cache_classic,
                                   "Keep results until a prompt comes that has no use for them");
  auto* lru =
      command
          .add_option("--cache-lru", o.cache_lru, "Besides, keep the results of the last N nodes")
          ->check(CLI::PositiveNumber);
  auto* none = command.add_flag("--cache-none", o.cache_none, "Keep no results between prompts");
  for (auto* option : {classic, lru, none}) option->group(group);
  classic->excludes(lru)->excludes(none);
  lru->excludes(none);
  command.add_option("--log-format", o.log_format, "text, or json: one object a line")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str()
      ->group(group);
}

}  // namespace

void add_serve_command(CLI::App& app, Action& chosen, MoreNodes more) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "serve", "Serve ComfyUI's web page and API: the queue and the history outlive a crash");
  command->fallthrough();
  declare(*command, options->machine);
  declare_downloads(*command, options->machine);
  options->machine.preview_method = "auto";
  auto* method =
      command
          ->add_option("--preview-method", options->machine.preview_method,
                       "Pictures of the latent while sampling: none, auto, latent2rgb, taesd")
          ->check(CLI::IsMember({"none", "auto", "latent2rgb", "taesd"}))
          ->capture_default_str();
  command->add_flag("--disable-metadata", options->machine.disable_metadata,
                    "Do not put the workflow into pictures");
  declare_network(*command, *options);
  declare_keeping(*command, *options);
  command->callback([options, method, more, &chosen] {
    options->previews.to_all = method->count() > 0;
    chosen = [options, more] { return serve(*options, more); };
  });
}

}  // namespace distorch::cli
