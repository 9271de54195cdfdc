#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <new>
#include <system_error>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/run_token.h"
#include "distorch/cli/commands.h"
#include "distorch/cli/more_nodes.h"
#include "distorch/cli/version.h"
#include "distorch/device/host_pool.h"

namespace {

/// The one run of this process, for the signal handler.
distorch::RunToken* process_run = nullptr;
volatile std::sig_atomic_t interrupted_by = 0;

/// The first Ctrl-C asks the run to stop at the next good moment, a second one does not wait for
/// it.
void on_interrupt(int signal) {
  if (process_run->interrupted()) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
  interrupted_by = signal;
  process_run->interrupt();
}

int report(const std::string& message, int code) {
  std::fflush(stdout);
  // Nobody may be reading: that is no reason to end otherwise.
  std::fputs(("distorch: " + message + "\n").c_str(), stderr);
  return code;
}

/// 130 after Ctrl-C, as shells have it.
int exit_status(distorch::ErrorKind kind) {
  if (kind == distorch::ErrorKind::Usage) return 2;
  return kind == distorch::ErrorKind::Interrupted && interrupted_by ? 128 + interrupted_by : 1;
}

int run_guarded(const distorch::cli::Action& action) {
  try {
    return action();
  } catch (const distorch::Error& error) {
    return report(error.what(), exit_status(error.kind()));
  } catch (const c10::OutOfMemoryError& error) {
    return report(fmt::format("out of memory: {}", error.what_without_backtrace()), 1);
  } catch (const c10::Error& error) {
    return report(fmt::format("internal error: {}", error.what_without_backtrace()), 1);
  } catch (const std::bad_alloc&) {
    return report("out of memory (RAM)", 1);
  } catch (const std::system_error& error) {
    // Whoever read our output has had enough of it, as `head` does: shells call that 128 + SIGPIPE.
    if (error.code() == std::errc::broken_pipe) return 128 + SIGPIPE;
    return report(fmt::format("internal error: {}", error.what()), 1);
  } catch (const std::exception& error) {
    return report(fmt::format("internal error: {}", error.what()), 1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  distorch::device::set_up_host_memory();
  // An encoder of videos would greet on standard error. The environment is set while there is one
  // thread.
  setenv("SVT_LOG", "1", 0);
  CLI::App app{
      "distorch runs ComfyUI workflows with the models' weights spread over every memory you "
      "have.\n"
      "Start with:  distorch run workflow.json",
      "distorch"};
  app.set_version_flag("--version", std::string("distorch ") + distorch::cli::kVersion);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  std::string level = "info";
  app.add_option("--log-level", level,
                 "Messages on standard error: debug, info, warning, error, off")
      ->check(CLI::IsMember({"debug", "info", "warning", "error", "off"}))
      ->capture_default_str();

  distorch::cli::Action chosen;
  distorch::cli::add_run_command(app, chosen);
  distorch::cli::add_serve_command(app, chosen, distorch::cli::add_more_nodes);
  distorch::cli::add_plan_command(app, chosen);
  distorch::cli::add_devices_command(app, chosen);
  distorch::cli::add_inspect_command(app, chosen);
  distorch::cli::add_convert_command(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    int code = app.exit(error);
    return code == 0 ? 0 : 2;
  }
  distorch::log::set_up(level);
  distorch::RunScope scope(std::make_shared<distorch::RunToken>());
  process_run = distorch::current_run().get();
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  // Broken pipes, and files that pass a limit of their size (ulimit -f), are errors of the write.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  return run_guarded(chosen);
}
